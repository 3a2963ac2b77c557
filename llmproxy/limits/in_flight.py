"""How many requests of one project may be under way to one provider: nobody may hold all there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from weakref import WeakValueDictionary

from zope.interface import implementer

from llmproxy import errors
from llmproxy.config.model import Settings
from llmproxy.instruments import Gauge, Instrument
from llmproxy.interfaces import IInstrumented

RETRY_AFTER_SECONDS = 1.0  # seconds after which a refused client may try again; others finish all the time


class Slots:
    """What one project has under way to one API; whoever has them need not look for them again.

    @ivar taken: How many requests; C{most}: how many there may be.
    """

    __slots__ = ("__weakref__", "most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    def release(self) -> None:
        """One of the requests is over; called once for each."""
        self.taken -= 1


@implementer(IInstrumented)
class InFlightLimit:
    """Counts them."""

    def __init__(self, settings: Settings) -> None:
        self._most: dict[str, int] = {}
        # Kept by requests under way, and by whoever expects some.
        self._slots: dict[str, WeakValueDictionary[str, Slots]] = {}
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Allow what these settings allow from now on; what is under way stays counted."""
        for name, api in settings.apis.items():
            most = api.connection.max_open_per_project or max(1, api.connection.max_conns_per_host // 2)
            self._most[name] = most
            for slots in self._slots.setdefault(name, WeakValueDictionary()).values():
                slots.most = most

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("requests_at_providers", "Requests under way to a provider.", lambda: self.open, "api")

    def slots(self, api: str, project_id: str) -> Slots:
        """Those of a project."""
        of_projects = self._slots[api]
        slots = of_projects.get(project_id)
        if slots is None:
            slots = of_projects[project_id] = Slots(self._most[api])
        return slots

    def acquire(self, api: str, project_id: str) -> Slots:
        """Begin a request, whose end is to be told; L{errors.TooManyOpen} where the project has its share already."""
        slots = self.slots(api, project_id)
        if slots.taken >= slots.most:
            raise errors.TooManyOpen(retry_after=RETRY_AFTER_SECONDS)
        slots.taken += 1
        return slots

    @property
    def open(self) -> Mapping[str, int]:
        """How many are under way, by API."""
        return {api: sum(each.taken for each in slots.values()) for api, slots in self._slots.items()}
