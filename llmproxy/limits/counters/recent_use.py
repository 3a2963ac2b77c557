"""What this process has used of rates in the last minute, so that a key which Redis has lost can be rebuilt."""

from __future__ import annotations

from llmproxy.limits.window import SLOTS_PER_SECOND, Window


class RecentUse:
    """Windows by key, on the clock of the Redis server: its slots are tenths of a second since the epoch.

    The generation of a key is the word by which one that was lost and made anew is told from the one before.
    """

    def __init__(self) -> None:
        self._windows: dict[str, tuple[str, Window]] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def generation(self, key: str, slot: int) -> str:
        """The one in which this process has used something that still counts; C{""} where there is none."""
        known = self._windows.get(key)
        return known[0] if known is not None and self.usage(key, slot) else ""

    def usage(self, key: str, slot: int) -> int:
        """How much that is which still counts."""
        known = self._windows.get(key)
        return 0 if known is None else known[1].usage(_middle(slot))

    def last_generation(self, key: str) -> str:
        """The one in which it has used something, whether that still counts or not."""
        known = self._windows.get(key)
        return "" if known is None else known[0]

    def slots(self, key: str) -> str:
        """What was used by slot, as C{slot:amount,…}."""
        known = self._windows.get(key)
        return "" if known is None else ",".join([f"{slot}:{amount}" for slot, amount in known[1].items()])

    def add(self, key: str, generation: str, slot: int, amount: int) -> None:
        known = self._windows.get(key)
        window = Window() if known is None else known[1]
        window.add(amount, _middle(slot))
        self._windows[key] = (generation, window)

    def set_generation(self, key: str, generation: str) -> None:
        """What it has of the key is in this generation now."""
        known = self._windows.get(key)
        if known is not None:
            self._windows[key] = (generation, known[1])

    def correct(self, key: str, slot: int, more: int) -> None:
        """What was used in that slot was so much more, or less."""
        known = self._windows.get(key)
        if known is not None:
            known[1].correct(slot, more)

    def keys(self, slot: int) -> list[str]:
        """Those of which something still counts; the others are forgotten."""
        for key in [key for key, (_, window) in self._windows.items() if not window.usage(_middle(slot))]:
            del self._windows[key]
        return list(self._windows)


def _middle(slot: int) -> float:
    """Seconds, safely within the slot."""
    return (slot + 0.5) / SLOTS_PER_SECOND
