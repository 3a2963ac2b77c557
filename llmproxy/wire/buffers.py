"""How many bytes of requests and responses are held in memory, by everybody together, and how many may be."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from mmap import mmap
from pathlib import Path

from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.errors import BuffersFull
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented

MAX_DERIVED_BYTES = 512 * 1024 * 1024
MIN_LIMIT_BYTES = 1024 * 1024  # below which the system's own limit does not lower it
SPARE_BYTES = 4 * 1024 * 1024
MEMORY_DIVISOR = 4  # the part of the memory that may be buffered where the settings do not say how much
RETRY_AFTER_SECONDS = 1.0
CGROUP = Path("/sys/fs/cgroup/memory.max")  # Linux, Control Group v2, "memory.max"

_log = Logger()


@implementer(IInstrumented)
class Buffers:
    """One account for all that is held: bodies that are read whole or wait for a provider, what clients have not taken
    yet, and what the cache gathers.

    What is being read whole asks first and is refused. What has been accepted is never thrown away: it is counted, and
    makes others wait (L{tight}) or be refused (L{load}).

    @ivar held: Bytes that are held now; C{refused}: how often something was not let in.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0
        self._spare: mmap | None = None

    def keep_spare(self) -> None:
        """Keep some address space for when the system gives no more: to say so takes memory too."""
        self._spare = mmap(-1, SPARE_BYTES)

    def starved(self) -> None:
        """The system gave less than was thought: hold less from now on."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()
        self.refused += 1
        limit = max(self.held * 3 // 4, MIN_LIMIT_BYTES)
        if limit >= self.limit:
            return
        self.limit = limit
        _log.warn("The system gives no more memory: at most {limit} bytes are buffered from now on.", limit=self.limit)

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("buffered_bytes", "Bytes of requests and answers that are held in memory.", lambda: self.held)
        yield Counter("buffers_full", "Requests and bodies that found no room there.", lambda: self.refused)

    def hold(self, count: int) -> None:
        """So many bytes more, or less, are held."""
        self.held += count

    def reserve(self, count: int) -> bool:
        """Hold so many bytes more if they fit. What is larger than everything may be held alone."""
        if self.held and self.held + count > self.limit:
            self.refused += 1
            return False
        self.held += count
        return True

    @property
    def full(self) -> bool:
        return self.held >= self.limit

    @property
    def tight(self) -> bool:
        """Whether half of it is in use: from then on nothing is read ahead for a client that does not keep up."""
        return 2 * self.held >= self.limit

    def check(self) -> None:
        """L{BuffersFull} where no further request can be taken."""
        if self.held >= self.limit:
            self.refused += 1
            raise BuffersFull(retry_after=RETRY_AFTER_SECONDS)


def derived_limit() -> int:
    """A quarter of the memory that this process may have, by its cgroup, the machine, and what is left of its
    C{ulimit -v}; at most L{MAX_DERIVED_BYTES}."""
    bounds = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        bounds.append(max(address_space - _address_space_in_use(), 0))
    with suppress(OSError, ValueError):  # "max", or no such file
        bounds.append(int(CGROUP.read_text()))
    return min(MAX_DERIVED_BYTES, min(bounds) // MEMORY_DIVISOR)


def _address_space_in_use() -> int:
    """Bytes that code, libraries and stacks have already (Linux, proc(5), C{statm})."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0
