"""Header fields that a request must have, and what they may say."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from llmproxy.errors import HeaderRequired, OriginRequired
from llmproxy.errors.policy import HeaderNotAllowed
from llmproxy.http import fields

MAX_VALUE_CHARACTERS = 1024  # characters of a value that a pattern is tried on


def check_required(lines: Sequence[bytes], names: Sequence[str], whose: str = "API") -> None:
    """Refuse a request that lacks one of these fields or has it empty: L{HeaderRequired}, or L{OriginRequired}.

    @param whose: What requires them: C{API}, C{project} or C{token}.
    """
    for name in names:
        if not fields.value(lines, name.encode("ascii")):
            if name.lower() == "origin":
                raise OriginRequired(f"This {whose} requires an Origin header.")
            raise HeaderRequired(f"This {whose} requires the header {name}.")


def check_values(lines: Sequence[bytes], name: str, patterns: Sequence[str], whose: str = "API") -> None:
    """Refuse a request whose fields of this name have a value that none of the patterns (globs, case-sensitive) allows.

    One that is not there is allowed. What stands between commas is a list (RFC 9110, section 5.6.1): each of its
    elements must be allowed, so that no glob allows what stands behind a comma. L{HeaderNotAllowed} names the field.
    """
    for value in fields.values(lines, name.encode("ascii")):
        elements = [element for each in value.decode("latin-1").split(",") if (element := each.strip())]
        if not all(_is_allowed(element, patterns) for element in elements or [""]):
            raise HeaderNotAllowed(f"The header {name} has a value that this {whose} does not allow.")


def _is_allowed(text: str, patterns: Sequence[str]) -> bool:
    return len(text) <= MAX_VALUE_CHARACTERS and any(fnmatchcase(text, pattern) for pattern in patterns)
