"""The form of the tokens that this proxy issues: C{sk-lp-} and 32 random bytes in base64url without padding."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

TOKEN_PREFIX = "sk-lp-"
_CHARACTER = "[A-Za-z0-9_-]"
TOKEN_PATTERN = f"{TOKEN_PREFIX}{_CHARACTER}{{43}}"
TOKEN_PART_PATTERN = f"{TOKEN_PREFIX}{_CHARACTER}{{20,}}"  # so much of one says too much of it
_TOKEN = re.compile(TOKEN_PATTERN)


def new_token(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh token."""
    return TOKEN_PREFIX + base64.urlsafe_b64encode(random_bytes(32)).rstrip(b"=").decode()


def is_well_formed(token: str) -> bool:
    """Whether this could be a token of ours at all."""
    return _TOKEN.fullmatch(token) is not None
