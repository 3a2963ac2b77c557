"""The journey of one request, from top to bottom."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import partial
from typing import NamedTuple, Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from llmproxy import errors
from llmproxy.auth.lockout import Guesses
from llmproxy.caching import Asking, Caching, Drain, Given, Reader
from llmproxy.config.model import Server
from llmproxy.config.routes import Route, Routes
from llmproxy.http import cors, credentials, fields, refusals, sniff
from llmproxy.http.masking import Both, masked_lines, shield, starred
from llmproxy.http.request_reader import RequestReader
from llmproxy.interfaces import ITokenValidator
from llmproxy.limits import headers as told
from llmproxy.limits.in_flight import Shares
from llmproxy.limits.limiter import Asked, Quota, Reservation
from llmproxy.limits.plan import Plan
from llmproxy.metering import injection
from llmproxy.metering.catalog import Meters, Operations
from llmproxy.metering.dialects.registry import REQUEST_MEMBERS
from llmproxy.metering.estimating import tokens
from llmproxy.metering.meter import Meter
from llmproxy.metering.worst import UNKNOWN_MEMBERS
from llmproxy.model import Grant
from llmproxy.proxy.context import SMALL_BYTES, Exchange
from llmproxy.proxy.deferred_results import DeferredResults
from llmproxy.proxy.policy import Policy
from llmproxy.proxy.reading import BodyReading
from llmproxy.upstream.upstreams import Bounds, ProviderKeys, Upstreams
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.transport import Answer, BytesBody
from llmproxy.wire.relay import Relay

READ_WHOLE = 4 * 1024 * 1024  # bytes of a request body that are kept for the cache, or to be changed
STALLED = 600.0  # seconds after which a client that takes nothing is cut, on a site that is not ours

# What is said of a request that has nothing to do with the cache.
_CACHE_LINES = {
    "disabled": [b"X-Cache-Status: disabled", b"X-Cache-Debug: no cache", b"Cache-Status: llmproxy; fwd=bypass"],
    "bypass": [b"X-Cache-Status: bypass", b"X-Cache-Debug: bypass", b"Cache-Status: llmproxy; fwd=bypass"],
}


class Remembering(Protocol):
    """A validator that can answer at once from what it remembers; C{None} where it must be asked."""

    def key(self, token: str) -> bytes:
        """What the other two know the token by."""

    def validate_from(self, token: str, client: str) -> Awaitable[Grant]:
        """Ask, on behalf of the client at this address."""

    def known(self, key: bytes) -> Grant | None: ...

    def known_use(self, key: bytes) -> Grant | None: ...

    def give_back(self, key: bytes, grant: Grant) -> None:
        """The use that was counted last was none: nothing was sent."""

    def hit(self, token_id: str) -> None:
        """Count one request that was answered from the cache."""


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
        uses: int,
    ) -> str: ...


class Observer(Protocol):
    """Is told of the requests that the proxy makes by itself."""

    def begun(self, exchange: Exchange) -> None: ...
    def over(self, exchange: Exchange) -> None: ...


class WantedMembers:
    """Whether somebody wants to know a member of a request, by its name: spelled in any case, since servers may not
    mind that either.
    """

    def __init__(self, params: Iterable[str]) -> None:
        self._names = frozenset(name.casefold() for name in (*params, *UNKNOWN_MEMBERS, *REQUEST_MEMBERS))

    def __call__(self, name: str) -> bool:
        return name.casefold() in self._names


class Errand(NamedTuple):
    """All that asking the provider takes, beside the request's lines.

    @ivar route: With the query as it is sent.
    @ivar token_key: What a validator that remembers knows the token by.
    @ivar plan: The limits that it must keep.
    """

    grant: Grant
    route: Route
    token: str
    token_key: bytes
    body: IBodyProducer | None
    plan: Plan | None


class Journey:
    """Takes a request to its provider and the answer back.

    @ivar observer: Whoever serves requests by it.
    """

    observer: Observer

    def __init__(
        self,
        *,
        routes: Routes,
        validator: ITokenValidator,
        policy: Policy,
        keys: ProviderKeys,
        upstreams: Upstreams,
        shares: Shares,
        server: Server,
        clock: IReactorTime,
        guesses: Guesses,
        meters: Meters,
        operations: Operations,
        remembering: Remembering | None = None,
        caching: Caching | None = None,
        quota: Quota | None = None,
        ledger: Booking | None = None,
        buffers: Buffers | None = None,
        results: DeferredResults | None = None,
    ) -> None:
        """
        @param caching: What may answer instead of a provider; C{None} where nothing is cached.
        @param guesses: Counts wrong tokens by address.
        @param remembering: The validator, where it remembers; then the usual request waits for nothing.
        @param quota: Knows the limits, where there can be any.
        @param buffers: Where is counted what is kept of answers until they are measured.
        @param ledger: Told of every request that is about to leave for its provider.
        @param results: Settles what is told later than the answer, where there is a ledger to keep it.
        """
        self._routes = routes
        self._validator = validator
        self._policy = policy
        self._keys = keys
        self._upstreams = upstreams
        self._shares = shares
        self._server = server
        self._clock = clock
        self._guesses = guesses
        self._remembering = remembering
        self._meters = meters
        self._operations = operations
        self._caching = caching
        self._quota = quota
        self._ledger = ledger
        self._buffers = buffers
        self._wanted = {name: WantedMembers(api.param_whitelist) for name, api in routes.apis.items()}
        self._results = results

    async def handle(self, exchange: Exchange) -> None:
        """Take the whole way. Whatever refuses the request raises; a body under way ends as its relay says."""
        request, lines = exchange.request, exchange.request.lines
        if request.method == b"OPTIONS" and (preflight := self._preflight(exchange)) is not None:
            request.begin(204, b"No Content", preflight, 0)
            request.finish()
            exchange.status, exchange.outcome = 204, "complete"
            return
        if fields.asks_for_websocket(lines):
            raise errors.UpgradeRequired
        if request.method == b"HEAD" and self._routes.is_root(request.uri):
            request.begin(200, b"OK", [b"X-Request-ID: " + exchange.request_id.encode()], 0)
            request.finish()
            exchange.status, exchange.outcome = 200, "complete"
            return
        exchange.route = route = self._routes.match(request.method, request.uri)
        taken = credentials.take(lines, route.query, route.api.query_key, route.api.forward_cookies)
        if taken.token is None:
            raise errors.MissingToken
        remembering = self._remembering
        token_key = b"" if remembering is None else remembering.key(taken.token)
        known = None if remembering is None else remembering.known(token_key)
        exchange.grant = grant = known or await self._validate(taken.token, exchange)
        if not self._policy.knows_active(grant):
            await self._policy.guard(grant, exchange.client, exchange.request_id)
        self._policy.check(grant, route, lines, exchange.client)
        exchange.dialect = self._meters.dialect(request.method, route.api_name, route.path)
        caching = self._caching
        asking = None if caching is None else caching.consider(route, grant, request.method, taken.lines)
        plan = None if self._quota is None else self._quota.plan(grant, route)
        body = await self._body(exchange, grant, route, plan, asking)
        exchange.authorized = self._clock.seconds()
        errand = Errand(grant, route.with_query(taken.query), taken.token, token_key, body, plan)
        if asking is not None and body is not request.upload and not exchange.injected:
            exchange.asking = asking
            await self._cached(exchange, errand, asking)
            return
        answer, key = await self._fetch(exchange, errand, taken.lines)
        if caching is not None:
            exchange.cache = "bypass"
            caching.changed(errand.route, grant, request.method, taken.lines, answer)
        await self._relay(exchange, route, answer, key)

    async def collect(self, exchange: Exchange) -> None:
        """A request is over: if it fetched a result that was announced before, enter what that used. Never raises."""
        if self._results is not None and exchange.collection is not None:
            await self._results.collect(exchange, self._clock.seconds())

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

    async def _validate(self, token: str, exchange: Exchange) -> Grant:
        remembering, grant = self._remembering, None
        try:
            if remembering is None:
                grant = await self._validator.validate_token(token)
            else:
                grant = await remembering.validate_from(token, exchange.client)
        except errors.TokenNotFound:
            self._guesses.count(exchange.client, self._clock.seconds())
            raise
        except errors.TokenInactive as e:
            await self._policy.revoked(e, exchange.client, exchange.request_id)
            raise
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

    async def _body(
        self, exchange: Exchange, grant: Grant, route: Route, plan: Plan | None, asking: Asking | None
    ) -> IBodyProducer | None:
        """The body to be sent: as it arrives, or read whole where a policy must see it first.

        Limits and the cache would like to see it too, but can do without one that is too long to be read.
        """
        upload, lines = exchange.request.upload, exchange.request.lines
        largest = self._server.max_request_bytes
        if upload.length is not UNKNOWN_LENGTH and upload.length > largest:
            raise errors.RequestTooLarge(
                f"The request body is larger than the {largest} bytes that this proxy accepts."
            )
        operation = self._operations.operation(exchange.request.method, route.api_name, route.path)
        held = plan is not None and plan.counts_tokens and not operation.free
        policed = self._policy.needs_body(grant, route, operation)
        injects = route.api.metering.include_usage == "inject" and route.path.endswith(b"/chat/completions")
        received, wanted = upload.received, self._wanted[route.api_name]
        if received is not None and len(received) <= SMALL_BYTES:
            exchange.saw_small(received, wanted, strictly=held or policed)
        elif not upload.done or received:
            exchange.reading = reading = BodyReading(RequestReader(lines, wanted), self._clock)
            if received is not None:
                reading.feed(received)
            else:
                upload.taps.append(reading.feed)
        if received is None:
            if held or policed:
                received = await upload.whole(largest)
            elif injects or _worth_keeping(upload.length, asking):
                received = await upload.whole(min(largest, READ_WHOLE))
        if exchange.reading is not None and (held or policed or injects):
            await exchange.reading.whole()
        if policed:
            self._policy.check_body(grant, route, operation, exchange.content)
        if injects and received is not None:
            changed = injection.asking(received, exchange.content)
            received, exchange.injected = changed or received, changed is not None
        if received is None:
            return upload
        if not received and not fields.has_body(lines):
            return None
        return BytesBody(received)

    async def _fetch(self, exchange: Exchange, errand: Errand, lines: list[bytes]) -> tuple[Answer, bytes]:
        """Reserve, count one use, and ask the provider: the head of its answer, and the key that it was asked with."""
        grant, route, token, token_key, body, plan = errand
        request, remembering = exchange.request, self._remembering
        if plan is not None:
            await self._hold(exchange, route, plan)
        key = self._keys.known(grant.project_id, route.api_name)
        if key is None:
            key = await self._keys.look_up(grant.project_id, route.api_name, route.auth)
        exchange.share = self._shares.enter(route.api_name, grant.project_id)
        counted = None if remembering is None else remembering.known_use(token_key)
        if counted is None:
            await self._count(token)
        if self._ledger is not None:
            uses = 0 if counted is None or counted.project_active is False else 1
            exchange.ledger_id = self._enter(self._ledger, exchange, grant, route, uses)
        exchange.asked = self._clock.seconds()
        exchange.sent = True
        try:
            exchange.answer = answer = await self._upstreams.send(
                route,
                grant.project_id,
                request.method,
                self._outgoing(exchange, route, lines, key.line),
                body,
                request.upload,
                partial(self._bounds, exchange, route),
            )
        except errors.ProxyError as e:
            if nothing_sent(e):
                exchange.sent = False
                if remembering is not None:
                    remembering.give_back(token_key, grant)
            raise
        exchange.first_byte = self._clock.seconds()
        answer.lines = masked_lines(answer.lines, key.value)
        answer.phrase = starred(answer.phrase, key.value)
        if exchange.dialect is not None and answer.code < 300:
            exchange.meter = meter = Meter(exchange.dialect, answer.lines, self._buffers)
            if not exchange.injected:
                answer.watch(meter.feed)
        if self._results is not None and answer.code < 300:
            self._results.watch(exchange, route, answer)
        return answer, key.value

    async def _hold(self, exchange: Exchange, route: Route, plan: Plan) -> None:
        """Hold what it may use at most. The usual request waits for nothing."""
        assert self._quota is not None
        upload = exchange.request.upload
        size = upload.count if upload.length is UNKNOWN_LENGTH else upload.length
        content = exchange.content
        made = self._quota.reserve(
            plan, route, Asked(exchange.request.method, route.model or content.model, content, size)
        )
        exchange.reservation = made if isinstance(made, Reservation) else await made
        exchange.request.booked_first = True

    def _enter(self, ledger: Booking, exchange: Exchange, grant: Grant, route: Route, uses: int) -> str:
        """Have a line in the ledger, whatever becomes of this process.

        @param uses: Uses of the token that the validator has left to the ledger.
        """
        upload, dialect = exchange.request.upload, exchange.dialect
        size = upload.length if isinstance(upload.length, int) else upload.count
        return ledger.reserve(
            exchange.started_at,
            exchange.request_id,
            grant.project_id,
            grant.token_id,
            route.api_name,
            route.endpoint,
            route.model or exchange.content.model,
            size,
            tokens(size) if dialect is not None and dialect.takes else 0,
            uses,
        )

    async def _cached(self, exchange: Exchange, errand: Errand, asking: Asking) -> None:
        """Answer from the cache, or from the provider by way of it."""
        route = errand.route
        received = errand.body.received if isinstance(errand.body, BytesBody) else b""
        found = asking.recall(route.target, received, partial(self._refresh, exchange, errand))
        found = found or await asking.fetch(partial(self._fetch, exchange, errand))
        if self._remembering is not None and asking.status in ("hit", "coalesced"):
            self._remembering.hit(asking.token_id)
        answer = found.answer
        if isinstance(answer, Given) and answer.at_once:
            self._give(exchange, route, answer)
            return
        await self._relay(exchange, route, answer, found.secret)
        if asking.leads:
            await asking.over()

    async def _refresh(self, exchange: Exchange, errand: Errand, asking: Asking) -> None:
        """Fetch anew what has just been given although it was stale: a request of the proxy's own, told like any."""
        own = exchange.aside(self._clock.seconds())
        own.asking = asking
        self.observer.begun(own)
        try:
            found = await asking.fetch(partial(self._fetch, own, errand))
            own.status, own.outcome = found.answer.code, "complete"
            if isinstance(found.answer, Answer):
                found.answer.stopProducing()
            elif isinstance(found.answer, Reader):
                drain = Drain()
                found.answer.deliverBody(drain)
                own.outcome = "complete" if await drain.done else "truncated"
        except errors.ProxyError as e:
            own.status, own.outcome, own.error = e.status, "failed", e.code
        except CancelledError:
            own.outcome = "cancelled"
        self.observer.over(own)

    def _give(self, exchange: Exchange, route: Route, given: Given) -> None:
        """Write the whole answer at once."""
        exchange.relay = given
        exchange.status, exchange.stream, exchange.outcome = given.code, given.entry.stream, "complete"
        lines = self._with_ours(exchange, route, given.lines)
        exchange.request.respond(given.code, given.phrase, lines, given.length, given.body)

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

    async def _relay(
        self, exchange: Exchange, route: Route, answer: Answer | Reader | Given, key: bytes | None
    ) -> None:
        """Begin the client's answer and carry the body until it has ended, one way or the other.

        @param key: To be starred out of the body; C{None} where it has been.
        """
        request, timeouts = exchange.request, route.api.timeouts
        asked = self._asks_for_stream(exchange, route)
        exchange.stream = sniff.is_stream_answer(answer.lines) or (answer.code < 400 and asked)
        total = timeouts.stream if exchange.stream else timeouts.request
        lines, rewriting = answer.lines, None
        if key is not None and request.method != b"HEAD":
            notice = partial(_withheld, answer.code, route, exchange.request_id)
            lines, rewriting = shield(answer.code, lines, key, notice, stream=exchange.stream, whole=answer.whole)
        if answer.code < 400 and exchange.injected and exchange.meter is not None and isinstance(answer, Answer):
            if exchange.stream:  # what the client did not ask for is kept from it
                swallowing = injection.Swallowing(exchange.meter.feed)
                rewriting = swallowing if rewriting is None else Both(swallowing, rewriting)
            else:
                answer.watch(exchange.meter.feed)
        exchange.relay = relay = Relay(
            request,
            self._clock,
            idle=timeouts.idle if exchange.stream else 0.0,
            stalled=0.0 if request.paced else STALLED,
            deadline=exchange.arrived + total if total else None,
            flush_interval=timeouts.flush_interval,
            drain=timeouts.drain if route.api.on_client_abort == "drain" else 0.0,
            rewriting=rewriting,
        )
        exchange.status = answer.code
        lines = fields.incoming(lines, own_cors=bool(route.api.allowed_origins))
        relay.carry(answer, self._with_ours(exchange, route, lines))
        exchange.outcome = relay.outcome or await relay.done

    def _asks_for_stream(self, exchange: Exchange, route: Route) -> bool:
        return exchange.content.stream or route.stream or sniff.expects_stream(route.query, exchange.request.lines)

    def _bounds(self, exchange: Exchange, route: Route) -> Bounds:
        """How long the answer's head may take, going by what was asked for so far."""
        timeouts = route.api.timeouts
        streams = self._asks_for_stream(exchange, route)
        total = timeouts.stream if streams else timeouts.request
        return Bounds(timeouts.response_header if streams else 0.0, exchange.arrived + total if total else None)

    def _with_ours(self, exchange: Exchange, route: Route, lines: list[bytes]) -> list[bytes]:
        """The fields that pass, and ours."""
        if route.api.allowed_origins:
            lines += cors.answer(exchange.request.lines, route.api.allowed_origins)
        if exchange.reservation is not None:
            lines = told.replaced(lines, exchange.reservation.told, route.api.provider)
        lines.append(b"X-Request-ID: " + exchange.request_id.encode())
        if exchange.stream:
            lines.append(b"X-Accel-Buffering: no")
        if self._server.debug_headers:
            lines += _CACHE_LINES[exchange.cache] if exchange.asking is None else exchange.asking.told()
            lines += self._times(exchange)
        return lines

    def _times(self, exchange: Exchange) -> list[bytes]:
        arrived, authorized, asked, first = exchange.arrived, exchange.authorized, exchange.asked, exchange.first_byte
        assert authorized is not None
        if asked is None or first is None:
            spent = (self._clock.seconds() - authorized) * 1000
            return [b"Server-Timing: auth;dur=%.1f, proxy;dur=%.1f" % ((authorized - arrived) * 1000, spent)]
        return [
            b"X-Upstream-Response-Time: %d" % round((first - asked) * 1000),
            b"Server-Timing: auth;dur=%.1f, queue;dur=%.1f, upstream;dur=%.1f, proxy;dur=%.1f"
            % (
                (authorized - arrived) * 1000,
                (asked - authorized) * 1000,
                (first - asked) * 1000,
                (asked - arrived) * 1000,
            ),
        ]


def _worth_keeping(length: int | str, asking: Asking | None) -> bool:
    """Whether the cache would like to have a body of this length before it is sent on."""
    return length is not UNKNOWN_LENGTH and int(length) <= READ_WHOLE and asking is not None and asking.needs_body


def _withheld(code: int, route: Route, request_id: str) -> bytes:
    """What stands for an error that cannot be looked into."""
    return refusals.render(errors.UpstreamErrorWithheld(code), refusals.flavour_of(route.api), request_id)[1]


def nothing_sent(error: errors.ProxyError) -> bool:
    """Whether not one byte of the request has reached the provider."""
    held_back = isinstance(error, errors.CircuitOpen | errors.UpstreamBusy)
    return held_back or (isinstance(error, errors.UpstreamFailure) and error.nothing_sent)
