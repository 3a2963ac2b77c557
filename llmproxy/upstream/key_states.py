"""Which of a project's keys a provider takes at present."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from llmproxy.sealing import mask
from llmproxy.upstream.balancing import identity

REFUSALS = frozenset((401, 402, 403))  # the key is wrong, or nobody has paid for it
OVERLOADS = frozenset((429, 529))
KEY_STATUSES = REFUSALS | OVERLOADS
COOLDOWN_SECONDS = 5.0  # after an overload that does not say when to come back
MAX_COOLDOWN_SECONDS = 3600.0


class KeyState:
    """What is known of one key at one upstream; also one of those that L{balancing.choose} chooses from.

    @ivar out_until: The clock's time until which it is passed over; C{status}: that of the response why.
    @ivar is_retired: Whether there is another of the same key by now, or none.
    """

    __slots__ = ("identity", "in_flight", "is_retired", "masked", "out_until", "project_id", "status", "turn")
    weight = 1
    priority = 0

    def __init__(self, project_id: str, masked: str, its: bytes) -> None:
        self.project_id = project_id
        self.masked = masked
        self.identity = its
        self.in_flight = 0
        self.turn = 0.0
        self.out_until = 0.0
        self.status = 0
        self.is_retired = False

    def ready(self, now: float) -> bool:
        return now >= self.out_until

    def responded(self, status: int, retry_after: float | None, cooldown: float, now: float) -> None:
        """A response to this key.

        @param retry_after: Seconds that it says; C{cooldown}: those for which a refused key is passed over.
        """
        if status in OVERLOADS:
            self._leave(status, COOLDOWN_SECONDS if retry_after is None else retry_after, now)
        elif status in REFUSALS:
            self._leave(status, cooldown, now)
        elif status < 400 and now >= self.out_until:
            self.status = 0

    def _leave(self, status: int, seconds: float, now: float) -> None:
        self.status = status
        self.out_until = max(self.out_until, now + min(seconds, MAX_COOLDOWN_SECONDS))


class KeyStates:
    """The states of the keys that were used lately, as many as fit."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._states: OrderedDict[tuple[str, str, str, bytes], KeyState] = OrderedDict()

    def of(self, api: str, base_url: str, project_id: str, key: bytes) -> KeyState:
        place = (api, base_url, project_id, key)
        state = self._states.get(place)
        if state is not None:
            self._states.move_to_end(place)
            return state
        state = self._states[place] = KeyState(project_id, mask(key.decode("ascii")), identity(key))
        while len(self._states) > self._size:
            self._states.popitem(last=False)[1].is_retired = True
        return state

    def forgive(self, api: str, base_url: str) -> None:
        """Somebody says that all keys may be used again at this upstream."""
        for state in list(self._troubled(api, base_url)):
            state.out_until, state.status = 0.0, 0

    def _troubled(self, api: str, base_url: str) -> Iterator[KeyState]:
        return (state for place, state in self._states.items() if place[:2] == (api, base_url) and state.status)

    def out(self, api: str, base_url: str, now: float) -> Iterator[KeyState]:
        """Those that are passed over at one upstream."""
        return (state for state in self._troubled(api, base_url) if not state.ready(now))
