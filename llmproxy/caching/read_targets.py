"""Which targets responses may be stored of: those that somebody has asked for with GET or HEAD, here or in a worker
beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from llmproxy.base.peers import Peers

MAX_REMEMBERED_TARGETS = 4096  # beyond these every target may be one
_READ, _READS = "cache.read", "cache.reads"


class ReadTargets:
    """Remembers their paths, and has other workers know them.

    @ivar any: Whether there is one.
    """

    def __init__(
        self, peers: Peers, run: Callable[[Coroutine[Any, Any, None]], object], *, everything: bool = False
    ) -> None:
        """
        @param run: Has what others know asked for, once that matters.
        @param everything: Whether every target may be one anyway, as all workers share one cache.
        """
        self._peers = peers
        self._run = run
        self._here, self._elsewhere = _Paths(is_full=everything), _Paths()
        self._has_asked = self._knows = everything or peers.alone
        self.any = not self._knows or everything
        peers.register(_READ, self._read_elsewhere)
        peers.register(_READS, lambda body: self._here.told())

    def may_be_here(self, target: bytes) -> bool:
        """Whether a response to a request for this may be stored in this process."""
        return _path(target) in self._here

    def may_be_elsewhere(self, target: bytes) -> bool:
        """Likewise in another worker, with a cache of its own."""
        if not self._has_asked:
            # Not sooner: this worker serves now, so that it is told of all that is read elsewhere from now on.
            self._has_asked = True
            self._run(self._ask())
        return not self._knows or _path(target) in self._elsewhere

    def remember(self, target: bytes) -> None:
        """Somebody asks for it with GET or HEAD."""
        self.any = True
        path = _path(target)
        if path not in self._here:
            self._here.add(path)
            self._peers.tell(_READ, None if self._here.is_full else _text(path))

    async def _ask(self) -> None:
        for paths in await self._peers.ask(_READS):
            for path in [None] if paths is None else paths:
                self._read_elsewhere(path)
        self._knows = True

    def _read_elsewhere(self, path: str | None) -> None:
        """Another worker is asked for it; C{None}: for more than it remembers."""
        self.any = True
        if path is None:
            self._elsewhere = _Paths(is_full=True)
        else:
            self._elsewhere.add(path.encode("latin-1"))


class _Paths(set[bytes]):
    """So many at most; once there were more, every path is among them.

    @ivar is_full: Whether that is so.
    """

    def __init__(self, *, is_full: bool = False) -> None:
        super().__init__()
        self.is_full = is_full

    def __contains__(self, path: object) -> bool:
        return self.is_full or super().__contains__(path)

    def add(self, path: bytes) -> None:
        if not self.is_full:
            super().add(path)
            if len(self) > MAX_REMEMBERED_TARGETS:
                self.is_full = True
                self.clear()

    def told(self) -> list[str] | None:
        """As others are told of them; C{None} for every path."""
        return None if self.is_full else [_text(path) for path in self]


def _path(target: bytes) -> bytes:
    return target.partition(b"?")[0]


def _text(path: bytes) -> str:
    return path.decode("latin-1")
