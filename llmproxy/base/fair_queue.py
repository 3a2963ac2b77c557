"""Who waits, by owner: each owner's items in order, the owners in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)
T = TypeVar("T")


class FairQueue(Generic[Owner, T]):
    """A queue of queues. However many items one owner has waiting, another's first is next but one.

    @ivar owners: The queue of each owner that has items waiting, the one whose turn is next first. To be looked at,
        for whether there are any.
    """

    def __init__(self) -> None:
        self.owners: dict[Owner, deque[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, owner: Owner, item: T) -> None:
        self.owners.setdefault(owner, deque()).append(item)
        self._count += 1

    def pop(self) -> T:
        """The next. Its owner's turn is over then."""
        owner = next(iter(self.owners))
        queue = self.owners.pop(owner)
        item = queue.popleft()
        if queue:
            self.owners[owner] = queue
        self._count -= 1
        return item

    def remove(self, owner: Owner, item: T) -> None:
        """It waits no more."""
        queue = self.owners[owner]
        queue.remove(item)
        if not queue:
            del self.owners[owner]
        self._count -= 1

    def newest_of_the_longest(self, owner: Owner) -> T | None:
        """Who has to make room for an item of this owner: the newest of the owner that has most of them waiting;
        C{None} where no owner would have more than this one afterwards."""
        longest = max(self.owners.values(), key=len, default=None)
        if longest is None or len(longest) <= len(self.owners.get(owner, ())) + 1:
            return None
        return longest[-1]
