"""A sliding minute: how much was used in the last sixty seconds, at any moment.

The rule: what is used counts for 60 seconds, and for at most a tenth of a second longer, because uses are kept by the
tenth of a second in which they fell. So no sixty seconds, wherever they begin, ever hold more than the limit, and a use
comes back at most a tenth of a second (1/600 of the window) later than it could.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

WINDOW_SECONDS = 60.0
SLOTS_PER_SECOND = 10
WINDOW_SLOTS = 600


class Window:
    """What was used of one limit in the last minute. At most L{WINDOW_SLOTS} + 1 numbers, however much that is.

    @ivar slot: The slot of the present, as far as is known; L{slide} goes on to another.
    @ivar used: The sum of all: whoever uses something adds it here, and calls L{note} where it is nothing as yet.
    @ivar noted: What of that C{slots} has; the rest was used in the present slot.
    @ivar slots: What was used in each, the oldest first.
    """

    __slots__ = ("noted", "slot", "slots", "used")

    def __init__(self) -> None:
        self.slots: OrderedDict[int, int] = OrderedDict()
        self.used = self.noted = 0
        self.slot = 0

    def usage(self, now: float) -> int:
        """How much counts at C{now}, in seconds."""
        slot = int(now * SLOTS_PER_SECOND)
        if slot != self.slot:
            self.slide(slot)
        return self.used

    def add(self, amount: int, now: float) -> int:
        """Use so much now; gives the slot, by which L{correct} finds it again."""
        if int(now * SLOTS_PER_SECOND) != self.slot:
            self.usage(now)
        self.used += amount
        if not amount:
            self.note()
        return self.slot

    def note(self) -> None:
        """In the present slot there is something, be it nothing as yet."""
        self.slots[self.slot] = self.slots.get(self.slot, 0) + self.used - self.noted
        self.noted = self.used

    def correct(self, slot: int, more: int) -> None:
        """What was used in that slot was so much more (or less); of no interest once the slot has left the window."""
        if slot in self.slots:
            self.slots[slot] += more
            self.noted += more
            self.used += more
        elif slot == self.slot and self.used != self.noted:
            self.used += more

    def items(self) -> Iterable[tuple[int, int]]:
        """What was used, by slot, the oldest first."""
        if self.used != self.noted:
            self.note()
        return self.slots.items()

    def wait(self, amount: int, limit: int, now: float) -> float:
        """Seconds until so much more will be within the limit, if nothing else is used; 0 where it is already."""
        excess = self.usage(now) + amount - limit
        for slot, used in self.items():
            if excess <= 0:
                return 0.0
            excess -= used
            if excess <= 0:
                return until(slot, now)
        return 0.0 if excess <= 0 else WINDOW_SECONDS

    def reset(self, now: float) -> float:
        """Seconds until nothing of what is used now counts any more."""
        if not self.usage(now):
            return 0.0
        if self.used != self.noted:
            self.note()
        return until(next(reversed(self.slots)), now) if self.slots else 0.0

    def slide(self, slot: int) -> None:
        """Go on to that slot. A clock that is set back a little stands still; set back far, it starts over."""
        if slot < self.slot:
            if self.slot - slot <= WINDOW_SLOTS:
                return
            self.slots.clear()
            self.used = self.noted = 0
        if self.used != self.noted:
            self.note()
        self.slot = slot
        slots, oldest = self.slots, slot - WINDOW_SLOTS
        while slots and (first := next(iter(slots))) < oldest:
            gone = slots.pop(first)
            self.used -= gone
            self.noted -= gone


def until(slot: int, now: float) -> float:
    """Seconds until what was used in that slot counts no more."""
    return max((slot + WINDOW_SLOTS + 1) / SLOTS_PER_SECOND - now, 0.0)
