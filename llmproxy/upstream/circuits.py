"""The circuit breakers of each API: whether to try at all."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from llmproxy import errors
from llmproxy.config.api_settings import Api
from llmproxy.upstream.breaker import Breaker, State

# By which a provider says that it is not working; 529 says "later".
FAILURE_STATUSES = frozenset((500, 502, 503, 504))


class Circuits:
    """The breakers of one API.

    What no tenant can bring about (no connection to the provider) counts for everybody; answers that say failure and
    answers that do not come count only for the project that asked, so that one tenant cannot shut out another.
    """

    def __init__(self, api: Api, *, size: int = 10_000) -> None:
        self._failures = api.circuit_breaker.failures
        self._cooldown = api.circuit_breaker.cooldown
        self._size = size
        self.all = Breaker(self._failures, self._cooldown)
        self._projects: OrderedDict[str, Breaker] = OrderedDict()

    def breaker_of(self, project_id: str) -> Breaker:
        breaker = self._projects.get(project_id)
        if breaker is not None:
            self._projects.move_to_end(project_id)
        else:
            breaker = self._projects[project_id] = Breaker(self._failures, self._cooldown)
            while len(self._projects) > self._size:
                self._projects.popitem(last=False)
        return breaker

    def enter(self, project_id: str, now: float) -> Attempt:
        """Begin an attempt; L{errors.CircuitOpen} where none may be made now."""
        mine = self.breaker_of(project_id)
        shared_ticket = self.all.allow(now)
        if not shared_ticket:
            raise errors.CircuitOpen(retry_after=self.all.retry_after(now))
        ticket = mine.allow(now)
        if not ticket:
            self.all.released(shared_ticket)
            raise errors.CircuitOpen(retry_after=mine.retry_after(now))
        return Attempt(self.all, shared_ticket, mine, ticket)

    @property
    def state(self) -> State:
        """C{closed}, C{open} or C{half-open}: of the breaker that counts for everybody."""
        return self.all.state


@dataclass(slots=True)
class Attempt:
    """One request under way; ends with exactly one verdict."""

    shared: Breaker
    shared_ticket: int
    project: Breaker
    ticket: int

    def responded(self, status: int, now: float) -> None:
        self.shared.succeeded(now, self.shared_ticket)
        if status in FAILURE_STATUSES:
            self.project.failed(now, self.ticket)
        else:
            self.project.succeeded(now, self.ticket)

    def failed(self, error: BaseException, now: float) -> None:
        if isinstance(error, errors.UpstreamUnreachable) and error.nothing_sent:
            self.shared.failed(now, self.shared_ticket)
            self.project.released(self.ticket)
            return
        self.shared.released(self.shared_ticket)
        if isinstance(error, errors.UpstreamFailure) and not isinstance(error, errors.UpstreamBusy):
            self.project.failed(now, self.ticket)
        else:  # the client left, or the fault is ours
            self.project.released(self.ticket)
