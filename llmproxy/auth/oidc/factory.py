"""What twistd finds: validators of JWTs, made where the settings ask for one; nothing is imported for them before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from twisted.plugin import IPlugin
from zope.interface import implementer

from llmproxy.config.auth_settings import OidcSettings
from llmproxy.config.explain import explain
from llmproxy.config.problems import dotted
from llmproxy.interfaces import ITokenValidator, ITokenValidatorFactory


@implementer(IPlugin, ITokenValidatorFactory)
class OidcValidatorFactory:
    """Makes validators out of settings as C{auth.oidc} has them."""

    name = "oidc"

    def validator(self, settings: Mapping[str, Any], reactor: Any, now: Callable[[], float]) -> ITokenValidator:
        try:
            chosen = OidcSettings.model_validate(settings)
        except ValidationError as e:
            raise ValueError("; ".join(f"{dotted(path)}: {text}" for path, text in explain(e))) from None
        if not chosen.issuer:
            raise ValueError("issuer is missing")
        require_joserfc()
        from llmproxy.auth.oidc.validator import OidcValidator

        return OidcValidator(chosen, reactor, now)


def require_joserfc() -> None:
    """L{ValueError} says what to install where it is not there."""
    try:
        import joserfc  # noqa: F401
    except ImportError:
        raise ValueError("OpenID Connect needs the package joserfc: pip install 'llmproxy[oidc]'") from None
