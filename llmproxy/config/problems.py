"""What is wrong with the settings, and where: told all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llmproxy.config.given import printable

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
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
    def at(cls, place: Place, path: Path, message: str) -> Problem:
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
    return '"' + step[:60].encode("unicode_escape").decode("ascii") + '"'
