"""A memo with a bound: results that are cheap to compute again, and that no client may make grow without end."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedMemo(dict[K, V]):
    """A dictionary that starts over when C{limit} entries are in it and a further key is set.

    Starting over costs less than keeping an order of use, and only clients that make up keys get there. The bound holds
    for C{memo[key] = value}, the one way to fill it.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self._limit and key not in self:
            self.clear()
        super().__setitem__(key, value)
