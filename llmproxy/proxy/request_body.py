"""What is sent as a request's body: as it arrives, or read whole where something must be known of it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxy import errors
from llmproxy.base.memo import BoundedMemo
from llmproxy.caching import CacheRequest
from llmproxy.config.api_settings import Api
from llmproxy.config.routes import Route
from llmproxy.http import fields
from llmproxy.http.content_measure import CLOSELY, ROUGHLY
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.plain_members import PlainMembers
from llmproxy.http.request_reader import RequestContent, RequestReader
from llmproxy.http.whole_body import longest_whole, read_usual
from llmproxy.limits.plan import LimitPlan
from llmproxy.metering import injection
from llmproxy.metering.cost_ceiling import UNKNOWN_MEMBERS
from llmproxy.metering.dialects.operation import ProviderOperation
from llmproxy.metering.dialects.registry import REQUEST_MEMBERS
from llmproxy.model import Grant
from llmproxy.proxy.context import MAX_SMALL_BODY_BYTES, RequestContext
from llmproxy.proxy.policy import Policy
from llmproxy.proxy.reading import BodyReading
from llmproxy.proxy.reading_turns import ReadingTurns
from llmproxy.wire.client.transport import BytesBody
from llmproxy.wire.server.request_body import RequestBody

MAX_BUFFERED_BODY_BYTES = 4 * 1024 * 1024  # of a body that is read whole for the cache, to be changed or sent again
HINT_BYTES = 1024  # of a body by which requests are told apart, where they name no session
MAX_REMEMBERED_NAMES = 256  # of members, by what policies name
MAX_REMEMBERED_POLICIES = 1024  # that name members
MAX_REMEMBERED_NAME_CHARACTERS = 64


class WantedMembers(dict[str, bool]):
    """Whether somebody wants to know a member of a request, by its name: spelled in any case, since servers may not
    mind that either. A memo of the names that were asked for, within bounds.
    """

    def __init__(self, params: Iterable[str]) -> None:
        super().__init__()
        self._names = (*params, *UNKNOWN_MEMBERS, *REQUEST_MEMBERS)
        self._folded = frozenset(name.casefold() for name in self._names)

    @cached_property
    def plain(self) -> PlainMembers:
        """Reads these."""
        return PlainMembers(self._names)

    def __missing__(self, name: str) -> bool:
        wanted = name.casefold() in self._folded
        if len(self) < MAX_REMEMBERED_NAMES and len(name) <= MAX_REMEMBERED_NAME_CHARACTERS:
            self[name] = wanted
        return wanted


class BodyNeeds(NamedTuple):
    """What must be known of a body before it is sent.

    @ivar policed: Whether a policy checks it; C{measured}: whether it counts how long its text is.
    @ivar injects: Whether its usage may have to be asked for in its client's place.
    @ivar wanted: Which members somebody wants to know.
    """

    policed: bool
    measured: bool
    injects: bool
    wanted: WantedMembers


class RequestBodies:
    """Decides for each request whether its body is read before it is sent, and checks it then.

    A policy and the injection of usage must see the whole body; limits and the cache would like to see it too, but can
    do without one that is too long to be read.
    """

    def __init__(self, policy: Policy, max_bytes: int, clock: IReactorTime, turns: ReadingTurns) -> None:
        """
        @param max_bytes: A longer body is refused.
        @param turns: When bodies are read.
        """
        self._policy = policy
        self._max_bytes = max_bytes
        self._clock = clock
        self._turns = turns
        self._usual = WantedMembers(())
        self._wanted: BoundedMemo[frozenset[str], WantedMembers] = BoundedMemo(MAX_REMEMBERED_POLICIES)

    async def prepare(self, context: RequestContext, cacheable: CacheRequest | None) -> None:
        """Set the context's body: the upload itself, what was read of it, or C{None} where there is none.

        @param cacheable: The request as the cache sees it; C{None} where it has nothing to do with that.
        """
        upload, route, grant, limits = context.request.upload, context.route, context.grant, context.limits
        assert route is not None and grant is not None
        context.mark("auth", self._clock.seconds())
        if upload.length is not UNKNOWN_LENGTH and upload.length > self._max_bytes:
            raise errors.RequestTooLarge(
                f"The request body is larger than the {self._max_bytes} bytes that this proxy accepts."
            )
        policed, measured, injects, wanted = self.needs(grant, route, context.operation, limits)
        self._observe(context, upload, wanted.__getitem__, strictly=measured or policed, measured=measured)
        received = upload.received
        if received is None and (measured or policed):
            received = await upload.read_all(self._max_bytes)
        elif received is None and (injects or _wanted_by_cache(upload, cacheable)):
            received = await upload.read_all(min(self._max_bytes, MAX_BUFFERED_BODY_BYTES))
        if context.reading is not None and (measured or policed or injects):
            await context.reading.whole()
        if policed:
            self._policy.check_body(grant, route, context.operation, context.content)
        if injects and received is not None:
            changed = injection.request_usage(received, context.content)
            received, context.usage_injected = changed or received, changed is not None
            if changed is not None:
                upload.hold(len(changed))  # beside what came
        if received is None:
            context.body = upload
        elif received or fields.has_body(context.request.lines):
            context.body = BytesBody(received)
        context.mark("body", self._clock.seconds())

    def observe_read(self, context: RequestContext, body: bytes, content: RequestContent) -> None:
        """As L{prepare}, of a body that a direct request has had read and checked."""
        route, grant = context.route, context.grant
        assert route is not None and grant is not None
        _, measured, _, wanted = self.needs(grant, route, context.operation, context.limits)
        context.observe_usual_body(body, content, wanted.__getitem__, measured=measured)

    def needs(self, grant: Grant, route: Route, operation: ProviderOperation, limits: LimitPlan | None) -> BodyNeeds:
        """What must be known of bodies before they are sent."""
        policed = self._policy.needs_body(grant, route, operation)
        measured = limits is not None and limits.counts_tokens and not operation.free
        injects = route.api.metering.include_usage == "inject" and route.path.endswith(b"/chat/completions")
        return BodyNeeds(policed, measured, injects, self._wanted_members(grant, route))

    def _wanted_members(self, grant: Grant, route: Route) -> WantedMembers:
        """Which members somebody wants to know: those that all requests are asked for, and those that policies name."""
        params = self._policy.params(grant, route)
        if not params:
            return self._usual
        found = self._wanted.get(params)
        if found is None:
            found = self._wanted[params] = WantedMembers(params)
        return found

    async def hold(self, context: RequestContext) -> None:
        """Read all of a body that is still on its way, where it is not too long, so that it can be sent again."""
        upload = context.request.upload
        if upload.started or not isinstance(upload.length, int) or upload.length > MAX_BUFFERED_BODY_BYTES:
            return
        if upload.received is not None or upload.reserve(0):
            context.body = BytesBody(await upload.read_all(self._max_bytes))

    def _observe(
        self,
        context: RequestContext,
        upload: RequestBody,
        wanted: Callable[[str], bool],
        *,
        strictly: bool,
        measured: bool,
    ) -> None:
        """Have the body read for what is to be known of it: at once, or while it arrives."""
        received = upload.received
        if received is not None and len(received) <= MAX_SMALL_BODY_BYTES:
            context.observe_small_body(received, wanted, strictly=strictly, measured=measured)
        elif not upload.done or received:
            lines = context.request.lines
            effort = CLOSELY if measured else ROUGHLY
            make_reader = partial(RequestReader, lines, wanted, self._clock.seconds, effort=effort)
            context.reading = reading = BodyReading(
                make_reader(),
                self._turns,
                context.sender,
                upload.go_on,
                read_usual=partial(read_usual, lines=lines, wanted=wanted, strictly=strictly, measured=measured),
                may_hold=upload.reserve,
                hold=upload.count_beside,
                peek=make_reader,
                longest_whole=longest_whole(checked=strictly or measured),
                measured=measured,
            )
            if received is not None:
                reading.feed(received)
            else:
                upload.taps.append(reading.feed)
                upload.wait_for(lambda: reading.behind)


def has_cacheable_body(context: RequestContext) -> bool:
    """Whether the cache can tell by the body whether it has the response; the client's own, and known as a whole."""
    body = context.body
    if body is context.request.upload or context.usage_injected:
        return False
    return body is None or body.length <= MAX_BUFFERED_BODY_BYTES


def _wanted_by_cache(upload: RequestBody, cacheable: CacheRequest | None) -> bool:
    """Whether the cache would like to have the body before it is sent on."""
    fits = upload.length is not UNKNOWN_LENGTH and int(upload.length) <= MAX_BUFFERED_BODY_BYTES
    return fits and cacheable is not None and cacheable.needs_body


def affinity_hint(api: Api, project_id: str, lines: FieldLines, body: bytes) -> bytes:
    """What the request has in common with others of its session: the session's name, or how its body begins; C{b""}
    where neither is known.

    @param body: As far as it has been read.
    """
    project = project_id.encode()
    for name in api.affinity.headers:
        if value := lines.value(name.encode("ascii")):
            return b"\n".join((project, name.encode("ascii"), value))
    return b"\n".join((project, body[:HINT_BYTES])) if body else b""
