"""Verifies JWTs: who signed it, for whom, and when (RFC 7519; what RFC 8725 warns of is refused)."""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Collection, Mapping
from typing import Any

from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, deserialize_compact

from llmproxy.auth.oidc.signing_keys import SigningKeys
from llmproxy.config.auth_settings import IdentityProviderSettings
from llmproxy.errors import TokenExpired
from llmproxy.errors.identity import TokenInvalid, TokenNotYetValid

MAX_JWT_BYTES = 16 * 1024
MAX_HEADER_CHARACTERS = 4096  # some carry their certificate, which is not looked at
MAX_KEY_ID_CHARACTERS = 512
LAST_SECOND = 2.0**40  # since the epoch; what lies behind it is no date
_PARTS = re.compile(r"([A-Za-z0-9_-]{4,})\.([A-Za-z0-9_-]{2,})\.([A-Za-z0-9_-]*)")
_TYPES = frozenset(("", "jwt", "at+jwt", "application/at+jwt", "application/jwt"))

Claims = Mapping[str, Any]


class _Registry(JWSRegistry):
    """The algorithms that are allowed, whatever joserfc recommends; fields of the header that it does not know of are
    left alone, as RFC 7515 wants it.
    """

    max_header_length = MAX_HEADER_CHARACTERS
    max_payload_length = MAX_JWT_BYTES
    max_signature_length = 2048

    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__(algorithms=list(allowed), strict_check_header=False)
        self._permitted = frozenset(allowed)

    def get_alg(self, name: str) -> Any:
        if name not in self._permitted:
            raise UnsupportedAlgorithmError(f"Algorithm of '{name}' is not allowed")
        return self.algorithms[name]


class JwtVerifier:
    """Verifies the JWTs of one issuer."""

    def __init__(
        self,
        settings: IdentityProviderSettings,
        audience: Collection[str],
        keys: SigningKeys,
        now: Callable[[], float],
    ) -> None:
        """
        @param audience: One of these must be in C{aud}.
        @param now: Seconds since the epoch.
        """
        self._settings = settings
        self._audience = frozenset(audience)
        self._keys = keys
        self._now = now
        self._registry = _Registry(settings.algorithms)

    async def verify(self, token: str) -> Claims:
        """The claims, which are true. Waits only for a key that is not known yet.

        L{TokenInvalid}, L{TokenExpired}, L{TokenNotYetValid}; as L{SigningKeys.find} where there is no key.
        """
        header, _ = unverified(token)
        algorithm = header.get("alg")
        if algorithm not in self._settings.algorithms:  # before a key is looked for: none, HS256, and whatever else
            raise TokenInvalid("This JWT is signed with an algorithm that is not accepted here.")
        if "crit" in header or str(header.get("typ", "")).lower() not in _TYPES:
            raise TokenInvalid("This JWT is of a kind that is not accepted here.")
        kid = header.get("kid")
        if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KEY_ID_CHARACTERS):
            raise TokenInvalid("The key id of this JWT is none.")
        key = await self._keys.find(kid, algorithm)  # never one that the JWT brings or points to
        try:
            payload = deserialize_compact(token, key, registry=self._registry).payload
        except (JoseError, ValueError, TypeError, RecursionError):
            raise TokenInvalid("The signature of this JWT is not that of its issuer.") from None
        claims = _object(payload or b"")
        self._check(claims)
        return claims

    def _check(self, claims: Claims) -> None:
        if claims.get("iss") != self._settings.issuer:
            raise TokenInvalid("This JWT is of another issuer.")
        named = claims.get("aud")
        audience = named if isinstance(named, list) else [named]
        if not any(isinstance(each, str) and each in self._audience for each in audience):
            raise TokenInvalid("This JWT is meant for another audience.")
        now, skew = self._now(), self._settings.clock_skew
        expires, begins, issued = (_date(claims, name) for name in ("exp", "nbf", "iat"))
        if expires is None:
            raise TokenInvalid("This JWT never expires (exp).")
        if expires + skew <= now:
            raise TokenExpired
        if max(begins or 0.0, issued or 0.0) > now + skew:
            raise TokenNotYetValid


def expiry(claims: Claims, settings: IdentityProviderSettings) -> float:
    """When verified claims are good no more, in seconds since the epoch."""
    return float(claims["exp"]) + settings.clock_skew


def issued_at(claims: Claims) -> float | None:
    """When verified claims were made, in seconds since the epoch; C{None} where they do not say."""
    return None if claims.get("iat") is None else float(claims["iat"])


def is_jwt(token: str) -> bool:
    """Whether it looks like one at all."""
    return token.startswith("eyJ") and len(token) <= MAX_JWT_BYTES and _PARTS.fullmatch(token) is not None


def unverified(token: str) -> tuple[Claims, Claims]:
    """What the header and the payload say, which may be lies; L{TokenInvalid} where this is no JWT."""
    parts = _PARTS.fullmatch(token) if len(token) <= MAX_JWT_BYTES else None
    if parts is None or len(parts[1]) > MAX_HEADER_CHARACTERS:
        raise TokenInvalid("This is no JWT.")
    return _object(_decoded(parts[1])), _object(_decoded(parts[2]))


def _decoded(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise TokenInvalid("This is no JWT.") from None


def _object(text: bytes) -> Claims:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise TokenInvalid("This is no JWT.") from None
    if not isinstance(found, dict):
        raise TokenInvalid("This is no JWT.")
    return found


def _date(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LAST_SECOND:
        raise TokenInvalid(f"The claim {name} of this JWT is no date.")
    return float(value)
