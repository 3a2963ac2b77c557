"""What operators have told the workers, kept for those that start later. Pure."""

from __future__ import annotations

from typing import Any

MAX_ORDERS = 1000  # each about something else, such as another provider


class StandingOrders:
    """The last order of each name and key, in the order in which they came."""

    def __init__(self) -> None:
        self._orders: dict[tuple[str, str], Any] = {}

    @property
    def entries(self) -> list[list[Any]]:
        """Name and body of each, the oldest first."""
        return [[name, body] for (name, _), body in self._orders.items()]

    def add(self, name: str, body: Any, key: str) -> None:
        """Keep it instead of the last one of this name and key."""
        self._orders.pop((name, key), None)
        if len(self._orders) >= MAX_ORDERS:
            del self._orders[next(iter(self._orders))]
        self._orders[name, key] = body

    def revoke(self, name: str) -> None:
        """Orders of this name are not in force any more."""
        self._orders = {known: body for known, body in self._orders.items() if known[0] != name}
