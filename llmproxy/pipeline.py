"""The journey of one request, from top to bottom."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from llmproxy import errors
from llmproxy.config.model import Server
from llmproxy.config.routes import Route, Routes
from llmproxy.http import cors, credentials, fields, sniff
from llmproxy.http.masking import Mask, masked_lines
from llmproxy.interfaces import ITokenValidator
from llmproxy.metering import injection
from llmproxy.metering.estimating import tokens
from llmproxy.metering.meter import UNUSED, Dialect, Meter, unanswered
from llmproxy.model import Grant, RequestRecord, Usage
from llmproxy.policy import Policy
from llmproxy.upstreams import ProviderKeys, Upstreams
from llmproxy.usage import Meters
from llmproxy.wire.raw import Answer, BytesBody
from llmproxy.wire.relay import Relay, Rewriting, Tap
from llmproxy.wire.server import Request

SNIFFED = 64 * 1024  # bytes of a request body that are looked at for the model's name
READ_WHOLE = 4 * 1024 * 1024  # bytes of a request body that are read where a policy must see all of it
UNHEARD = frozenset(("upstream_timeout", "upstream_protocol_error"))  # ends after which a provider may have worked
STALLED = 600.0  # seconds after which a client that takes nothing is cut


class Remembering(Protocol):
    """A validator that can answer at once from what it remembers; C{None} where it must be asked."""

    def key(self, token: str) -> bytes:
        """What the other two know the token by."""

    def known(self, key: bytes) -> Grant | None: ...

    def known_use(self, key: bytes) -> Grant | None: ...


class Booking(Protocol):
    """The ledger: is told before a request leaves for its provider, and answers with the id of its line."""

    def reserve(
        self,
        at: float,
        request_id: str,
        project_id: str,
        token_id: str,
        api: str,
        endpoint: str,
        model: str,
        bytes_in: int,
        given: int,
    ) -> str: ...


class Exchange:
    """One request on its journey, and what has become known of it on the way."""

    route: Route | None = None
    grant: Grant | None = None
    answer: Answer | None = None
    relay: Relay | None = None
    dialect: Dialect | None = None
    meter: Meter | None = None
    ledger_id = ""
    injected = False
    usage = UNUSED
    error = ""
    outcome = ""
    status = 499
    stream = False
    model = ""
    authorized: float | None = None
    asked: float | None = None
    first_byte: float | None = None

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

    def saw(self, data: bytes) -> None:
        """A tap on the upload: keeps its beginning, where the model's name usually stands."""
        if not self.prefix:
            self.prefix = bytearray()
        if len(self.prefix) < SNIFFED:
            self.prefix += data[: SNIFFED - len(self.prefix)]

    def saw_all(self, body: bytes) -> None:
        """The same for an upload that is all there."""
        self.prefix = body[:SNIFFED]

    @property
    def facts(self) -> sniff.Facts:
        """What is known so far of what is asked for."""
        return sniff.facts(bytes(self.prefix))

    def _used(self, model: str) -> Usage:
        """What its answer tells, and where it told nothing or there was none, what is likely."""
        if self.meter is not None:
            return self.meter.measured(
                asked=model,
                given=self.request.upload.count,
                complete=self.outcome == "complete",
                at=self.started_at,
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


class Journey:
    """Takes a request to its provider and the answer back."""

    def __init__(
        self,
        *,
        routes: Routes,
        validator: ITokenValidator,
        policy: Policy,
        keys: ProviderKeys,
        upstreams: Upstreams,
        server: Server,
        clock: IReactorTime,
        remembering: Remembering | None = None,
        meters: Meters,
        ledger: Booking | None = None,
    ) -> None:
        """
        @param remembering: The validator, where it remembers; then the usual request waits for nothing.
        @param ledger: Told of every request that is about to leave for its provider.
        """
        self._routes = routes
        self._validator = validator
        self._policy = policy
        self._keys = keys
        self._upstreams = upstreams
        self._server = server
        self._clock = clock
        self._remembering = remembering
        self._meters = meters
        self._ledger = ledger

    async def handle(self, exchange: Exchange) -> None:
        """Take the whole way. Whatever refuses the request raises; a body under way ends as its relay says."""
        request, lines = exchange.request, exchange.request.lines
        if request.method == b"OPTIONS" and (preflight := self._preflight(exchange)) is not None:
            request.begin(204, b"No Content", preflight, 0)
            request.finish()
            exchange.status, exchange.outcome = 204, "complete"
            return
        exchange.route = route = self._routes.match(request.method, request.uri)
        taken = credentials.take(lines, route.query, route.api.query_key)
        if taken.token is None:
            raise errors.MissingToken
        remembering = self._remembering
        token_key = b"" if remembering is None else remembering.key(taken.token)
        known = None if remembering is None else remembering.known(token_key)
        exchange.grant = grant = known or await self._validate(taken.token)
        if not self._policy.knows_active(grant):
            await self._policy.guard(grant, exchange.client, exchange.request_id)
        self._policy.check(grant, route, lines, exchange.client)
        exchange.dialect = self._meters.dialect(request.method, route.api_name, route.path)
        body = await self._body(exchange, grant, route)
        exchange.authorized = self._clock.seconds()
        key = self._keys.known(grant.project_id, route.api_name)
        if key is None:
            key = await self._keys.look_up(grant.project_id, route.api_name, route.auth)
        if remembering is None or remembering.known_use(token_key) is None:
            await self._count(taken.token)
        if self._ledger is not None:
            exchange.ledger_id = self._reserve(self._ledger, exchange, grant, route)
        exchange.asked = self._clock.seconds()
        exchange.answer = answer = await self._upstreams.send(
            route.with_query(taken.query),
            grant.project_id,
            request.method,
            self._outgoing(exchange, route, taken.lines, key.line),
            body,
            request.upload,
            partial(self._deadline, exchange, route),
        )
        exchange.first_byte = self._clock.seconds()
        await self._relay(exchange, route, answer, key.value)

    # The steps

    def _preflight(self, exchange: Exchange) -> list[bytes] | None:
        """A browser's question before the real request; it carries no token (Fetch, section 3.2.2)."""
        lines = exchange.request.lines
        if fields.value(lines, b"access-control-request-method") is None:
            return None
        exchange.route = route = self._routes.preflight(exchange.request.uri)
        if not route.api.allowed_origins:
            return None
        return cors.preflight(lines, route.api.allowed_origins, route.api.allowed_methods)

    async def _validate(self, token: str) -> Grant:
        try:
            grant = await self._validator.validate_token(token)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.StoreUnavailable from e
        return grant if isinstance(grant, Grant) else Grant(project_id=grant)

    async def _count(self, token: str) -> None:
        """One use, now that nothing but the provider stands in the way. Never above C{max_requests}."""
        try:
            await self._validator.validate_token_with_tracking(token)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.StoreUnavailable from e

    async def _body(self, exchange: Exchange, grant: Grant, route: Route) -> IBodyProducer | None:
        """The body to be sent: as it arrives, or read whole where a policy must see it first."""
        upload = exchange.request.upload
        if upload.length is not UNKNOWN_LENGTH and upload.length > self._server.max_request_bytes:
            raise errors.RequestTooLarge(
                f"The request body is larger than the {self._server.max_request_bytes} bytes that this proxy accepts."
            )
        received = upload.received
        if self._policy.needs_body(grant, route):
            limit = min(self._server.max_request_bytes, READ_WHOLE)
            received = received if received is not None else await upload.whole(limit)
            self._policy.check_body(grant, route, exchange.request.lines, received)
        if route.api.metering.include_usage == "inject" and route.path.endswith(b"/chat/completions"):
            limit = min(self._server.max_request_bytes, READ_WHOLE)
            received = received if received is not None else await upload.whole(limit)
            if (asking := injection.asking(received)) is not None:
                received, exchange.injected = asking, True
        if received is None:
            upload.taps.append(exchange.saw)
            return upload
        exchange.saw_all(received)
        if not received and not fields.has_body(exchange.request.lines):
            return None
        return BytesBody(received)

    def _reserve(self, ledger: Booking, exchange: Exchange, grant: Grant, route: Route) -> str:
        """Have a line in the ledger, whatever becomes of this process."""
        upload, dialect = exchange.request.upload, exchange.dialect
        size = upload.length if isinstance(upload.length, int) else upload.count
        return ledger.reserve(
            exchange.started_at,
            exchange.request_id,
            grant.project_id,
            grant.token_id,
            route.api_name,
            route.endpoint,
            route.model or exchange.facts.model,
            size,
            tokens(size) if dialect is not None and dialect.takes else 0,
        )

    def _outgoing(self, exchange: Exchange, route: Route, lines: list[bytes], credential: bytes) -> list[bytes]:
        if exchange.injected:  # what is to be taken out must be readable
            lines = [
                *(line for line in lines if line[:16].lower() != b"accept-encoding:"),
                b"Accept-Encoding: identity",
            ]
        return fields.outgoing(
            lines,
            host=route.origin.host_header,
            credential=credential,
            client=exchange.client if route.api.forward_client_ip else "",
        )

    async def _relay(self, exchange: Exchange, route: Route, answer: Answer, key: bytes) -> None:
        """Begin the client's answer and carry the body until it has ended, one way or the other."""
        request, timeouts = exchange.request, route.api.timeouts
        asked = self._asks_for_stream(exchange, route)
        exchange.stream = sniff.is_stream_answer(answer.lines) or (answer.code < 400 and asked)
        total = timeouts.stream if exchange.stream else timeouts.request
        taps: list[Tap] = []
        rewriting: Rewriting | None = None
        if answer.code >= 400:
            rewriting = Mask(key)
        elif exchange.dialect is not None:
            exchange.meter = meter = Meter(exchange.dialect, answer.lines)
            if exchange.injected and exchange.stream:
                rewriting = injection.Swallowing(meter.feed)
            else:
                taps.append(meter.feed)
        exchange.relay = relay = Relay(
            request,
            self._clock,
            idle=timeouts.idle,
            stalled=STALLED,
            deadline=exchange.arrived + total if total else None,
            flush_interval=timeouts.flush_interval,
            drain=timeouts.drain if route.api.on_client_abort == "drain" else 0.0,
            taps=taps,
            rewriting=rewriting,
        )
        exchange.status = answer.code
        relay.carry(answer, self._incoming(exchange, route, answer, key))
        exchange.outcome = relay.outcome or await relay.done

    def _asks_for_stream(self, exchange: Exchange, route: Route) -> bool:
        exchange.model, streamed = exchange.facts
        return streamed or route.stream or sniff.expects_stream(route.query, exchange.request.lines)

    def _deadline(self, exchange: Exchange, route: Route) -> float | None:
        """When the whole answer is due, going by what was asked for so far."""
        timeouts = route.api.timeouts
        total = timeouts.stream if self._asks_for_stream(exchange, route) else timeouts.request
        return exchange.arrived + total if total else None

    def _incoming(self, exchange: Exchange, route: Route, answer: Answer, key: bytes) -> list[bytes]:
        """The provider's fields that pass, and ours."""
        lines = fields.incoming(masked_lines(answer.lines, key), own_cors=bool(route.api.allowed_origins))
        if route.api.allowed_origins:
            lines += cors.answer(exchange.request.lines, route.api.allowed_origins)
        lines.append(b"X-Request-ID: " + exchange.request_id.encode())
        if exchange.stream:
            lines.append(b"X-Accel-Buffering: no")
        if self._server.debug_headers:
            lines += self._debug(exchange)
        return lines

    def _debug(self, exchange: Exchange) -> list[bytes]:
        arrived, authorized, asked, now = exchange.arrived, exchange.authorized, exchange.asked, exchange.first_byte
        assert authorized is not None and asked is not None and now is not None
        return [
            b"X-Cache-Status: disabled",
            b"X-Cache-Debug: no cache",
            b"Cache-Status: llmproxy; fwd=bypass",
            b"X-Upstream-Response-Time: %d" % round((now - asked) * 1000),
            b"Server-Timing: auth;dur=%.1f, queue;dur=%.1f, upstream;dur=%.1f, proxy;dur=%.1f"
            % (
                (authorized - arrived) * 1000,
                (asked - authorized) * 1000,
                (now - asked) * 1000,
                (asked - arrived) * 1000,
            ),
        ]


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "backslashreplace")[:256]


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 4 else 0
