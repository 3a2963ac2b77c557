"""What this process uses and holds of limits that are counted in Redis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from llmproxy.limits.counters.recent_use import RecentUse
from llmproxy.limits.counters.remote_limits import RemoteLimit, RemoteTicket


class Settlements:
    """What requests took beyond their claims, all of them together.

    @ivar rates: How much that is, by key and slot; C{leases}: the numbers of those that hold nothing any more, by key.
    @ivar count: Of how many requests.
    """

    __slots__ = ("count", "leases", "rates")

    def __init__(self) -> None:
        self.rates: dict[tuple[str, int], int] = defaultdict(int)
        self.leases: dict[str, list[int]] = defaultdict(list)
        self.count = 0


class RedisUse:
    """Rates and leases by key, so that what Redis has lost can be put back.

    @ivar rates: What was used of rates in the last minute.
    """

    def __init__(self, process: str) -> None:
        """
        @param process: A name that no other process has.
        """
        self.process = process
        self.rates = RecentUse()
        self._held: dict[str, dict[int, None]] = defaultdict(dict)  # the numbers of who holds a lease

    def of(self, key: str, slot: int) -> int:
        """How much of a limit."""
        return self.rates.usage(key, slot) + len(self._held.get(key, ()))

    def hold(self, ticket: RemoteTicket) -> None:
        """A request has got what it holds at once."""
        _, limits, _, number, _ = ticket
        assert limits is not None
        for key in limits.leases:
            self._held[key][number] = None

    def settle(self, ticket: RemoteTicket, amounts: Sequence[int], settlements: Settlements) -> None:
        """It is over, and took so much: Redis is to know, too."""
        _, limits, claimed, number, slot = ticket
        assert limits is not None
        settlements.count += 1
        for key in limits.leases:
            settlements.leases[key].append(number)
            held = self._held[key]
            held.pop(number, None)
            if not held:
                del self._held[key]
        for unit, key, limit in limits.rates:
            amount = claimed[unit]
            beyond = amounts[unit] - (amount if amount < limit else limit)
            if beyond:
                settlements.rates[key, slot] += beyond
                self.rates.correct(key, slot, beyond)

    def holders(self) -> Iterator[tuple[str, str]]:
        """The key of each lease, and the name of who holds it."""
        for key, numbers in self._held.items():
            for number in numbers:
                yield key, self._name(number)

    def evidence(self, limit: RemoteLimit, slot: int, *, puts_back: bool) -> tuple[str | int, str]:
        """By what it is known that Redis has lost a limit, and what is then to be put back."""
        _, key, _, is_rate = limit
        if not is_rate:
            numbers = self._held.get(key, {})
            return len(numbers), ",".join(map(self._name, numbers)) if puts_back else ""
        generation = self.rates.generation(key, slot)
        return generation, self.rates.slots(key) if puts_back and generation else ""

    def _name(self, number: int) -> str:
        return f"{self.process}:{number}"
