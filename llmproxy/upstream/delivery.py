"""One request on its way to a provider: as many attempts as it takes, and may take, until a response for the client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import random
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IBodyProducer

from llmproxy import errors
from llmproxy.base.request_steps import AttemptTimes
from llmproxy.config.routes import Route
from llmproxy.upstream import balancing
from llmproxy.upstream.circuits import Attempt
from llmproxy.upstream.key_states import KEY_STATUSES, KeyState
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.retrying import cause_of, pause_before, retry_after
from llmproxy.upstream.unread_body import discard
from llmproxy.upstream.upstreams import HeadTimeouts, UploadProgress, Upstream, UpstreamGroup, Upstreams
from llmproxy.wire.client.transport import BytesBody, Response

MAX_TOLD_ATTEMPTS = 20  # in the summary of a request that was sent more often
_OF_KEYS = frozenset(map(str, KEY_STATUSES))

Outcome = Response | errors.UpstreamFailure


class Destination(NamedTuple):
    """Where an attempt goes, and with which of the project's keys."""

    upstream: Upstream
    key: ProviderKey
    state: KeyState


class OutgoingRequest(NamedTuple):
    """What is to be sent.

    @ivar keys: Those that the project has for the API.
    @ivar lines: All fields of it but its framing, as they go to this upstream with this key.
    @ivar body: Read anew for each attempt, if it is a L{BytesBody}.
    @ivar progress: Counts the bytes of the request that were read; silence is measured from the last of them.
    @ivar bounds: Gives how long the response's head may take, as far as is known when it is called.
    @ivar hint: What it has in common with those that are to go to the same place; C{b""} where that does not matter.
    """

    route: Route
    project_id: str
    method: bytes
    keys: Sequence[ProviderKey]
    lines: Callable[[Upstream, ProviderKey], list[bytes]]
    body: IBodyProducer | None
    progress: UploadProgress
    bounds: Callable[[], HeadTimeouts]
    hint: bytes = b""


class Delivery:
    """Sends one request until there is a response for the client.

    An upstream that cannot be reached, or a key that is refused or overloaded, makes it move on to another that has not
    been tried, where there is one. What else may be done again, C{retries} in the settings says.

    @ivar attempts: What came of each: the upstream's number, the key's, and a status or a word.
        C{times}: when that was.
    @ivar reached: Whether something of the request may have reached a provider.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        group: UpstreamGroup,
        clock: IReactorTime,
        request: OutgoingRequest,
        jitter: Callable[[], float] = random,
    ) -> None:
        self.attempts: list[str] = []
        self.times: list[AttemptTimes] = []
        self._begun = 0.0
        self.reached = False
        self._upstreams = upstreams
        self._group = group
        self._clock = clock
        self._request = request
        self._jitter = jitter
        self._tried: set[tuple[bytes, bytes]] = set()
        self._current: Destination | None = None
        self._retries = 0
        self._body_sent = False

    async def send(self) -> Response:
        """Send the request, and again where that may be done; the response's head for the client.

        L{errors.UpstreamFailure} as the last attempt had it, L{errors.CircuitOpen}, L{errors.UpstreamDisabled}.
        """
        self._group.budget.deposit(self._clock.seconds())
        return await self._conclude(await self._attempt(self._first()))

    async def resume(self, outcome: Outcome, upstream: Upstream, key: ProviderKey, begun: float) -> Response:
        """The same, where the first attempt has been made already.

        @param begun: When that was, by the clock.
        """
        self._begun = begun
        self._set_out(self._destination(upstream, key))
        self._note(outcome)
        return await self._conclude(outcome)

    @property
    def summary(self) -> str:
        """What came of each attempt, where there were several; of very many, of the first and the last."""
        attempts = self.attempts
        if len(attempts) > MAX_TOLD_ATTEMPTS:
            attempts = [*attempts[: MAX_TOLD_ATTEMPTS - 1], "...", attempts[-1]]
        return " ".join(attempts) if len(attempts) > 1 else ""

    def end(self) -> None:
        """It is over, and what it was made from is not kept: that knows the request, which knows this."""
        self.release()
        del self._request

    def release(self) -> None:
        """Nothing of it is under way any more."""
        at, self._current = self._current, None
        if at is not None:
            at.upstream.in_flight -= 1
            at.state.in_flight -= 1

    # One attempt after the other

    async def _conclude(self, outcome: Outcome) -> Response:
        while (following := self._following(outcome)) is not None:
            destination, pause = following
            if not isinstance(outcome, errors.UpstreamFailure):
                discard(outcome, self._clock)
            self.release()
            if pause:
                await deferLater(self._clock, pause)
            try:
                outcome = await self._attempt(destination)
            except (errors.CircuitOpen, errors.UpstreamDisabled) as e:  # since then
                raise (outcome if isinstance(outcome, errors.UpstreamFailure) else e) from None
        if isinstance(outcome, errors.UpstreamFailure):
            self.release()
            raise outcome
        return outcome

    async def _attempt(self, destination: Destination) -> Outcome:
        upstream, request = destination.upstream, self._request
        if upstream.state != "enabled":
            raise errors.UpstreamDisabled()
        self._begun = self._clock.seconds()
        entered = upstream.circuits.enter(request.project_id, self._begun)
        self._set_out(destination)
        try:
            response = await self._sent(destination)
        except errors.UpstreamFailure as e:
            entered.failed(e, self._clock.seconds())
            self._note(e)
            return e
        except BaseException as e:
            entered.failed(e, self._clock.seconds())
            self.release()
            self.reached = True
            self._record(destination, "cancelled", 0.0)
            raise
        self._respond(entered, response)
        return response

    async def _sent(self, destination: Destination) -> Response:
        request, upstream = self._request, destination.upstream
        lines, body = request.lines(upstream, destination.key), request.body
        if isinstance(body, BytesBody) and self.attempts:
            body = BytesBody(body.received)  # the one before may not have been read to its end
        target = upstream.target(request.route.path, request.route.query)
        sent = upstream.caller.send(request.method, upstream.origin, target, lines, body, request.project_id)
        return await self._upstreams.head(sent, upstream, request.progress, request.bounds)

    def _respond(self, entered: Attempt, response: Response) -> None:
        entered.responded(response.code, self._clock.seconds())
        self._note(response)

    def _note(self, outcome: Outcome) -> None:
        """Remember what came of the attempt."""
        at = self._current
        assert at is not None
        if isinstance(outcome, errors.UpstreamFailure):
            self.reached = self.reached or not outcome.nothing_sent
            what = cause_of(outcome) or outcome.code.removeprefix("upstream_")
        else:
            self.reached = True
            what = str(outcome.code)
            if outcome.code >= 400 or at.state.status:
                self._note_key(at, outcome)
        self._record(at, what, outcome.queue_time)
        self._tried.add((at.upstream.identity, at.state.identity))

    def _record(self, at: Destination, what: str, queued: float) -> None:
        told = f"{at.upstream.number}/{self._request.keys.index(at.key)}:{what}"
        self.attempts.append(told)
        self.times.append(AttemptTimes(told, self._begun, self._clock.seconds(), queued))

    def _note_key(self, at: Destination, response: Response) -> None:
        cooldown, now = self._group.api.key_cooldown, self._clock.seconds()
        at.state.responded(response.code, retry_after(response.lines), cooldown, now)

    def _set_out(self, destination: Destination) -> None:
        self._current = destination
        destination.upstream.in_flight += 1
        destination.state.in_flight += 1

    # Whether again, and where

    def _following(self, outcome: Outcome) -> tuple[Destination, float] | None:
        """Where it goes next, and after how many seconds; C{None}: that was it."""
        if not isinstance(outcome, errors.UpstreamFailure):
            code = outcome.code
            if code < 400 or not self._replayable:
                return None
            cause, moves = str(code), code in KEY_STATUSES
        else:
            if not outcome.nothing_sent and not self._replayable:
                return None
            cause, moves = cause_of(outcome), outcome.nothing_sent
        fresh = self._fresh(elsewhere=cause not in _OF_KEYS)
        if moves and fresh is not None:
            self._group.moves += 1
            return fresh, 0.0
        return self._retry(outcome, cause, fresh)

    def _retry(self, outcome: Outcome, cause: str, fresh: Destination | None) -> tuple[Destination, float] | None:
        """By the settings of C{retries}."""
        group = self._group
        covered = cause in group.causes or (cause == "reused" and "reset" in group.causes)
        if not covered or len(self.attempts) >= group.api.retries.attempts:
            return None
        destination, pause, now = fresh, 0.0, self._clock.seconds()
        if destination is None:
            destination = self._again(now)
            repetition = self._retries + 1
            says = None if isinstance(outcome, errors.UpstreamFailure) else retry_after(outcome.lines)
            immediately = cause in ("connect", "reused")
            wait = 0.0 if immediately else pause_before(repetition, group.api.retries.backoff, says, self._jitter())
            deadline = self._request.bounds().deadline
            if destination is None or wait is None or (deadline is not None and now + wait >= deadline):
                return None
            pause = wait
        if not group.budget.withdraw(now):
            return None
        self._retries += 1
        group.retries += 1
        return destination, pause

    @property
    def _replayable(self) -> bool:
        body = self._request.body
        return body is None or isinstance(body, BytesBody)

    def _first(self) -> Destination:
        """Where the first attempt goes."""
        group, keys = self._group, self._request.keys
        sole = group.sole
        if sole is not None and len(keys) == 1:
            return self._destination(sole, keys[0])
        now = self._clock.seconds()
        members = self._available(now)
        if not members:
            enabled = [each for each in group.members if each.state == "enabled"]
            if not enabled:
                raise errors.UpstreamDisabled()
            waits = (each.circuits.retry_after(self._request.project_id, now) for each in enabled)
            raise errors.CircuitOpen(retry_after=min(waits))
        places = [self._destination(each, key) for each in members for key in keys]
        ready = [each for each in places if each.state.ready(now)]
        # Where no key will do the provider says so itself: by the one that was to be left alone for the shortest time.
        return self._chosen(ready) if ready else min(places, key=lambda each: each.state.out_until)

    def _fresh(self, *, elsewhere: bool) -> Destination | None:
        """Where it has not been yet, and may go now.

        @param elsewhere: Whether it must be another upstream.
        """
        now, at = self._clock.seconds(), self._current
        places = [
            place
            for upstream in self._available(now)
            if not (elsewhere and at is not None and upstream is at.upstream)
            for place in (self._destination(upstream, key) for key in self._request.keys)
            if place.state.ready(now) and (upstream.identity, place.state.identity) not in self._tried
        ]
        return self._chosen(places) if places else None

    def _again(self, now: float) -> Destination | None:
        """Where it was before, since there is nothing else."""
        at = self._current
        return at if at is not None and at.upstream in self._available(now) else None

    def _available(self, now: float) -> list[Upstream]:
        project = self._request.project_id
        return [each for each in self._group.members if each.state == "enabled" and each.circuits.ready(project, now)]

    def _chosen(self, places: Sequence[Destination]) -> Destination:
        return balancing.choose_place(self._group.api.balance, places, self._request.hint)

    def _destination(self, upstream: Upstream, key: ProviderKey) -> Destination:
        project, api = self._request.project_id, self._group.name
        return Destination(upstream, key, self._upstreams.keys.of(api, upstream.base_url, project, key.value))
