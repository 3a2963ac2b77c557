"""Who waits for a connection, by project: each project's requests in order, the projects in turn."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """@ivar project: Whose it is."""

    @property
    def project(self) -> str: ...


T = TypeVar("T", bound=Queued)


class FairQueue(Generic[T]):
    """A queue of queues. However many requests one project has waiting, another's first is next but one.

    @ivar projects: The queue of each project that has requests waiting, the one whose turn is next first. To be looked
        at, for whether there are any.
    """

    def __init__(self) -> None:
        self.projects: dict[str, deque[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, queued: T) -> None:
        self.projects.setdefault(queued.project, deque()).append(queued)
        self._count += 1

    def pop(self) -> T:
        """The next. Its project's turn is over then."""
        project = next(iter(self.projects))
        queue = self.projects.pop(project)
        queued = queue.popleft()
        if queue:
            self.projects[project] = queue
        self._count -= 1
        return queued

    def remove(self, queued: T) -> None:
        """It waits no more."""
        queue = self.projects[queued.project]
        queue.remove(queued)
        if not queue:
            del self.projects[queued.project]
        self._count -= 1

    def newest_of_the_longest(self, project: str) -> T | None:
        """Who has to make room for a request of this project: the newest of the project that has most of them waiting;
        C{None} where no project would have more than this one afterwards."""
        longest = max(self.projects.values(), key=len, default=None)
        if longest is None or len(longest) <= len(self.projects.get(project, ())) + 1:
            return None
        return longest[-1]
