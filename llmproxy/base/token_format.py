"""The form of the tokens that this proxy issues: C{sk-lp-} and 32 random bytes in base64url without padding.

Management keys are C{sk-lp-mk-} and the same: longer than a token, so that neither can be taken for the other.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

TOKEN_PREFIX = "sk-lp-"
_CHARACTER = "[A-Za-z0-9_-]"
TOKEN_PATTERN = f"{TOKEN_PREFIX}{_CHARACTER}{{43}}"
TOKEN_PART_PATTERN = f"{TOKEN_PREFIX}{_CHARACTER}{{20,}}"  # so much of one says too much of it
_TOKEN = re.compile(TOKEN_PATTERN)
MANAGEMENT_KEY_PREFIX = f"{TOKEN_PREFIX}mk-"
_MANAGEMENT_KEY = re.compile(f"{MANAGEMENT_KEY_PREFIX}{_CHARACTER}{{43}}")


def new_token(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh token."""
    return TOKEN_PREFIX + _random_text(random_bytes)


def new_management_key(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh management key."""
    return MANAGEMENT_KEY_PREFIX + _random_text(random_bytes)


def is_well_formed(token: str) -> bool:
    """Whether this could be a token of ours at all."""
    return _TOKEN.fullmatch(token) is not None


def is_management_key(text: str) -> bool:
    """Whether this could be a management key of ours at all."""
    return _MANAGEMENT_KEY.fullmatch(text) is not None


def _random_text(random_bytes: Callable[[int], bytes]) -> str:
    return base64.urlsafe_b64encode(random_bytes(32)).rstrip(b"=").decode()
