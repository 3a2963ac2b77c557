"""The journey of one request, from top to bottom."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import partial
from typing import NamedTuple, Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from llmproxy import errors
from llmproxy.auth.lockout import FailedAttempts
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
from llmproxy.proxy.context import MAX_SMALL_BODY_BYTES, RequestContext
from llmproxy.proxy.deferred_results import DeferredResults
from llmproxy.proxy.policy import Policy
from llmproxy.proxy.reading import BodyReading
from llmproxy.upstream.upstreams import HeadTimeouts, ProviderKeys, Upstreams
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.transport import Answer, BytesBody
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.site import Upload

MAX_BUFFERED_BODY_BYTES = 4 * 1024 * 1024  # bytes of a request body that are kept for the cache, or to be changed
CLIENT_STALL_TIMEOUT = 600.0  # seconds after which a client that takes nothing is cut, on a site that is not ours

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

    def begun(self, context: RequestContext) -> None: ...
    def over(self, context: RequestContext) -> None: ...


class WantedMembers:
    """Whether somebody wants to know a member of a request, by its name: spelled in any case, since servers may not
    mind that either.
    """

    def __init__(self, params: Iterable[str]) -> None:
        self._names = frozenset(name.casefold() for name in (*params, *UNKNOWN_MEMBERS, *REQUEST_MEMBERS))

    def __call__(self, name: str) -> bool:
        return name.casefold() in self._names


class UpstreamCall(NamedTuple):
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


class Pipeline:
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
        failed_attempts: FailedAttempts,
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
        @param failed_attempts: Counts wrong tokens by address.
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
        self._failed_attempts = failed_attempts
        self._remembering = remembering
        self._meters = meters
        self._operations = operations
        self._caching = caching
        self._quota = quota
        self._ledger = ledger
        self._buffers = buffers
        self._wanted = {name: WantedMembers(api.param_whitelist) for name, api in routes.apis.items()}
        self._results = results

    async def handle(self, context: RequestContext) -> None:
        """Take the whole way. Whatever refuses the request raises; a body under way ends as its relay says."""
        request, lines = context.request, context.request.lines
        if request.method == b"OPTIONS" and (preflight := self._preflight(context)) is not None:
            request.begin(204, b"No Content", preflight, 0)
            request.finish()
            context.status, context.outcome = 204, "complete"
            return
        if fields.asks_for_websocket(lines):
            raise errors.UpgradeRequired
        if request.method == b"HEAD" and self._routes.is_root(request.uri):
            request.begin(200, b"OK", [b"X-Request-ID: " + context.request_id.encode()], 0)
            request.finish()
            context.status, context.outcome = 200, "complete"
            return
        context.route = route = self._routes.match(request.method, request.uri)
        taken = credentials.take(lines, route.query, route.api.query_key, route.api.forward_cookies)
        if taken.token is None:
            raise errors.MissingToken
        remembering = self._remembering
        token_key = b"" if remembering is None else remembering.key(taken.token)
        known = None if remembering is None else remembering.known(token_key)
        context.grant = grant = known or await self._validate(taken.token, context)
        if not self._policy.knows_active(grant):
            await self._policy.guard(grant, context.client, context.request_id)
        self._policy.check(grant, route, lines, context.client)
        context.dialect = self._meters.dialect(request.method, route.api_name, route.path)
        caching = self._caching
        asking = None if caching is None else caching.consider(route, grant, request.method, taken.lines)
        plan = None if self._quota is None else self._quota.plan(grant, route)
        body = await self._body(context, grant, route, plan, asking)
        context.authorized_at = self._clock.seconds()
        call = UpstreamCall(grant, route.with_query(taken.query), taken.token, token_key, body, plan)
        if asking is not None and _cacheable(body, request.upload) and not context.usage_injected:
            context.asking = asking
            await self._through_cache(context, call, asking)
            return
        answer, key = await self._call_upstream(context, call, taken.lines)
        if caching is not None:
            context.cache = "bypass"
            caching.changed(call.route, grant, request.method, taken.lines, answer)
        await self._relay(context, route, answer, key)

    async def collect(self, context: RequestContext) -> None:
        """A request is over: if it fetched a result that was announced before, enter what that used. Never raises."""
        if self._results is not None and context.result_collection is not None:
            await self._results.collect(context, self._clock.seconds())

    # The steps

    def _preflight(self, context: RequestContext) -> list[bytes] | None:
        """A browser's question before the real request; it carries no token (Fetch, section 3.2.2)."""
        lines = context.request.lines
        if fields.value(lines, b"access-control-request-method") is None:
            return None
        context.route = route = self._routes.preflight(context.request.uri)
        if not route.api.allowed_origins:
            return None
        return cors.preflight(lines, route.api.allowed_origins, route.api.allowed_methods)

    async def _validate(self, token: str, context: RequestContext) -> Grant:
        remembering, grant = self._remembering, None
        try:
            if remembering is None:
                grant = await self._validator.validate_token(token)
            else:
                grant = await remembering.validate_from(token, context.client)
        except errors.TokenNotFound:
            self._failed_attempts.count(context.client, self._clock.seconds())
            raise
        except errors.TokenInactive as e:
            await self._policy.revoked(e, context.client, context.request_id)
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
        self, context: RequestContext, grant: Grant, route: Route, plan: Plan | None, asking: Asking | None
    ) -> IBodyProducer | None:
        """The body to be sent: as it arrives, or read whole where a policy must see it first.

        Limits and the cache would like to see it too, but can do without one that is too long to be read.
        """
        upload, lines = context.request.upload, context.request.lines
        largest = self._server.max_request_bytes
        if upload.length is not UNKNOWN_LENGTH and upload.length > largest:
            raise errors.RequestTooLarge(
                f"The request body is larger than the {largest} bytes that this proxy accepts."
            )
        operation = self._operations.operation(context.request.method, route.api_name, route.path)
        held = plan is not None and plan.counts_tokens and not operation.free
        policed = self._policy.needs_body(grant, route, operation)
        injects = route.api.metering.include_usage == "inject" and route.path.endswith(b"/chat/completions")
        received, wanted = upload.received, self._wanted[route.api_name]
        if received is not None and len(received) <= MAX_SMALL_BODY_BYTES:
            context.observe_small_body(received, wanted, strictly=held or policed)
        elif not upload.done or received:
            reader = RequestReader(lines, wanted, self._clock.seconds)
            context.reading = reading = BodyReading(reader, self._clock, upload.go_on)
            if received is not None:
                reading.feed(received)
            else:
                upload.taps.append(reading.feed)
                upload.wait_for(lambda: reading.behind)
        if received is None:
            if held or policed:
                received = await upload.whole(largest)
            elif injects or _worth_keeping(upload.length, asking):
                received = await upload.whole(min(largest, MAX_BUFFERED_BODY_BYTES))
        if context.reading is not None and (held or policed or injects):
            await context.reading.whole()
        if policed:
            self._policy.check_body(grant, route, operation, context.content)
        if injects and received is not None:
            changed = injection.asking(received, context.content)
            received, context.usage_injected = changed or received, changed is not None
        if received is None:
            return upload
        if not received and not fields.has_body(lines):
            return None
        return BytesBody(received)

    async def _call_upstream(
        self, context: RequestContext, call: UpstreamCall, lines: list[bytes]
    ) -> tuple[Answer, bytes]:
        """Reserve, count one use, and ask the provider: the head of its answer, and the key that it was asked with."""
        grant, route, token, token_key, body, plan = call
        request, remembering = context.request, self._remembering
        if plan is not None:
            await self._reserve(context, route, plan)
        key = self._keys.known(grant.project_id, route.api_name)
        if key is None:
            key = await self._keys.look_up(grant.project_id, route.api_name, route.auth)
        context.slot = self._shares.enter(route.api_name, grant.project_id)
        counted = None if remembering is None else remembering.known_use(token_key)
        if counted is None:
            await self._count(token)
        if self._ledger is not None:
            uses = 0 if counted is None or counted.project_active is False else 1
            context.ledger_id = self._open_ledger_line(self._ledger, context, grant, route, uses)
        context.upstream_started = self._clock.seconds()
        context.request_sent = True
        try:
            context.answer = answer = await self._upstreams.send(
                route,
                grant.project_id,
                request.method,
                self._outgoing(context, route, lines, key.line),
                body,
                request.upload,
                partial(self._bounds, context, route),
            )
        except errors.ProxyError as e:
            if nothing_sent(e):
                context.request_sent = False
                if remembering is not None:
                    remembering.give_back(token_key, grant)
            raise
        context.first_byte_at = self._clock.seconds()
        answer.lines = masked_lines(answer.lines, key.value)
        answer.phrase = starred(answer.phrase, key.value)
        if context.dialect is not None and answer.code < 300:
            context.meter = meter = Meter(context.dialect, answer.lines, self._buffers)
            if not context.usage_injected:
                answer.watch(meter.feed)
        if self._results is not None and answer.code < 300:
            self._results.watch(context, route, answer)
        return answer, key.value

    async def _reserve(self, context: RequestContext, route: Route, plan: Plan) -> None:
        """Hold what it may use at most. The usual request waits for nothing."""
        assert self._quota is not None
        upload = context.request.upload
        size = upload.count if upload.length is UNKNOWN_LENGTH else upload.length
        content = context.content
        made = self._quota.reserve(
            plan, route, Asked(context.request.method, route.model or content.model, content, size)
        )
        context.reservation = made if isinstance(made, Reservation) else await made
        context.request.booked_first = True

    def _open_ledger_line(self, ledger: Booking, context: RequestContext, grant: Grant, route: Route, uses: int) -> str:
        """Have a line in the ledger, whatever becomes of this process.

        @param uses: Uses of the token that the validator has left to the ledger.
        """
        upload, dialect = context.request.upload, context.dialect
        size = upload.length if isinstance(upload.length, int) else upload.count
        return ledger.reserve(
            context.started_at,
            context.request_id,
            grant.project_id,
            grant.token_id,
            route.api_name,
            route.endpoint,
            route.model or context.content.model,
            size,
            tokens(size) if dialect is not None and dialect.takes else 0,
            uses,
        )

    async def _through_cache(self, context: RequestContext, call: UpstreamCall, asking: Asking) -> None:
        """Answer from the cache, or from the provider by way of it."""
        route = call.route
        received = call.body.received if isinstance(call.body, BytesBody) else b""
        found = asking.recall(route.target, received, partial(self._refresh, context, call))
        found = found or await asking.fetch(partial(self._call_upstream, context, call))
        if self._remembering is not None and asking.status in ("hit", "coalesced"):
            self._remembering.hit(asking.token_id)
        answer = found.answer
        if isinstance(answer, Given) and answer.at_once:
            self._send_cached(context, route, answer)
            return
        await self._relay(context, route, answer, found.secret)
        if asking.leads:
            await asking.over()

    async def _refresh(self, context: RequestContext, call: UpstreamCall, asking: Asking) -> None:
        """Fetch anew what has just been given although it was stale: a request of the proxy's own, told like any."""
        own = context.background_copy(self._clock.seconds())
        own.asking = asking
        self.observer.begun(own)
        try:
            found = await asking.fetch(partial(self._call_upstream, own, call))
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

    def _send_cached(self, context: RequestContext, route: Route, given: Given) -> None:
        """Write the whole answer at once."""
        context.relay = given
        context.status, context.stream, context.outcome = given.code, given.entry.stream, "complete"
        lines = self._add_own_headers(context, route, given.lines)
        context.request.respond(given.code, given.phrase, lines, given.length, given.body)

    def _outgoing(self, context: RequestContext, route: Route, lines: list[bytes], credential: bytes) -> list[bytes]:
        if context.usage_injected:  # what is to be taken out must be readable
            lines = [
                *(line for line in lines if line[:16].lower() != b"accept-encoding:"),
                b"Accept-Encoding: identity",
            ]
        return fields.outgoing(
            lines,
            host=route.origin.host_header,
            credential=credential,
            client=context.client if route.api.forward_client_ip else "",
        )

    async def _relay(
        self, context: RequestContext, route: Route, answer: Answer | Reader | Given, key: bytes | None
    ) -> None:
        """Begin the client's answer and carry the body until it has ended, one way or the other.

        @param key: To be starred out of the body; C{None} where it has been.
        """
        request, timeouts = context.request, route.api.timeouts
        asked = self._asks_for_stream(context, route)
        context.stream = sniff.is_stream_answer(answer.lines) or (answer.code < 400 and asked)
        total = timeouts.stream if context.stream else timeouts.request
        lines, rewriting = answer.lines, None
        if key is not None and request.method != b"HEAD":
            notice = partial(_withheld, answer.code, route, context.request_id)
            lines, rewriting = shield(answer.code, lines, key, notice, stream=context.stream, whole=answer.whole)
        if answer.code < 400 and context.usage_injected and context.meter is not None and isinstance(answer, Answer):
            if context.stream:  # what the client did not ask for is kept from it
                swallowing = injection.Swallowing(context.meter.feed)
                rewriting = swallowing if rewriting is None else Both(swallowing, rewriting)
            else:
                answer.watch(context.meter.feed)
        context.relay = relay = Relay(
            request,
            self._clock,
            idle=timeouts.idle if context.stream else 0.0,
            stalled=0.0 if request.paced else CLIENT_STALL_TIMEOUT,
            deadline=context.arrived_at + total if total else None,
            flush_interval=timeouts.flush_interval,
            drain=timeouts.drain if route.api.on_client_abort == "drain" else 0.0,
            rewriting=rewriting,
        )
        context.status = answer.code
        lines = fields.incoming(lines, own_cors=bool(route.api.allowed_origins))
        relay.carry(answer, self._add_own_headers(context, route, lines))
        context.outcome = relay.outcome or await relay.done

    def _asks_for_stream(self, context: RequestContext, route: Route) -> bool:
        return context.content.stream or route.stream or sniff.expects_stream(route.query, context.request.lines)

    def _bounds(self, context: RequestContext, route: Route) -> HeadTimeouts:
        """How long the answer's head may take, going by what was asked for so far."""
        timeouts = route.api.timeouts
        streams = self._asks_for_stream(context, route)
        total = timeouts.stream if streams else timeouts.request
        return HeadTimeouts(timeouts.response_header if streams else 0.0, context.arrived_at + total if total else None)

    def _add_own_headers(self, context: RequestContext, route: Route, lines: list[bytes]) -> list[bytes]:
        """The fields that pass, and ours."""
        if route.api.allowed_origins:
            lines += cors.answer(context.request.lines, route.api.allowed_origins)
        if context.reservation is not None:
            lines = told.replaced(lines, context.reservation.told, route.api.provider)
        lines.append(b"X-Request-ID: " + context.request_id.encode())
        if context.stream:
            lines.append(b"X-Accel-Buffering: no")
        if self._server.debug_headers:
            lines += _CACHE_LINES[context.cache] if context.asking is None else context.asking.told()
            lines += self._timing_headers(context)
        return lines

    def _timing_headers(self, context: RequestContext) -> list[bytes]:
        arrived, authorized, asked, first = (
            context.arrived_at,
            context.authorized_at,
            context.upstream_started,
            context.first_byte_at,
        )
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


def _cacheable(body: IBodyProducer | None, upload: Upload) -> bool:
    """Whether the cache can tell by this body whether it has the response."""
    return body is not upload and (body is None or body.length <= MAX_BUFFERED_BODY_BYTES)


def _worth_keeping(length: int | str, asking: Asking | None) -> bool:
    """Whether the cache would like to have a body of this length before it is sent on."""
    return (
        length is not UNKNOWN_LENGTH
        and int(length) <= MAX_BUFFERED_BODY_BYTES
        and asking is not None
        and asking.needs_body
    )


def _withheld(code: int, route: Route, request_id: str) -> bytes:
    """What stands for an error that cannot be looked into."""
    return refusals.render(errors.UpstreamErrorWithheld(code), refusals.flavour_of(route.api), request_id)[1]


def nothing_sent(error: errors.ProxyError) -> bool:
    """Whether not one byte of the request has reached the provider."""
    held_back = isinstance(error, errors.CircuitOpen | errors.UpstreamBusy)
    return held_back or (isinstance(error, errors.UpstreamFailure) and error.nothing_sent)
