"""What is wrong with the settings and where, reported all at once, and how messages quote values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from llmproxy.base.url_masking import mask_url
from llmproxy.config.external_text import ExternalText

Path = tuple[str | int, ...]
MAX_QUOTED_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Location:
    """Where a setting was written: a file's line and column, counted from 1, or an environment variable (0, 0)."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    C{etc/apis.yaml:12:7: apis.openai.timeouts.request: "fast" is not a duration (try 120s)} is how it is written.

    @ivar file: The settings file, or the environment variable that was at fault.
    @ivar line: Counted from 1; 0 where a line means nothing, as in the environment. Likewise C{column}.
    @ivar path: The setting, such as C{server.listen[0]}; C{""} where the whole file is meant.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    @classmethod
    def at(cls, place: Location, path: Path, message: str) -> Problem:
        return cls(place.file, place.line, place.column, dotted(path), printable(message))

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (where, self.path, self.message) if part)


class SettingsError(Exception):
    """The settings cannot be used; C{problems} says everything that is wrong with them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """Write a path as people say it: C{apis.openai.allowed_endpoints[2]}."""
    written = "".join(f"[{step}]" if isinstance(step, int) else f".{_name(step)}" for step in path)
    return written.removeprefix(".")


def _name(step: str) -> str:
    if re.fullmatch(r"[\w<>*/-]{1,60}", step):
        return step
    return '"' + mask_url(step)[:60].encode("unicode_escape").decode("ascii") + '"'


def quoted(value: Any) -> str:
    """A value as a message shows it: short, in one line, and as L{mask_url} has it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int | float) and abs(value) >= 1e60:
        return "a very large number"
    text = value.source if isinstance(value, ExternalText) else value if isinstance(value, str) else _written(value)
    text = mask_url(text)
    return f'"{printable(text if len(text) <= MAX_QUOTED_CHARACTERS else text[: MAX_QUOTED_CHARACTERS - 1] + "…")}"'


def printable(text: str) -> str:
    """The text with everything escaped that could spoil a line on a terminal or in a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def did_you_mean(word: str, words: Iterable[str], upper: bool = False) -> str:
    """The end of a message: the word nearest to C{word}, if one is near.

    @param upper: Whether the words are in capitals; else they are in small letters.
    """
    near = get_close_matches(word[:60].upper() if upper else word[:60].lower(), list(words), 1, 0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
