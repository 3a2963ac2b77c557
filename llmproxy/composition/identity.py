"""Managing by what an identity provider says, put together where the settings ask for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from llmproxy.auth.oidc.factory import require_joserfc
from llmproxy.config.load import read_private
from llmproxy.config.model import Settings
from llmproxy.config.secret_variables import secret
from llmproxy.sealing import Sealer

if TYPE_CHECKING:
    from llmproxy.web.admin.identity import IdentitySignIn
    from llmproxy.web.manage.jwt_bearers import JwtBearers


class Identities(NamedTuple):
    """Those whom an identity provider knows, and who manage.

    @ivar sign_in: How they sign in to the pages, if they do; C{bearers}: those who send a JWT.
    @ivar parts: Of it what is started, stopped and shown with the daemon.
    """

    sign_in: IdentitySignIn | None = None
    bearers: JwtBearers | None = None
    parts: tuple[object, ...] = ()


def identities(
    settings: Settings,
    environ: Mapping[str, str],
    sealer: Sealer,
    reactor: Any,
    now: Callable[[], float],
    random: Callable[[int], bytes],
    learn: Callable[[str], object],
    check: Callable[[str, float | None], Awaitable[None]],
) -> Identities:
    """L{ValueError} where what it needs is not installed.

    @param sealer: For what browsers keep meanwhile; C{learn}: told the client's secret, which is to be masked.
    @param check: Raises where the tokens of this subject, issued then, were revoked here.
    """
    chosen = settings.management.oidc
    if not chosen.issuer:
        return Identities()
    try:
        require_joserfc()
    except ValueError as e:
        raise ValueError(f"management.oidc: {e}") from None
    from llmproxy.auth.oidc.identity_provider import IdentityProvider
    from llmproxy.web.admin.identity import IdentitySignIn
    from llmproxy.web.manage.jwt_bearers import JwtBearers

    provider = IdentityProvider(chosen.provider(), reactor, now)
    bearers = JwtBearers(chosen, provider, check)
    if not chosen.redirect_uri:
        return Identities(None, bearers, (provider, bearers))
    client_secret = secret(environ, "OIDC_CLIENT_SECRET", read_private) or ""
    learn(client_secret)
    sign_in = IdentitySignIn(chosen, provider, client_secret, sealer, reactor, now, random, check)
    return Identities(sign_in, bearers, (provider, bearers))


def issuers(settings: Settings) -> Iterator[str]:
    """Of all whose JWTs are taken for something."""
    yield from filter(None, (settings.management.oidc.issuer, settings.auth.oidc.issuer))
    yield from (str(each.options.get("issuer", "")) for each in settings.auth.validators if each.type == "oidc")
