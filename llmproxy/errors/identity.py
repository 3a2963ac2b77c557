"""Refusals of those whom an identity provider, and not this proxy, knows; as all L{llmproxy.errors}."""

from __future__ import annotations

from llmproxy.errors import Forbidden, InvalidToken, ProxyError


class TokenNotYetValid(InvalidToken):
    code = "token_not_yet_valid"
    message = "This token is not valid yet: look at the clock of whoever made it."


class TokenInvalid(InvalidToken):
    """A JWT that its issuer did not make, or not for here."""

    code = "token_invalid"
    message = "This JWT is not valid here."


class ClaimsNotAllowed(Forbidden):
    """A JWT that is valid, of somebody who has no access."""

    code = "claims_not_allowed"
    message = "The claims of this token allow no access here."


class ProjectUnknown(Forbidden):
    code = "project_unknown"
    message = "The project that this token belongs to is not known here."


class IdentityProviderUnavailable(ProxyError):
    """The keys to verify a JWT with, or the response to a sign-in, could not be had."""

    status, code = 503, "identity_provider_unavailable"
    message = "The identity provider could not be asked. Try again."
