"""Whether a request that did not go well is sent again, and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from llmproxy import errors

MAX_BACKOFF_SECONDS = 5.0
MAX_RETRY_AFTER_SECONDS = 10.0  # for longer nobody waits in the client's place
BUDGET_SECONDS = 10
FREE_RETRIES = 3  # in that time, whatever the budget: a single client would have none


class RetryBudget:
    """How often requests may be sent again: a share of those that came, over the last ten seconds.

    When a provider is down, what it gets is bounded by that, whatever each request would like.

    @ivar exhausted: How often there was none left.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.exhausted = 0
        self._second = 0
        self._requests = [0] * BUDGET_SECONDS
        self._retries = [0] * BUDGET_SECONDS

    def deposit(self, now: float) -> None:
        """A request has come."""
        self._requests[self._advance(now)] += 1

    def withdraw(self, now: float) -> bool:
        """Whether one may be sent again, which then counts."""
        at = self._advance(now)
        if sum(self._retries) + 1 > max(FREE_RETRIES, self.share * sum(self._requests)):
            self.exhausted += 1
            return False
        self._retries[at] += 1
        return True

    def _advance(self, now: float) -> int:
        second = int(now)
        passed = second - self._second
        if passed:
            for each in range(max(self._second + 1, second - BUDGET_SECONDS + 1), second + 1):
                self._requests[each % BUDGET_SECONDS] = self._retries[each % BUDGET_SECONDS] = 0
            self._second = max(self._second, second)
        return self._second % BUDGET_SECONDS


def cause_of(outcome: errors.UpstreamFailure | int) -> str:
    """What happened, in the words of C{retries.on}: of a failure, or a response's status; C{""} where it has none."""
    if isinstance(outcome, int):
        return str(outcome)
    if not isinstance(outcome, errors.UpstreamUnreachable):
        return ""  # also where a connection took too long: the client has waited for that already
    if outcome.nothing_sent:
        return "connect"
    return "reused" if outcome.reused else "reset"


def pause_before(repetition: int, backoff: float, retry_after: float | None, jitter: float) -> float | None:
    """Seconds to wait before a request is sent to the same place again; C{None}: it is not worth waiting.

    @param repetition: Counted from 1.
    @param jitter: At random, from 0 to below 1.
    """
    if retry_after is not None and retry_after > MAX_RETRY_AFTER_SECONDS:
        return None
    random = jitter * min(backoff * 2.0 ** (repetition - 1), MAX_BACKOFF_SECONDS)
    return max(random, retry_after or 0.0)


def retry_after(lines: Iterable[bytes]) -> float | None:
    """Seconds after which a response says to come back (RFC 9110, section 10.2.3; C{retry-after-ms} as OpenAI and Azure
    send it); C{None} where it does not say. A date is counted from the response's own C{Date}."""
    found: dict[bytes, str] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        found.setdefault(name.lower(), value.strip().decode("latin-1"))
    milliseconds, says = found.get(b"retry-after-ms", ""), found.get(b"retry-after", "")
    if milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) < 12:
        return int(milliseconds) / 1000
    if says.isascii() and says.replace(".", "", 1).isdigit() and len(says) < 12:
        return float(says)
    try:
        until, since = parsedate_to_datetime(says), parsedate_to_datetime(found.get(b"date", ""))
        return max((until - since).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
