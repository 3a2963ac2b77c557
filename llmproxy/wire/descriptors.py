"""How many descriptors are left, and what is done before there are none: clients wait, providers are not blamed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented

PAUSE_SECONDS = 0.5  # between two looks whether there are enough again
LOG_INTERVAL_SECONDS = 60.0
SHOWN_SECONDS = 5.0  # for which the ready page tells of a shortage that is over
MAX_SOFT_LIMIT = 1 << 20  # a container's hard limit may be a thousand times that, which some libraries count through
FOR_FILES = 24  # descriptors for the store, logs, journals and Redis, which neither clients nor providers may take
_NONE = 1 << 30


def raise_soft_limit() -> None:
    """Let this process have as many descriptors as its hard limit allows: shells and systemd give it 1,024 at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_SOFT_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MAX_SOFT_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _soft_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _NONE if soft == resource.RLIM_INFINITY else soft


def lowest_free() -> int:
    """The number that the next descriptor will have; more than any limit where there is none left.

    A new descriptor is always the lowest that is free (POSIX, open), so as many are in use at least.
    """
    try:
        probe = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (errno.EMFILE, errno.ENFILE):
            return _NONE
        raise
    os.close(probe)
    return probe


@implementer(IHealthChecked, IInstrumented)
class Descriptors:
    """Sees to it that descriptors do not run out.

    A quarter of them (at least L{FOR_FILES}) is not for clients: once one of them gets a descriptor from that part,
    nobody is accepted for L{PAUSE_SECONDS} and until there is room. New clients wait in the listen queue meanwhile.
    Connections to providers may take from that quarter all but the last L{FOR_FILES}.

    @ivar shortages: How often there were too few.
    @ivar pause: Called to stop accepting clients, C{resume}: to go on.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        limit: Callable[[], int] = _soft_limit,
        next_one: Callable[[], int] = lowest_free,
    ) -> None:
        self.shortages = 0
        self.pause: Callable[[], object] = lambda: None
        self.resume: Callable[[], object] = lambda: None
        self._clock = clock
        self._limit = limit()
        self._next_one = next_one
        self._files = min(FOR_FILES, self._limit // 4)
        self._for_clients = self._limit - max(self._files, self._limit // 4)
        self._last = self._limit - self._files
        self._timer: IDelayedCall | None = None
        self._next_word = self._shown_until = float("-inf")

    @property
    def state(self) -> str:
        """C{ok}, or C{short} while nobody is accepted, and for some seconds more: meanwhile nobody can ask."""
        is_short = self._timer is not None or self._clock.seconds() < self._shown_until
        return "short" if is_short else "ok"

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("descriptor_shortages", "Times that descriptors ran short.", lambda: self.shortages)

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("descriptors", lambda: self.state)

    def taken_by_client(self, descriptor: int | None) -> bool:
        """A client has got this descriptor (C{None}: the last one that was given); whether it may keep it."""
        if descriptor is None:
            descriptor = self._next_one() - 1
        if descriptor >= self._for_clients:
            self._short()
        return descriptor < self._last

    def enough_for_provider(self) -> bool:
        """Whether one more connection to a provider may be made."""
        if self._next_one() < self._last:
            return True
        self._short()
        return False

    def none_left(self) -> bool:
        """Whether there is none at this moment: then that is why something failed."""
        if self._next_one() < self._limit:
            return False
        self._short()
        return True

    def close(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _short(self) -> None:
        if self._timer is not None:
            return
        self.shortages += 1
        self._timer = self._clock.callLater(PAUSE_SECONDS, self._look)
        now = self._clock.seconds()
        if now >= self._next_word:
            self._next_word = now + LOG_INTERVAL_SECONDS
            self._log.warn(
                "Descriptors run short (limit: {limit}): no client is accepted until there are enough again. "
                "Raise the limit (ulimit -n, LimitNOFILE=) or lower server.max_connections.",
                limit=self._limit,
            )
        self.pause()

    def _look(self) -> None:
        if self._next_one() < self._for_clients:
            self._timer = None
            self._shown_until = self._clock.seconds() + SHOWN_SECONDS
            self.resume()
        else:
            self._timer = self._clock.callLater(PAUSE_SECONDS, self._look)
