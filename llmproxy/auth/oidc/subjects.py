"""How claims are found, and what whoever they are about is called. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from llmproxy.errors.identity import ClaimsNotAllowed, TokenInvalid

MAX_SUBJECT_CHARACTERS = 255  # OpenID Connect Core 1.0, section 2
MAX_VALUES = 200  # of one claim that are looked at
_PLAIN = re.compile(r"[A-Za-z0-9._@|+-]{1,44}")
_HASHED = "sha256-"


def subject_id(claims: Mapping[str, Any]) -> str:
    """The name of whoever an issuer's C{sub} stands for, in ledger, limits and audit log: at most 64 characters.

    C{oidc:}, eight digits that stand for the issuer, and the subject: itself where it is short and plain, else a hash.
    """
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS:
        raise TokenInvalid("This JWT has no subject (sub).")
    if not _PLAIN.fullmatch(subject) or subject.startswith(_HASHED):
        subject = _HASHED + sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return issuer_prefix(issuer) + subject


def issuer_prefix(issuer: str) -> str:
    """What the names of all its subjects begin with."""
    return f"oidc:{sha256(issuer.encode()).hexdigest()[:8]}:"


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of exactly that name; else what its parts, with dots between them, lead to; else C{None}."""
    if not name:
        return None
    if name in claims:
        return claims[name]
    found: Any = claims
    for step in name.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def texts(claims: Mapping[str, Any], name: str, *, split: bool = False) -> tuple[str, ...] | None:
    """The texts that a claim has; C{None} where it is not there. L{ClaimsNotAllowed} where it is anything else.

    @param split: Whether a text is a list with spaces, as C{scope} is.
    """
    value = claim(claims, name)
    if value is None:
        return None
    values = (value.split() if split else [value]) if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ClaimsNotAllowed(f"The claim {name} of this token is neither text nor a list of texts.")
    return tuple(values[:MAX_VALUES])
