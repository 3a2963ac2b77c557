"""The circuit breakers of each upstream: whether to try at all."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from llmproxy import errors
from llmproxy.config.upstream_settings import CircuitBreaker
from llmproxy.upstream.breaker import Breaker, ErrorRatio, State

# By which a provider says that it is not working; 529 says "later".
FAILURE_STATUSES = frozenset((500, 502, 503, 504))


class Circuits:
    """The breakers of one upstream.

    What no tenant can bring about (no connection to the provider) counts for everybody; responses that say failure and
    responses that do not come count only for the project that asked, so that one tenant cannot shut out another.
    """

    def __init__(self, settings: CircuitBreaker, *, size: int = 10_000) -> None:
        self.settings = settings
        self._size = size
        self.all = self._breaker()
        self._projects: OrderedDict[str, Breaker] = OrderedDict()

    def breaker_of(self, project_id: str) -> Breaker:
        breaker = self._projects.get(project_id)
        if breaker is not None:
            self._projects.move_to_end(project_id)
        else:
            breaker = self._projects[project_id] = self._breaker()
            while len(self._projects) > self._size:
                self._projects.popitem(last=False)[1].retire()
        return breaker

    def _breaker(self) -> Breaker:
        own = self.settings
        ratio = ErrorRatio(own.error_ratio, own.window, own.min_requests) if own.error_ratio else None
        return Breaker(own.failures, own.cooldown, ratio)

    def ready(self, project_id: str, now: float) -> bool:
        """Whether L{enter} would let a request through."""
        mine = self._projects.get(project_id)
        return self.all.ready(now) and (mine is None or mine.ready(now))

    def retry_after(self, project_id: str, now: float) -> float:
        """Seconds until it is worth asking again."""
        mine = self._projects.get(project_id)
        return max(self.all.retry_after(now), 0.0 if mine is None else mine.retry_after(now))

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

    def enter_closed(self, project_id: str) -> Attempt | None:
        """As L{enter} while both breakers are closed; C{None} while one is not, and then nothing was done."""
        shared, mine = self.all, self.breaker_of(project_id)
        if shared.state != "closed" or mine.state != "closed":
            return None
        return Attempt(shared, shared.ticket, mine, mine.ticket)

    @property
    def projects_out(self) -> int:
        """For how many projects alone not every request is let through, since what they got from it failed."""
        return sum(each.state != "closed" for each in self._projects.values())

    @property
    def state(self) -> State:
        """C{closed}, C{open} or C{half-open}: of the breaker that counts for everybody."""
        return self.all.state


@dataclass(slots=True)
class Attempt:
    """A request under way; ends with exactly one verdict. As long as both tickets are those of their breakers, which
    were closed when it began, others may begin as the same.
    """

    shared: Breaker
    shared_ticket: int
    project: Breaker
    ticket: int

    def responded(self, status: int, now: float) -> None:
        shared, project = self.shared, self.project
        if not shared.is_steady:
            shared.succeeded(now, self.shared_ticket)
        if status in FAILURE_STATUSES:
            project.failed(now, self.ticket)
        elif not project.is_steady:
            project.succeeded(now, self.ticket)

    def failed(self, error: BaseException, now: float) -> None:
        if isinstance(error, errors.UpstreamUnreachable | errors.UpstreamTimeout) and error.nothing_sent:
            self.shared.failed(now, self.shared_ticket)
            self.project.released(self.ticket)
            return
        self.shared.released(self.shared_ticket)
        if isinstance(error, errors.UpstreamFailure) and not isinstance(error, errors.UpstreamBusy):
            self.project.failed(now, self.ticket)
        else:  # the client left, or the fault is ours
            self.project.released(self.ticket)
