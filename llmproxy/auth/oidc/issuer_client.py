"""Requests to an OpenID Connect provider: few, small, within a time, and only to where they were meant to go."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from llmproxy.base.coroutines import CancelledError, within
from llmproxy.config import addresses
from llmproxy.config.auth_settings import IdentityProviderSettings
from llmproxy.errors.identity import IdentityProviderUnavailable
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.client.tls import TrustPolicy

MAX_DOCUMENT_BYTES = 512 * 1024
DISCOVERY_PATH = "/.well-known/openid-configuration"


class IssuerError(IdentityProviderUnavailable):
    """The provider was not reached, or said something that it should not."""


class IssuerRefusal(Exception):
    """The provider refused what was asked (RFC 6749, section 5.2); C{error}: with which code."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class ProviderMetadata(NamedTuple):
    """What a provider says of itself (OpenID Connect Discovery 1.0, section 3); C{""} for what it does not have."""

    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    end_session_endpoint: str = ""
    token_auth_methods: tuple[str, ...] = ("client_secret_basic",)


class IssuerClient:
    """Asks one provider. Redirects are not followed; every failure is an L{IssuerError} that says what was wrong."""

    def __init__(self, settings: IdentityProviderSettings, reactor: Any, agent: IAgent | None = None) -> None:
        """
        @raise OSError: where the file of certificate authorities cannot be read.
        """
        self._settings = settings
        self._clock = reactor
        self._agent = agent or Agent(
            reactor, contextFactory=TrustPolicy(settings.ca_file), connectTimeout=settings.timeout
        )

    async def metadata(self) -> ProviderMetadata:
        """The discovery document, whose issuer must be the one that is trusted, to the letter."""
        issuer = self._settings.issuer
        document = await self.get(issuer.removesuffix("/") + DISCOVERY_PATH)
        if document.get("issuer") != issuer:
            raise IssuerError(f"The provider's discovery document is of another issuer than {issuer}.")
        endpoints = {name: self._endpoint(document, name) for name in ProviderMetadata._fields[:4]}
        if not endpoints["jwks_uri"]:
            raise IssuerError("The provider's discovery document has no jwks_uri.")
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        named = tuple(str(method) for method in methods) if isinstance(methods, list) else ()
        return ProviderMetadata(**endpoints, token_auth_methods=named)

    def _endpoint(self, document: Mapping[str, Any], name: str) -> str:
        url = document.get(name, "")
        try:
            url = addresses.endpoint_url(url)
        except ValueError:
            raise IssuerError(f"The provider's {name} is no URL.") from None
        if url and not addresses.is_secure_or_local(url) and not self._settings.allow_http:
            raise IssuerError(f"The provider's {name} does not begin with https://.")
        return url

    async def get(self, url: str) -> dict[str, Any]:
        """The JSON object that is there."""
        status, document = await self._request(b"GET", url, {})
        if status != 200 or document is None:
            raise IssuerError(f"The provider answered {status} instead of a JSON object.")
        return document

    async def redeem(
        self, metadata: ProviderMetadata, form: Mapping[str, str], client_id: str, secret: str
    ) -> dict[str, Any]:
        """What the token endpoint says to a grant (RFC 6749, sections 2.3 and 5); L{IssuerRefusal} where it refuses."""
        fields, headers = dict(form), {"content-type": "application/x-www-form-urlencoded"}
        if secret and "client_secret_basic" in metadata.token_auth_methods:
            pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
            headers["authorization"] = "Basic " + b64encode(pair).decode()
        else:
            fields["client_id"] = client_id
            if secret:
                fields["client_secret"] = secret
        status, document = await self._request(b"POST", metadata.token_endpoint, headers, urlencode(fields).encode())
        if document is None or status not in (200, 400, 401):
            raise IssuerError(f"The provider answered {status} to the code.")
        if status != 200:
            raise IssuerRefusal(str(document.get("error", "invalid_request"))[:64])
        return document

    async def _request(
        self, method: bytes, url: str, fields: Mapping[str, str], body: bytes | None = None
    ) -> tuple[int, dict[str, Any] | None]:
        late = IssuerError("The provider did not answer in time.")
        waiting = Deferred.fromCoroutine(self._exchange(method, url, fields, body))
        try:
            return await within(self._settings.timeout, self._clock, waiting, late)
        except (IssuerError, CancelledError):
            raise
        except Exception as e:  # as many kinds as there are ways to fail
            raise IssuerError(f"The provider cannot be reached: {_reason(e)}.") from e

    async def _exchange(
        self, method: bytes, url: str, fields: Mapping[str, str], body: bytes | None
    ) -> tuple[int, dict[str, Any] | None]:
        headers = Headers({"accept": ["application/json"], "user-agent": ["llmproxy"]})
        for name, value in fields.items():
            headers.setRawHeaders(name, [value])
        producer = None if body is None else BytesBody(body)
        response: Any = await self._agent.request(method, url.encode("ascii"), headers, producer)
        reader = _BoundedReader()
        response.deliverBody(reader)
        return int(response.code), _object(await reader.whole)


class _BoundedReader(Protocol):
    """Reads a response's body, as long as it is not too long."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_DOCUMENT_BYTES and not self.whole.called:
            self._abort()
            self.whole.errback(IssuerError("The provider's answer is too long."))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone, ConnectionDone):
            self.whole.callback(bytes(self._received))
        else:
            self.whole.errback(reason)

    def _abort(self) -> None:
        abort = getattr(self.transport, "abortConnection", None) or getattr(self.transport, "loseConnection", None)
        if abort is not None:
            abort()


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _reason(e: Exception) -> str:
    causes = [failure.value for failure in getattr(e, "reasons", ())] or [e]
    return "; ".join(str(cause).rstrip(".") or type(cause).__name__ for cause in causes)[:200]
