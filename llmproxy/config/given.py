"""Text that came from outside the settings file, and how any value is shown in a message."""

from __future__ import annotations

import re
from typing import Any, Self

_USERINFO = re.compile(r"//[^@\s]*@")
_LONGEST = 80


class Given(str):
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


def shown(value: Any) -> str:
    """A value as a message shows it: short, in one line, and without the credentials that a URL may hold."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int | float) and abs(value) >= 1e60:
        return "a very large number"
    text = value.source if isinstance(value, Given) else value if isinstance(value, str) else _written(value)
    text = _USERINFO.sub("//***@", text)
    return f'"{printable(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")}"'


def printable(text: str) -> str:
    """The text with everything escaped that could spoil a line on a terminal or in a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
