"""What responses may be stored of, so that a change need be looked for nowhere else: here by the paths that somebody
has asked for with GET or HEAD, and in the workers beside this one by the keys that they have told.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any
from zlib import crc32

from llmproxy.base.peers import Peers

MAX_REMEMBERED_TARGETS = 4096  # of which a path is remembered here; beyond these every target may be one
# Keys that others have told, or are told: the last ones. What is changed of an older one stays until its time is over.
MAX_KEYS = 10_000
_READ, _READS = "cache.read", "cache.reads"
_DIGEST_BYTES = 8


class ReadTargets:
    """Remembers them, and tells other workers of keys: of each once, until one of them has had it dropped. So a change
    costs others nothing where nobody has read what it changes, and only once where somebody has.

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
        self._paths: set[int] | None = None if everything else set()
        self._is_alone = everything or peers.alone
        self._told: dict[str, int] = {}  # by key: the path
        self._elsewhere: dict[str, int] = {}
        self._paths_elsewhere: dict[int, int] = {}  # how many of these keys are of each
        self._has_asked = self._knows = self._is_alone
        self.any = everything or not self._knows
        if not self._is_alone:
            peers.register(_READ, lambda body: self._add_elsewhere(*body))
            peers.register(_READS, lambda body: list(self._told.items()))

    def remember(self, target: bytes) -> None:
        """Somebody asks for it with GET or HEAD."""
        self.any = True
        paths = self._paths
        if paths is not None:
            paths.add(_path(target))
            if len(paths) > MAX_REMEMBERED_TARGETS:
                self._paths = None

    def may_be_here(self, target: bytes) -> bool:
        """Whether a response to a request for this may be stored in this process."""
        return self._paths is None or _path(target) in self._paths

    # Other workers

    def tell(self, target: bytes, key: str) -> None:
        """A response to a request for this is about to be asked for, and may be stored here under the key."""
        digest = "" if self._is_alone else _digest(key)
        if not self._is_alone and digest not in self._told:
            if len(self._told) >= MAX_KEYS:
                del self._told[next(iter(self._told))]
            self._told[digest] = path = _path(target)
            self._peers.tell(_READ, [digest, path])

    def may_be_elsewhere(self, target: bytes) -> bool:
        """Whether a response to a request for this may be stored in another worker: L{take} says which."""
        if not self._has_asked:
            # Not sooner: this worker serves now, so that it is told of all that is read elsewhere from now on.
            self._has_asked = True
            self._run(self._ask())
        return not self._knows or _path(target) in self._paths_elsewhere

    def take(self, key: str) -> bool:
        """Whether other workers are to drop this key; whoever may store it again tells of it again, this one too."""
        digest = _digest(key)
        if not self._forget_elsewhere(digest) and self._knows:
            return False
        self._told.pop(digest, None)
        return True

    def dropped(self, key: str) -> None:
        """Another worker has had all drop this key."""
        digest = _digest(key)
        self._told.pop(digest, None)
        self._forget_elsewhere(digest)

    async def _ask(self) -> None:
        for told in await self._peers.ask(_READS):
            for digest, path in told:
                self._add_elsewhere(digest, path)
        self._knows = True

    def _add_elsewhere(self, digest: str, path: int) -> None:
        self.any = True
        if digest in self._elsewhere:
            return
        if len(self._elsewhere) >= MAX_KEYS:
            self._forget_elsewhere(next(iter(self._elsewhere)))
        self._elsewhere[digest] = path
        self._paths_elsewhere[path] = self._paths_elsewhere.get(path, 0) + 1

    def _forget_elsewhere(self, digest: str) -> bool:
        path = self._elsewhere.pop(digest, None)
        if path is None:
            return False
        self._paths_elsewhere[path] -= 1
        if not self._paths_elsewhere[path]:
            del self._paths_elsewhere[path]
        return True


def _path(target: bytes) -> int:
    """A number for its path, whatever the query. Where two have the same, a change is looked for in vain."""
    return crc32(target.partition(b"?")[0])


def _digest(key: str) -> str:
    return blake2b(key.encode(), digest_size=_DIGEST_BYTES).hexdigest()
