"""What a check has found."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    @ivar subject: What was looked at: C{store}, C{apis.openai}.
    @ivar state: C{ok}, C{warning} (the daemon starts all the same), or C{failed}.
    @ivar detail: What was found, without secrets.
    @ivar advice: What to do about it; C{""} where nothing is to be done.
    """

    subject: str
    state: str
    detail: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def failure(subject: str, error: BaseException, advice: str) -> Finding:
    """What failed, by its error, whose text may say what to do; only where it does not, C{advice} does."""
    if isinstance(error, OSError) and error.strerror:
        return Finding(subject, FAILED, f"{error.filename or subject}: {error.strerror}.", advice)
    text = str(error)
    if command := re.fullmatch(r"(.+) \((chmod [^)]+)\)\.?", text, re.DOTALL):
        return Finding(subject, FAILED, f"{command[1]}.", f"Run: {command[2]}")
    detail, _, own = text.partition(". ")
    return Finding(subject, FAILED, f"{detail.rstrip('.')}.", own or advice)
