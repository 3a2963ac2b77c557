"""One request on its journey, and what has become known of it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from llmproxy.caching import Asking, Given
from llmproxy.config.routes import Route
from llmproxy.http import sniff
from llmproxy.limits.in_flight import Share
from llmproxy.limits.limiter import Reservation
from llmproxy.metering.meter import UNUSED, Dialect, Meter, unanswered
from llmproxy.model import Grant, RequestRecord, Usage
from llmproxy.wire.client.transport import Answer
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.site import Request

SNIFFED = 64 * 1024  # bytes of a request body that are looked at for the model's name
UNHEARD = frozenset(("upstream_timeout", "upstream_protocol_error"))  # ends after which a provider may have worked


class Exchange:
    """What is known of it so far; C{record} is what remains.

    @ivar asked: When the provider was asked; C{authorized} and C{first_byte} likewise. Clock's time.
    @ivar dialect: How its answers are measured; C{None} where they are not.
    @ivar injected: Whether its usage was asked for in the client's place.
    @ivar whole: Its body, as long as limits may want to see it.
    @ivar sent: Whether something of it may have reached the provider.
    @ivar left: Whether its client left while its provider was still to be heard out.
    """

    route: Route | None = None
    grant: Grant | None = None
    answer: Answer | None = None
    relay: Relay | Given | None = None
    share: Share | None = None
    asking: Asking | None = None
    cache = "disabled"
    dialect: Dialect | None = None
    meter: Meter | None = None
    reservation: Reservation | None = None
    ledger_id = ""
    injected = False
    usage = UNUSED
    whole: bytes | None = None
    sent = False
    left = False
    error = ""
    outcome = ""
    status = 499
    stream = False
    model = ""
    authorized: float | None = None
    asked: float | None = None
    first_byte: float | None = None
    _facts: sniff.Facts | None = None

    def __init__(self, request: Request, request_id: str, client: str, started_at: float, arrived: float) -> None:
        """
        @param client: The address of the client, which is the peer's unless a trusted proxy says otherwise.
        """
        self.request = request
        self.request_id = request_id
        self.client = client
        self.started_at = started_at
        self.arrived = arrived
        self.prefix: bytes | bytearray = b""

    def aside(self, now: float) -> Exchange:
        """The proxy's own request for the same."""
        own = Exchange(self.request, f"{self.request_id}-refresh", "", self.started_at + now - self.arrived, now)
        own.route, own.grant, own.prefix, own.authorized = self.route, self.grant, self.prefix, now
        own.dialect, own.whole = self.dialect, self.whole
        return own

    def saw(self, data: bytes) -> None:
        """A tap on the upload: keeps its beginning, where the model's name usually stands."""
        if not self.prefix:
            self.prefix = bytearray()
        if len(self.prefix) < SNIFFED:
            self.prefix += data[: SNIFFED - len(self.prefix)]

    def saw_all(self, body: bytes) -> None:
        """The same for an upload that is all there."""
        self.prefix = body[:SNIFFED]

    def settle(self, record: RequestRecord) -> None:
        """What was reserved is over: given back where nothing was sent, else charged with what the record says."""
        held = self.reservation
        if held is None:
            return
        if not self.sent:
            held.give_back()
        elif self.dialect is None and record.status < 400:
            held.keep()  # nobody has measured it
        else:
            held.settle(record.input_tokens + record.output_tokens, record.cost_usd)

    @property
    def facts(self) -> sniff.Facts:
        """What is known so far of what is asked for."""
        if self._facts is not None:
            return self._facts
        facts = sniff.facts(bytes(self.prefix))
        if self.request.upload.done:
            self._facts = facts
        return facts

    def _members(self) -> Mapping[str, Any]:
        """What the request says itself, where that is what is billed."""
        operation = None if self.dialect is None else self.dialect.operation
        if operation is None or operation.takes_text or operation.free or len(self.prefix) >= SNIFFED:
            return {}
        try:
            members = from_json(bytes(self.prefix))
        except ValueError:
            return {}
        return members if isinstance(members, dict) else {}

    def _used(self, model: str) -> Usage:
        """What its answer tells, and where it told nothing or there was none, what is likely."""
        if self.meter is not None:
            return self.meter.measured(
                asked=model,
                given=self.request.upload.count,
                complete=self.outcome == "complete",
                at=self.started_at,
                members=self._members(),
            )
        if self.dialect is None or self.asked is None or self.answer is not None:
            return UNUSED
        if self.outcome != "cancelled" and self.error not in UNHEARD:
            return UNUSED
        return unanswered(self.dialect, asked=model, given=self.request.upload.count, at=self.started_at)

    def record(self, finished: float) -> RequestRecord:
        """What remains of it once it is over."""
        request, route, grant, answer = self.request, self.route, self.grant, self.answer
        path = request.uri.partition(b"?")[0]
        named = sniff.model_in_path(path) if route is None else route.model
        first, asked, lines = self.first_byte, self.asked, request.lines
        model = self.model or named or self.facts.model
        self.usage = usage = self._used(model)
        if self.meter is not None and self.meter.error:  # whoever left after that, it was no answer
            self.outcome, self.error = "failed", self.meter.error
        return RequestRecord(
            request_id=self.request_id,
            started_at=self.started_at,
            duration=round(finished - self.arrived, 6),
            method=request.method.decode("ascii", "replace"),
            path=path.decode("ascii", "backslashreplace"),
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
            first_byte=None if first is None else round(first - self.arrived, 6),
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
