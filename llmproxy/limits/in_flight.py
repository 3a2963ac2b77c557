"""How many requests of one project may be under way to one provider: nobody may hold all there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zope.interface import implementer

from llmproxy import errors
from llmproxy.config.model import Settings
from llmproxy.instruments import Gauge, Instrument
from llmproxy.interfaces import IInstrumented

RETRY_AFTER_SECONDS = 1.0  # seconds after which a refused client may try again; others finish all the time


@implementer(IInstrumented)
class InFlightLimit:
    """Counts them: two dictionary operations for a request."""

    def __init__(self, settings: Settings) -> None:
        self._most: dict[str, int] = {}
        self._open: dict[str, dict[str, int]] = {}
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Allow what these settings allow from now on; what is under way stays counted."""
        for name, api in settings.apis.items():
            self._most[name] = api.connection.max_open_per_project or max(1, api.connection.max_conns_per_host // 2)
            self._open.setdefault(name, {})

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("requests_at_providers", "Requests under way to a provider.", lambda: self.open, "api")

    def acquire(self, api: str, project_id: str) -> Slot:
        """Begin a request; L{errors.TooManyOpen} where the project has its share already."""
        of_projects = self._open[api]
        count = of_projects.get(project_id, 0)
        if count >= self._most[api]:
            raise errors.TooManyOpen(retry_after=RETRY_AFTER_SECONDS)
        of_projects[project_id] = count + 1
        return Slot(of_projects, project_id)

    @property
    def open(self) -> Mapping[str, int]:
        """How many are under way, by API."""
        return {api: sum(of_projects.values()) for api, of_projects in self._open.items()}


class Slot:
    """A request's part in what its project has under way."""

    __slots__ = ("_of_projects", "_project_id")

    def __init__(self, of_projects: dict[str, int], project_id: str) -> None:
        self._of_projects = of_projects
        self._project_id = project_id

    def release(self) -> None:
        """The request is over; called once."""
        left = self._of_projects[self._project_id] - 1
        if left:
            self._of_projects[self._project_id] = left
        else:
            del self._of_projects[self._project_id]
