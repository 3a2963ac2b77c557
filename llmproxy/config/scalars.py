"""What a plain YAML scalar means, by the core of YAML 1.2: C{on}, C{no} and C{1_000} are words there."""

from __future__ import annotations

import re

_FIXED = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,300})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,100})\.[0-9]{1,100}")


def meaning(text: str) -> str | int | float | bool | None:
    """A boolean, a number, nothing, or the text itself."""
    if text in _FIXED:
        return _FIXED[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
