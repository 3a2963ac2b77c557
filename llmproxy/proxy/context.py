"""One request on its journey, and what has become known of it on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmproxy.caching import Asking, Given
from llmproxy.config.routes import Route
from llmproxy.http import sniff
from llmproxy.http.request_reader import NO_CONTENT, RequestContent, measured, read_at_once, read_strictly_at_once
from llmproxy.limits.in_flight import Share
from llmproxy.limits.limiter import Reservation
from llmproxy.metering.deferred import Announcement, Collection
from llmproxy.metering.dialects.operation import MediaTokens
from llmproxy.metering.estimating import PromptEstimate, prompt
from llmproxy.metering.meter import UNUSED, Dialect, Meter, unanswered
from llmproxy.model import Grant, RequestRecord, Usage
from llmproxy.proxy.reading import BodyReading
from llmproxy.wire.client.transport import Answer
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.site import Request

MAX_PATH_BYTES = 2048  # of a path that are recorded
MAX_SMALL_BODY_BYTES = 16 * 1024  # of a request body that is read at once, when somebody wants to know
UNHEARD_ERRORS = frozenset(
    ("upstream_timeout", "upstream_protocol_error")
)  # ends after which a provider may have worked


class RequestContext:
    """What is known of it so far; C{record} is what remains.

    @ivar asked: When the provider was asked; C{authorized} and C{first_byte} likewise. Clock's time.
    @ivar dialect: How its answers are measured; C{None} where they are not.
    @ivar injected: Whether its usage was asked for in the client's place.
    @ivar reading: Who reads its body; C{None} where it is small, and nobody has to know yet.
    @ivar sent: Whether something of it may have reached the provider.
    @ivar announcement: Reads its answer, where that may announce a result; C{collection}, where it may be one, of the
        id C{result_id}. C{result}: what that used; C{collected}: whether its line has been entered with it.
    @ivar deferred_id: The result that its answer announced, once it is over.
    @ivar left: Whether its client left while its provider was still to be heard out.
    """

    route: Route | None = None
    grant: Grant | None = None
    answer: Answer | None = None
    relay: Relay | Given | None = None
    slot: Share | None = None
    asking: Asking | None = None
    cache = "disabled"
    dialect: Dialect | None = None
    meter: Meter | None = None
    reservation: Reservation | None = None
    ledger_id = ""
    usage_injected = False
    usage = UNUSED
    reading: BodyReading | None = None
    request_sent = False
    announcement: Announcement | None = None
    result_collection: Collection | None = None
    result_usage: Usage | None = None
    result_id = ""
    announced_id = ""
    result_recorded = False
    client_left = False
    error = ""
    outcome = ""
    status = 499
    stream = False
    authorized_at: float | None = None
    upstream_started: float | None = None
    first_byte_at: float | None = None
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

    def background_copy(self, now: float) -> RequestContext:
        """The proxy's own request for the same."""
        own = RequestContext(
            self.request, f"{self.request_id}-refresh", "", self.started_at + now - self.arrived_at, now
        )
        own.route, own.grant, own.authorized_at, own.dialect = self.route, self.grant, now, self.dialect
        own.reading, own._content, own._small = self.reading, self._content, self._small
        if self._small is not None:
            own._wanted = self._wanted
        return own

    def observe_small_body(self, body: bytes, wanted: Callable[[str], bool], *, strictly: bool = False) -> None:
        """All of a small body.

        @param strictly: Whether somebody has to know for certain what it says before it is sent.
        """
        if strictly:
            self._content = read_strictly_at_once(body, self.request.lines, wanted)
        else:
            self._small, self._wanted = body, wanted

    def settle(self, record: RequestRecord) -> None:
        """What was reserved is over: given back where nothing was sent, else charged with what the record says."""
        held = self.reservation
        if held is None:
            return
        if not self.request_sent:
            held.give_back()
        elif self.announced_id:
            held.keep(recorded=True)  # until its result is fetched
        elif self.result_usage is not None:
            held.settle(0, 0.0)  # which was reserved when it was asked for
        elif self.dialect is None and record.status < 400:
            held.keep()  # nobody has measured it
        else:
            unused = record.basis == "none"
            held.settle(record.input_tokens + record.output_tokens, 0.0 if unused else record.cost_usd)

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
        provider = "" if self.dialect is None else self.dialect.provider
        model = (self.route.model if self.route is not None else "") or self.content.model
        content = self.content if self._small is None else measured(self._small, self.request.lines)
        media = MediaTokens() if self.dialect is None else self.dialect.operation.media
        return prompt(content, self.request.upload.count, provider, model, media)

    def _members(self) -> Mapping[str, Any]:
        """What the request says itself, where that is what is billed."""
        operation = None if self.dialect is None else self.dialect.operation
        if operation is None or operation.takes_text or operation.free:
            return {}
        return self.content.members

    def _used(self, model: str) -> Usage:
        """What its answer tells, and where it told nothing or there was none, what is likely."""
        if self.result_usage is not None:
            return self.result_usage
        if self.meter is not None:
            usage = self.meter.measured(
                asked=model,
                given=self.prompt,
                complete=self.outcome == "complete",
                at=self.started_at,
                members=self._members(),
            )
            if usage.basis == "exact" or self.meter.error or self.announcement is None:
                return usage
            self.announced_id = self.announcement.result_id()
            return Usage(basis="pending") if self.announced_id else usage
        if self.dialect is None or self.upstream_started is None or self.answer is not None:
            return UNUSED
        if self.outcome != "cancelled" and self.error not in UNHEARD_ERRORS:
            return UNUSED
        return unanswered(self.dialect, asked=model, given=self.prompt, at=self.started_at)

    def record(self, finished: float) -> RequestRecord:
        """What remains of it once it is over."""
        request, route, grant, answer = self.request, self.route, self.grant, self.answer
        path = request.uri.partition(b"?")[0]
        named = sniff.model_in_path(path) if route is None else route.model
        first, asked, lines = self.first_byte_at, self.upstream_started, request.lines
        model = named or self.content.model
        self.usage = usage = self._used(model)
        if self.meter is not None and self.meter.error:  # whoever left after that, it was no answer
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
            upstream_time=None if first is None or asked is None else round(first - asked, 6),
            upstream_status=answer.code if answer else None,
            cache=self.cache if self.asking is None else self.asking.status,
            error=self.error,
            client=self.client,
            user_agent=_text(lines.value(b"user-agent")),
            sdk_retry=_number(lines.value(b"x-stainless-retry-count")),
            answered=usage.model,
            basis=usage.basis,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=usage.cost_usd,
        )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "backslashreplace")[:256]


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 4 else 0
