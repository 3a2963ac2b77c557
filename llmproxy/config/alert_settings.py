"""What is alerted of budgets, and who is told.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from llmproxy.config import addresses, values
from llmproxy.config.types import Duration, Flag, Items, Section, Text, Whole

MAX_THRESHOLD = 1000  # percent


def _reference(value: Any) -> str:
    text = str(values.text(value))
    scheme, _, name = text.partition(":")
    if text and (scheme not in ("env", "file") or not name or (scheme == "file" and not name.startswith("/"))):
        raise ValueError("is no reference to a secret (try env:ALERTS_SECRET or file:/run/secrets/alerts)")
    return text


class WebhookSettings(Section):
    """Alerts are sent by `POST` to a URL, signed as Standard Webhooks has it (docs/limits.md)."""

    url: Annotated[str, BeforeValidator(addresses.endpoint_url)] = ""
    """Where they go; empty: nowhere. Plain `http://` only on this machine, or with `allow_http`."""
    secret: Annotated[str, BeforeValidator(_reference)] = ""
    """Where the secret is that signs them: `env:NAME`, or `file:/path` (mode 0600), which is read for each delivery. A
    secret that begins with `whsec_` is base64 from there on."""
    timeout: Duration = Field(default=10.0, gt=0)
    """For each delivery, until the receiver has answered with 2xx."""
    attempts: Whole = Field(default=6, ge=1, le=20)
    """How often a delivery is tried, with pauses of 1, 5, 30, 120 and then 600 seconds; then it is dropped and
    counted."""
    queue_size: Whole = Field(default=1000, ge=1)
    """Alerts that may wait to be delivered, for each worker; further ones are dropped and counted."""
    ca_file: Text = ""
    """Further certificate authorities to trust for the receiver, a PEM file."""
    allow_http: Flag = False
    """Whether the receiver may be reached without TLS over a network."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.url:
            return self
        if not addresses.is_secure_or_local(self.url) and not self.allow_http:
            raise ValueError("url must begin with https:// (or set allow_http where the network is trusted)")
        if not self.secret:
            raise ValueError("secret is missing: receivers could not tell whether an alert is true")
        return self


class AlertSettings(Section):
    """What is alerted of budgets: once for each budget, period and threshold (docs/limits.md)."""

    thresholds: Annotated[tuple[Annotated[Whole, Field(ge=1, le=MAX_THRESHOLD)], ...], Items] = Field(
        default=(80, 95, 100), max_length=10
    )
    """Percent of a budget that is spent; `[]`: nothing is alerted. Soft budgets may be exceeded: `[100, 150, 200]`."""
    webhook: WebhookSettings = WebhookSettings()
