"""What the C{X-Sim-…} fields of a request make the simulator do; docs/simulator.md lists them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.use import UNITS

T = TypeVar("T")

BEFORE_HEAD = frozenset({"reset-head", "stall-head", "stall-upload", "garbage"})
"""Instead of a head."""
ODD_HEAD = frozenset({"slow-head", "bad-length", "double-length"})
"""In the head; the response goes on as if nothing were wrong."""
MID_BODY = frozenset({"reset", "truncate", "stall", "error-event"})
"""After some events of the response."""
AT_END = frozenset({"no-terminal-chunk", "close-idle", "close-next"})
"""When the whole response has been sent."""
AT_UPLOAD = frozenset({"early", "stall-upload"})
"""While the request body has not been read."""
STYLES = frozenset({"xai", "groq", "moonshot", "total", "zeros", "bare"})
"""Ways of reporting usage that differ from the provider's usual one."""
FAULTS = BEFORE_HEAD | ODD_HEAD | MID_BODY | AT_END | AT_UPLOAD


@dataclass(frozen=True)
class Steering:
    """How one request wants to be answered.

    @ivar events: Pieces of text in a streamed response (and the words of any response that has no C{size}).
    @ivar paced: Whether the number of events was asked for, so that an echo is cut into as many.
    @ivar first: Seconds before the first byte; C{gap}: seconds between one event and the next.
    @ivar after: Events sent before a fault in the middle of the body.
    @ivar size: Bytes of text in the response.
    @ivar split: Seed for where the body is cut into pieces of any size; C{None} leaves one event a piece.
    @ivar lines: Header lines to be added as they stand.
    @ivar counts: What the response is said to have consumed; C{tier}: the kind of work; C{style}: whose words tell it.
    """

    events: int = 8
    paced: bool = False
    first: float = 0.0
    gap: float = 0.0
    size: int | None = None
    status: int | None = None
    phrase: bytes | None = None
    fault: str = ""
    after: int = 4
    gzip: bool = False
    split: int | None = None
    echo: bool = False
    redirect: bytes | None = None
    lines: list[bytes] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    tier: str | None = None
    style: str = ""


def split(lines: Iterable[bytes]) -> list[tuple[str, str]]:
    """Field names, in lower case, and values of raw header lines."""
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs]


def steering(lines: Iterable[bytes]) -> Steering:
    """Read the C{X-Sim-…} lines; raise L{Refused} for one that says nothing sensible."""
    asked: dict[str, str] = {}
    added: list[bytes] = []
    for name, value in split(lines):
        if name == "x-sim-header":
            added.append(value.encode("latin-1"))
        elif name == "x-sim-cookie":
            added.append(b"Set-Cookie: " + value.encode("latin-1"))
        elif name.startswith("x-sim-"):
            asked[name] = value
    events = _read(asked, "x-sim-events", _positive)
    first, gap = _read(asked, "x-sim-delay", _delay) or (0.0, 0.0)
    status, phrase = _read(asked, "x-sim-status", _status) or (None, None)
    fault, after = _read(asked, "x-sim-fault", _fault) or ("", None)
    redirect = asked.get("x-sim-redirect")
    return Steering(
        events=events or 8,
        paced=events is not None,
        first=first,
        gap=gap,
        size=_read(asked, "x-sim-size", _number),
        status=status,
        phrase=phrase,
        fault=fault,
        after=(events or 8) // 2 if after is None else after,
        gzip=asked.get("x-sim-gzip") == "1",
        split=_read(asked, "x-sim-split", _number),
        echo=asked.get("x-sim-echo") == "1",
        redirect=redirect.encode("latin-1") if redirect is not None else None,
        lines=added,
        counts=_read(asked, "x-sim-use", _counts) or {},
        tier=asked.get("x-sim-tier"),
        style=_read(asked, "x-sim-style", _style) or "",
    )


def _read(asked: dict[str, str], name: str, parse: Callable[[str], T]) -> T | None:
    if name not in asked:
        return None
    try:
        return parse(asked[name])
    except ValueError as e:
        raise Refused(400, f"{name.title()}: {asked[name]!r} is not {e}.", "bad_steering") from e


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("a whole number")
    return int(text)


def _positive(text: str) -> int:
    if not _number(text):
        raise ValueError("a number above 0")
    return int(text)


def _delay(text: str) -> tuple[float, float]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not all(re.fullmatch(r"\d{1,6}(\.\d{1,6})?|\.\d{1,6}", part) for part in parts):
        raise ValueError("seconds, or two of them with a comma between")
    return float(parts[0]), float(parts[-1])


def _status(text: str) -> tuple[int, bytes | None]:
    match = re.fullmatch(r"([1-9][0-9]{2})(?: (.*))?", text)
    if match is None:
        raise ValueError("a status, with or without a reason phrase")
    return int(match[1]), match[2].encode("latin-1") if match[2] is not None else None


def _fault(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"([a-z-]+)(?:\s*;\s*after=([0-9]{1,9}))?", text)
    if match is None or match[1] not in FAULTS:
        raise ValueError(f"one of {', '.join(sorted(FAULTS))}")
    return match[1], int(match[2]) if match[2] is not None else None


def _counts(text: str) -> dict[str, int]:
    pairs = [part.strip().partition("=") for part in text.split(",")]
    if not all(name in UNITS and re.fullmatch(r"[0-9]{1,12}", count) for name, _, count in pairs):
        raise ValueError(f"NAME=NUMBER, …, with names from {', '.join(sorted(UNITS))}")
    return {name: int(count) for name, _, count in pairs}


def _style(text: str) -> str:
    if text not in STYLES:
        raise ValueError(f"one of {', '.join(sorted(STYLES))}")
    return text
