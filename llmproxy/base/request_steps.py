"""A request's way through the proxy, step by step, as one short text that its record has. Pure.

The text is C{auth:0.0004 body:0.0005 limits:0.31 admission:0.3101 0/0:429@0.3102+0.2 0/1:200@0.51+0.8~0.05}: when each
step of the proxy ended, in seconds from the request's arrival; and of each attempt at a provider what came of it, when
it began, how long it took, and how much of that it waited for a connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# What comes after what, where a request stops in it: it waits to be begun; its credential and the policies; its body,
# as far as that must be known; the cache; its limits; the provider's key, a slot, and one use of its token. Instead of
# its limits it is its turn at them, where it had to wait for that.
PROXY_STEPS = ("scheduler", "auth", "body", "cache", "limits", "admission")
TURN = "turn"
LEAST_PAUSE_SECONDS = 0.001  # between two attempts; less is no pause
MAX_ATTEMPTS = 20  # of which the text tells; of more, the first and the last

_PART = re.compile(
    r"([a-z]+):([0-9.e+-]+)|([0-9]+)/([0-9]+):([^ @]+)@([0-9.e-]+)\+([0-9.e-]+)(?:~([0-9.e-]+))?", re.ASCII
)


class AttemptTimes(NamedTuple):
    """One attempt at a provider.

    @ivar what: The upstream's number, the key's, and a status or a word: C{0/1:429}.
    @ivar begun: When, by the clock by which the request arrived; C{ended} likewise.
    @ivar queued: Seconds of it that it waited for a connection, since all were busy.
    """

    what: str
    begun: float
    ended: float
    queued: float = 0.0


class Step(NamedTuple):
    """A stretch of a request's time.

    @ivar name: One of L{PROXY_STEPS}, L{TURN}, C{connection} (waiting for one), C{attempt}, C{pause} (before the next
        attempt) or C{response} (from the first byte to the end).
    @ivar at: When it began, in seconds from the request's arrival; C{seconds}: how long it took.
    @ivar upstream: The number of where it was sent; C{key}: that of the key; C{result}: a status or a word.
    """

    name: str
    at: float
    seconds: float
    upstream: int | None = None
    key: int | None = None
    result: str | None = None


def encode(arrived: float, marks: Iterable[tuple[str, float]], attempts: Sequence[AttemptTimes]) -> str:
    """Steps, each with when it ended, and attempts, as text. All by the same clock."""
    told = attempts if len(attempts) <= MAX_ATTEMPTS else [*attempts[: MAX_ATTEMPTS - 1], attempts[-1]]
    parts = [f"{name}:{_seconds(end - arrived)}" for name, end in marks]
    for what, begun, ended, queued in told:
        waited = f"~{_seconds(queued)}" if queued else ""
        parts.append(f"{what}@{_seconds(begun - arrived)}+{_seconds(ended - begun)}{waited}")
    return " ".join(parts)


def decode(text: str) -> list[Step]:
    """What L{encode} has made this text of, without what is none of it."""
    steps: list[Step] = []
    end = 0.0
    for part in text.split():
        found = _PART.fullmatch(part)
        if found is None:
            continue
        name, ended, upstream, key, result, begun, took, queued = found.groups()
        if name is not None:
            steps.append(Step(name, end, max(float(ended) - end, 0.0)))
            end = max(float(ended), end)
            continue
        start, seconds, waited = float(begun), float(took), float(queued or 0.0)
        if steps and steps[-1].name == "attempt" and start - end >= LEAST_PAUSE_SECONDS:
            steps.append(Step("pause", end, start - end))
        if waited:
            steps.append(Step("connection", start, waited, int(upstream), int(key)))
        steps.append(Step("attempt", start + waited, max(seconds - waited, 0.0), int(upstream), int(key), result))
        end = start + seconds
    return steps


def stopped_in(marks: Sequence[tuple[str, float]], *, through_cache: bool) -> str:
    """The step in which a request ended that has these behind it."""
    last = marks[-1][0].replace(TURN, "limits") if marks else "scheduler"
    following = PROXY_STEPS[min(PROXY_STEPS.index(last) + 1, len(PROXY_STEPS) - 1)]
    return "limits" if following == "cache" and not through_cache else following


def _seconds(value: float) -> str:
    return f"{max(round(value, 6), 0.0):g}" if value < 1 else repr(round(value, 6))
