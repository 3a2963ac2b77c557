"""For how long an unused connection may be used again: what the provider says of that, and what its closes show.

A request that is sent while the provider closes its connection is lost, and only some of these may be sent again. So an
unused connection is left alone some time before its provider gives it up.
"""

from __future__ import annotations

import re
from collections import deque
from math import inf

MAX_MARGIN_SECONDS = 2.0  # before the provider's own end, at which a connection is not used any more
MARGIN_SHARE = 0.2  # likewise, of the time until that end
CLOSES_TO_LEARN = 3  # that have to agree
AGREEMENT_RATIO = 1.5  # of the longest of them to the shortest
REFUTED_RATIO = 1.5  # of what was learned: a connection that lives for so long shows that it was wrong
MAX_CLOSES = 8  # the last, of which the shortest counts
NOISE_SECONDS = 0.05  # by which a busy process, this or the provider's, may see or do anything late

_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class IdleLifetime:
    """What is known of one provider.

    @ivar limit: For how many seconds after its last response a connection may be used again; C{inf}: for ever.
    """

    def __init__(self, longest: float) -> None:
        """
        @param longest: What is set; C{0}: no limit.
        """
        self._longest = longest or inf
        self._stated = inf
        self._learned = inf
        self._closes: deque[float] = deque(maxlen=MAX_CLOSES)
        self._counted_at = -inf
        self.limit = self._longest

    @property
    def refuted_after(self) -> float:
        """After how many seconds a connection that is still there shows that its provider waits for longer; C{inf}
        where nothing was learned that it could refute."""
        refuted = self._learned * REFUTED_RATIO + NOISE_SECONDS
        return refuted if refuted < self._longest else inf

    def on_stated(self, value: bytes) -> None:
        """The provider has sent C{Keep-Alive} with this value (RFC 2068, section 19.7.1.1)."""
        found = _TIMEOUT.search(value)
        if found is not None:
            self._stated = float(found[1])
            self._decide()

    def on_closed(self, since: float, now: float) -> None:
        """The provider has closed a connection that it had sent its last response on at C{since}.

        Each close counts whose connection was put aside after the one that counted last: all connections at once are
        closed by a provider that starts anew, and no sign of its patience.
        """
        if since < self._counted_at:
            return
        self._counted_at = now
        idle = now - since
        if self._closes and not _agree(min(*self._closes, idle), max(*self._closes, idle)):
            self._closes.clear()
        self._closes.append(idle)
        if len(self._closes) >= CLOSES_TO_LEARN:
            self._learned = min(self._closes)
            self._decide()

    def refute(self) -> None:
        """A connection has outlived what was learned."""
        self._closes.clear()
        self._learned = inf
        self._decide()

    def _decide(self) -> None:
        provider = min(self._stated, self._learned)
        margin = min(MAX_MARGIN_SECONDS, provider * MARGIN_SHARE)
        self.limit = min(self._longest, provider - margin)


def _agree(shortest: float, longest: float) -> bool:
    return longest <= shortest * AGREEMENT_RATIO + NOISE_SECONDS
