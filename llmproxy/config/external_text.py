"""Text that comes from outside the settings file: the variables in it, and what a plain scalar means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

_FIXED = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,300})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,100})\.[0-9]{1,100}")
_DOLLAR = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class ExternalText(str):
    """The text of a variable or a flag, which does not say by itself whether it means a number or a list.

    @ivar source: What a message shows in its place: C{${OPENAI_KEY}} rather than what that stands for.
    @ivar meaning: What it would be as a plain scalar in the file, where it stands in place of one.
    """

    source: str
    meaning: Any

    def __new__(cls, text: str, source: str | None = None, meaning: Any = None) -> Self:
        self = super().__new__(cls, text)
        self.source = text if source is None else source
        self.meaning = text if meaning is None else meaning
        return self


def scalar_value(text: str) -> str | int | float | bool | None:
    """What a plain scalar means, by the core of YAML 1.2: a boolean, a number, nothing, or the text itself.

    C{on}, C{no} and C{1_000} are words there.
    """
    if text in _FIXED:
        return _FIXED[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def holds_variable(text: str) -> bool:
    """Whether anything in C{text} comes from outside, rather than from the file."""
    return any(match[1] is not None for match in _DOLLAR.finditer(text))


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Put in what C{${NAME}} and C{${NAME:-default}} stand for; C{$$} is a dollar sign.

    L{ValueError} where a variable is not set, or not written as one.

    A variable that is empty counts as not set where there is a default, as in a shell.
    """
    return _DOLLAR.sub(lambda match: _value(match, environ), text)


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    named = _NAMED.fullmatch(match[1]) if match[2] else None
    if named is None:
        raise ValueError("${ begins a variable: write ${NAME}, ${NAME:-default}, or $${ for the characters themselves")
    name, default = named.groups()
    value = environ.get(name)
    if value or (value is not None and default is None):
        return value
    if default is None:
        raise ValueError(f"the environment variable {name} is not set (set it, or write ${{{name}:-default}})")
    return str(default)
