"""Signing in by an identity provider, put together where the settings ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmproxy.auth.oidc.factory import require_joserfc
from llmproxy.config.load import read_private
from llmproxy.config.model import Settings
from llmproxy.config.secret_variables import secret
from llmproxy.sealing import Sealer

if TYPE_CHECKING:
    from llmproxy.web.admin.identity import IdentitySignIn


def identity_sign_in(
    settings: Settings,
    environ: Mapping[str, str],
    sealer: Sealer,
    reactor: Any,
    now: Callable[[], float],
    random: Callable[[int], bytes],
    learn: Callable[[str], object],
) -> IdentitySignIn | None:
    """C{None} where nobody can sign in so; L{ValueError} where what it needs is not installed.

    @param sealer: For what browsers keep meanwhile; C{learn}: told the client's secret, which is to be masked.
    """
    chosen = settings.management.oidc
    if not chosen.issuer:
        return None
    try:
        require_joserfc()
    except ValueError as e:
        raise ValueError(f"management.oidc: {e}") from None
    from llmproxy.web.admin.identity import IdentitySignIn

    client_secret = secret(environ, "OIDC_CLIENT_SECRET", read_private) or ""
    learn(client_secret)
    return IdentitySignIn(chosen, client_secret, sealer, reactor, now, random)
