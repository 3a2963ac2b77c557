"""One request on its way through the proxy, and all that was decided and observed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.web.iweb import IBodyProducer

from llmproxy.auth.authenticator import Session
from llmproxy.base import request_steps
from llmproxy.caching import CachedResponse, CacheLookup
from llmproxy.config.routes import Route
from llmproxy.http import body_hints
from llmproxy.http.credentials import carried
from llmproxy.http.request_reader import NO_CONTENT, RequestContent
from llmproxy.http.whole_body import measure_body, read_at_once, read_strictly_at_once
from llmproxy.limits.in_flight import Slots
from llmproxy.limits.limiter import LimitReservation
from llmproxy.limits.plan import LimitPlan
from llmproxy.metering.deferred import Announcement, Collection
from llmproxy.metering.dialects.operation import READ_OPERATION, MediaTokens, ProviderOperation
from llmproxy.metering.estimating import PromptEstimate, estimate_prompt
from llmproxy.metering.meter import NO_USAGE, Dialect, Meter, usage_without_response
from llmproxy.model import Grant, RequestRecord, Usage
from llmproxy.proxy.reading import BodyReading, ResponseReading
from llmproxy.upstream.delivery import Delivery
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.wire.client.transport import Response
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.site import Request

MAX_PATH_BYTES = 2048  # of a path that are recorded
MAX_SMALL_BODY_BYTES = 16 * 1024  # of a request body that is read at once, when somebody wants to know
UNHEARD_ERRORS = frozenset({"upstream_timeout", "upstream_protocol_error"})  # a provider may have worked all the same

RequestSender = tuple[str, bytes]  # address and credential


class Charge:
    """What one request's call to its provider takes: held before it leaves, given back or settled when it is over.

    @ivar reservation: What is held of limits; C{None} where there are none.
    @ivar slot: Its part in what its project has in flight.
    @ivar ledger_id: The id of its line in the ledger; C{""} where it has none.
    """

    __slots__ = ("ledger_id", "reservation", "slot")

    def __init__(self) -> None:
        self.reservation: LimitReservation | None = None
        self.slot: Slots | None = None
        self.ledger_id = ""


class RequestContext:
    """All that is known of a request so far; L{record} is what remains of it.

    What was decided, in this order:
    @ivar route: Where it goes, with the query as it is sent.
    @ivar session: Whose it is; C{grant}: what that allows.
    @ivar dialect: How its response is measured, C{None} where it is not; C{operation}: what it makes the provider do.
    @ivar limits: Those that hold for it; C{None} where there are none.
    @ivar lookup: How it deals with the cache; C{None} where it does not, and C{cache} says why.
    @ivar body: What is sent as its body.
    @ivar usage_injected: Whether its usage was asked for in the client's place.
    @ivar provider_keys: Those that its project has for the API; C{provider_key}: the one that it is sent with.
    @ivar lines: Its field lines without credentials.
    @ivar delivery: How it is sent; C{None} where nothing has been done about it yet, or a flow did.
    @ivar charge: What its call to the provider takes; C{None} where none was made.
    @ivar background: Whether the proxy makes it by itself, so that no client waits for a response.

    What was observed:
    @ivar response_reading: Who decodes its response to measure it, where that is encoded.
    @ivar reading: Who reads its body; C{None} where it is there, and read at once when somebody has to know.
    @ivar authorized_at: When it was let through; C{upstream_started}: when the call to the provider began;
        C{first_byte_at}: when the head of its response came. The clock's seconds, as C{arrived_at}.
    @ivar under_way: The step that it is in, where that is none of the usual.
    @ivar marks: Which of L{PROXY_STEPS<llmproxy.base.request_steps.PROXY_STEPS>} are over, and when each was.
    @ivar request_sent: Whether something of it may have reached the provider.
    @ivar relay: Who carries the response's body; C{None} where there is none.
    @ivar announcement: Reads its response, where that may announce a result that is to be fetched later;
        C{announced_id}: that result's id, once the response is over.
    @ivar result_collection: Reads its response, where that may be such a result, of the id C{result_id}.
        C{result_usage}: what that used; C{result_recorded}: whether it is in the ledger.
    @ivar attribution: As of a L{RequestRecord}; C{""} as long as nobody has looked.
    @ivar client_left: Whether its client left while its provider was still to be heard out.
    @ivar on_stream: Called with it when its response turns out to be a stream that is not over yet.
    """

    route: Route | None = None
    session: Session | None = None
    grant: Grant | None = None
    dialect: Dialect | None = None
    operation: ProviderOperation = READ_OPERATION
    limits: LimitPlan | None = None
    lookup: CacheLookup | None = None
    cache = "disabled"
    body: IBodyProducer | None = None
    usage_injected = False
    provider_key: ProviderKey | None = None
    provider_keys: Sequence[ProviderKey] | None = None
    lines: list[bytes] | None = None
    delivery: Delivery | None = None
    charge: Charge | None = None
    background = False

    reading: BodyReading | None = None
    response_reading: ResponseReading | None = None
    authorized_at: float | None = None
    upstream_started: float | None = None
    first_byte_at: float | None = None
    marks: Sequence[tuple[str, float]] = ()
    under_way = ""
    request_sent = False
    response: Response | None = None
    relay: Relay | CachedResponse | None = None
    meter: Meter | None = None
    usage = NO_USAGE
    announcement: Announcement | None = None
    announced_id = ""
    result_collection: Collection | None = None
    result_id = ""
    result_usage: Usage | None = None
    result_recorded = False
    client_left = False
    on_stream: Callable[[RequestContext], object] | None = None
    status = 499
    attribution = ""
    stream = False
    outcome = ""
    error = ""
    _content: RequestContent | None = None
    _small: bytes | None = None
    _wanted: Callable[[str], bool]

    def __init__(self, request: Request, request_id: str, client: str, started_at: float, arrived_at: float) -> None:
        """
        @param client: The address of the client, which is the peer's unless a trusted proxy says otherwise.
        """
        self.request = request
        self.request_id = request_id
        self.client = client
        self.started_at = started_at
        self.arrived_at = arrived_at

    def background_copy(self, lookup: CacheLookup, now: float) -> RequestContext:
        """The proxy's own request for the same, in place of what the cache has for C{lookup}."""
        own = RequestContext(
            self.request, f"{self.request_id}-refresh", "", self.started_at + now - self.arrived_at, now
        )
        own.background, own.lookup, own.authorized_at = True, lookup, now
        own.route, own.session, own.grant = self.route, self.session, self.grant
        own.dialect, own.operation, own.limits, own.body = self.dialect, self.operation, self.limits, self.body
        own.reading, own._content, own._small = self.reading, self._content, self._small
        if self._small is not None:
            own._wanted = self._wanted
        return own

    def mark(self, step: str, now: float) -> None:
        """A step of its way is over."""
        self.marks, self.under_way = [*self.marks, (step, now)], ""

    def _times(self, finished: float) -> tuple[float, float, str]:
        """What letting it through took, for how long it waited, and its steps."""
        marks, arrived, authorized = self.marks, self.arrived_at, self.authorized_at
        attempts = () if self.delivery is None else self.delivery.times
        through_cache = self.lookup is not None
        if not marks and not attempts:  # by a flow, or refused before all else
            return round((finished if authorized is None else authorized) - arrived, 6), 0.0, ""
        if not attempts and self.first_byte_at is None and (through_cache or self.outcome != "complete"):
            within = self.under_way or request_steps.stopped_in(marks, through_cache=through_cache)
            marks = [*marks, (within, finished)]
        spent, begun = dict[str, float](), arrived
        for step, end in marks:
            spent[step], begun = spent.get(step, 0.0) + end - begun, end
        let_through = spent.get("auth", 0.0) + spent.get("body", 0.0)
        if "auth" not in spent and authorized is not None:  # by a flow
            let_through = authorized - arrived
        waited = spent.get("scheduler", 0.0) + spent.get("turn", 0.0) + sum(each.queued for each in attempts)
        return round(let_through, 6), round(waited, 6), request_steps.encode(arrived, marks, attempts)

    @property
    def sender(self) -> RequestSender:
        """Who takes turns with others: each address, and each credential where several come from one address."""
        return self.client, carried(self.request.lines)

    @property
    def body_bytes(self) -> int:
        """How long its body is, as it says itself, or as far as it has come."""
        upload = self.request.upload
        return upload.length if isinstance(upload.length, int) else upload.count

    @property
    def expects_stream(self) -> bool:
        """Whether it asks for a response that is streamed."""
        route = self.route
        assert route is not None
        return self.content.stream or route.stream or body_hints.expects_stream(route.query, self.request.lines)

    def observe_small_body(
        self, body: bytes, wanted: Callable[[str], bool], *, strictly: bool = False, measured: bool = False
    ) -> None:
        """All of a small body.

        @param strictly: Whether somebody has to know for certain what it says before it is sent.
        @param measured: Whether, too, what its text is made of; else it is measured later where need be.
        """
        if strictly:
            self._content = read_strictly_at_once(body, self.request.lines, wanted, measured=measured)
        if not measured:
            self._small, self._wanted = body, wanted

    def observe_usual_body(
        self, body: bytes, content: RequestContent, wanted: Callable[[str], bool], *, measured: bool
    ) -> None:
        """All of a body that has been read, and measured or not."""
        self._content = content
        if not measured:
            self._small, self._wanted = body, wanted

    @property
    def content(self) -> RequestContent:
        """What its body says, as far as it has come."""
        if self._content is not None:
            return self._content
        if self._small is not None:
            self._content = read_at_once(self._small, self.request.lines, self._wanted)
            return self._content
        if self.reading is None:
            return NO_CONTENT
        upload = self.request.upload
        ended = upload.done and self.reading.count == upload.count
        content = self.reading.content(ended=ended)
        if ended and content.complete:
            self._content = content
        return content

    def prompt(self) -> PromptEstimate:
        """How many tokens its input probably is."""
        model = (self.route.model if self.route is not None else "") or self.content.model
        body = self._small if self.reading is None else self.reading.unmeasured_body
        return prompt_estimate(self.content, body, self.request.lines, self.request.upload.count, self.dialect, model)

    def _measured_usage(self, model: str) -> Usage:
        """What its response reports, and where that reports nothing or there was none, what is likely."""
        if self.result_usage is not None:
            if self.meter is not None:
                self.meter.discard()
            return self.result_usage
        if self.meter is not None:
            usage = self.meter.measured(
                asked=model,
                given=self.prompt,
                complete=self.outcome == "complete",
                at=self.started_at,
                members=billed_members(self.dialect, self),
            )
            if usage.basis == "exact" or self.meter.error or self.announcement is None:
                return usage
            self.announced_id = self.announcement.result_id()
            return Usage(basis="pending") if self.announced_id else usage
        if self.dialect is None or self.upstream_started is None or self.response is not None:
            return NO_USAGE
        if self.outcome != "cancelled" and self.error not in UNHEARD_ERRORS:
            return NO_USAGE
        return usage_without_response(self.dialect, asked=model, given=self.prompt, at=self.started_at)

    def record(self, finished: float) -> RequestRecord:
        """What remains of it once it is over."""
        request, route, grant, response = self.request, self.route, self.grant, self.response
        path = request.uri.partition(b"?")[0]
        named = body_hints.model_in_path(path) if route is None else route.model
        first, started, lines = self.first_byte_at, self.upstream_started, request.lines
        auth_time, queue_time, steps = self._times(finished)
        model = named or self.content.model
        self.usage = usage = self._measured_usage(model)
        if self.meter is not None and self.meter.error:  # whoever left after that, it was no response
            self.outcome, self.error = "failed", self.meter.error
        return RequestRecord(
            request_id=self.request_id,
            started_at=self.started_at,
            duration=round(finished - self.arrived_at, 6),
            method=request.method.decode("ascii", "replace"),
            path=path[:MAX_PATH_BYTES].decode("ascii", "backslashreplace"),
            status=self.status,
            outcome=self.outcome,
            api=route.api_name if route else "",
            endpoint=route.endpoint if route else "",
            project_id=grant.project_id if grant else "",
            token_id=grant.token_id if grant else "",
            model=model,
            stream=self.stream,
            bytes_in=request.upload.count,
            bytes_out=self.relay.count if self.relay else 0,
            first_byte=None if first is None else round(first - self.arrived_at, 6),
            upstream_time=None if first is None or started is None else round(first - started, 6),
            auth_time=auth_time,
            queue_time=queue_time,
            upstream_status=response.code if response else None,
            cache=self.cache if self.lookup is None else self.lookup.outcome.status,
            error=self.error,
            client=self.client,
            user_agent=header_text(lines.value(b"user-agent")),
            sdk_retry=header_number(lines.value(b"x-stainless-retry-count")),
            attempts=int(started is not None) if self.delivery is None else len(self.delivery.attempts),
            attempted="" if self.delivery is None else self.delivery.summary,
            answered=usage.model,
            basis=usage.basis,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=usage.cost_usd,
            attribution=self.attribution,
            steps=steps,
        )


def prompt_estimate(
    content: RequestContent, body: bytes | None, lines: list[bytes], size: int, dialect: Dialect | None, model: str
) -> PromptEstimate:
    """How many tokens a request's input probably is.

    @param content: What its body says; C{body}: the body, where it is still to be measured, of C{size} bytes.
    """
    if body is not None:
        content = measure_body(body, lines)
    provider, media = ("", MediaTokens()) if dialect is None else (dialect.provider, dialect.operation.media)
    return estimate_prompt(content, size, provider, model, media)


class ReadableRequest(Protocol):
    """Has what a request's body says, which may be read only then."""

    @property
    def content(self) -> RequestContent: ...


def billed_members(dialect: Dialect | None, request: ReadableRequest) -> Mapping[str, Any]:
    """What a request says itself, where that is what is billed."""
    operation = None if dialect is None else dialect.operation
    return {} if operation is None or operation.takes_text or operation.free else request.content.members


def header_text(value: bytes | None) -> str:
    """A field's value, as far as it is recorded."""
    return (value or b"").decode("ascii", "backslashreplace")[:256]


def header_number(value: bytes | None) -> int:
    """A field's value of at most three digits; C{0} for any other."""
    return int(value) if value is not None and value.isdigit() and len(value) < 4 else 0
