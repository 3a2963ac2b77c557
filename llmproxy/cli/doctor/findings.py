"""What a check has found."""

from __future__ import annotations

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
