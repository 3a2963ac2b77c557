"""The journey of one request, from top to bottom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from llmproxy import errors
from llmproxy.caching import Asking, Caching, Drain, Given, Reader
from llmproxy.config.model import Server
from llmproxy.config.routes import Route, Routes
from llmproxy.guessing import Guesses
from llmproxy.http import cors, credentials, fields, sniff
from llmproxy.http.masking import Mask, masked_lines
from llmproxy.interfaces import ITokenValidator
from llmproxy.model import Grant, RequestRecord
from llmproxy.policy import Policy
from llmproxy.shares import Share, Shares
from llmproxy.upstreams import ProviderKeys, Upstreams
from llmproxy.wire.raw import Answer, BytesBody
from llmproxy.wire.relay import Relay
from llmproxy.wire.server import Request

SNIFFED = 64 * 1024  # bytes of a request body that are looked at for the model's name
READ_WHOLE = 4 * 1024 * 1024  # bytes of a request body that are read where a policy must see all of it
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

    def known(self, key: bytes) -> Grant | None: ...

    def known_use(self, key: bytes) -> Grant | None: ...

    def hit(self, token_id: str) -> None:
        """Count one request that was answered from the cache."""


class Exchange:
    """One request on its journey, and what has become known of it on the way."""

    route: Route | None = None
    grant: Grant | None = None
    answer: Answer | None = None
    relay: Relay | Given | None = None
    share: Share | None = None
    asking: Asking | None = None
    cache = "disabled"
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

    def aside(self, now: float) -> Exchange:
        """The proxy's own request for the same."""
        own = Exchange(self.request, f"{self.request_id}-refresh", "", self.started_at + now - self.arrived, now)
        own.route, own.grant, own.prefix, own.authorized = self.route, self.grant, self.prefix, now
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

    @property
    def facts(self) -> sniff.Facts:
        """What is known so far of what is asked for."""
        return sniff.facts(bytes(self.prefix))

    def record(self, finished: float) -> RequestRecord:
        """What remains of it once it is over."""
        request, route, grant, answer = self.request, self.route, self.grant, self.answer
        path = request.uri.partition(b"?")[0]
        named = sniff.model_in_path(path) if route is None else route.model
        first, asked, lines = self.first_byte, self.asked, request.lines
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
            model=self.model or named or self.facts.model,
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
        )


Fetching = Callable[[Exchange, list[bytes]], Awaitable[tuple[Answer, bytes]]]


class Observer(Protocol):
    """Is told of the requests that the proxy makes by itself."""

    def begun(self, exchange: Exchange) -> None: ...
    def over(self, exchange: Exchange) -> None: ...


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
        remembering: Remembering | None = None,
        caching: Caching | None = None,
    ) -> None:
        """
        @param caching: What may answer instead of a provider; C{None} where nothing is cached.
        @param guesses: Counts wrong tokens by address.
        @param remembering: The validator, where it remembers; then the usual request waits for nothing.
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
        self._caching = caching

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
        exchange.grant = grant = known or await self._validate(taken.token, exchange.client)
        if not self._policy.knows_active(grant):
            await self._policy.guard(grant, exchange.client, exchange.request_id)
        self._policy.check(grant, route, lines, exchange.client)
        caching = self._caching
        asking = None if caching is None else caching.consider(route, grant, request.method, taken.lines)
        body = await self._body(exchange, grant, route, asking is not None and asking.needs_body)
        exchange.authorized = self._clock.seconds()
        sent = route.with_query(taken.query)
        if asking is not None and (not asking.needs_body or body is not request.upload):
            exchange.asking = asking
            fetch = partial(self._fetch, grant=grant, route=sent, token=taken.token, token_key=token_key, body=body)
            await self._cached(exchange, sent, asking, body, fetch)
            return
        answer, key = await self._fetch(exchange, taken.lines, grant, sent, taken.token, token_key, body)
        if caching is not None:
            exchange.cache = "bypass"
            caching.changed(sent, grant, request.method, taken.lines, answer)
        await self._relay(exchange, route, answer, key)

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

    async def _validate(self, token: str, client: str) -> Grant:
        try:
            grant = await self._validator.validate_token(token)
        except errors.TokenNotFound:
            self._guesses.count(client, self._clock.seconds())
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

    async def _body(self, exchange: Exchange, grant: Grant, route: Route, keyed: bool) -> IBodyProducer | None:
        """The body to be sent: as it arrives, or read whole where a policy must see it first.

        @param keyed: The cache would like to see it too, if it is not too long.
        """
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
        elif received is None and keyed and upload.length is not UNKNOWN_LENGTH and upload.length <= READ_WHOLE:
            received = await upload.whole(READ_WHOLE)
        if received is None:
            upload.taps.append(exchange.saw)
            return upload
        exchange.saw_all(received)
        if not received and not fields.has_body(exchange.request.lines):
            return None
        return BytesBody(received)

    async def _fetch(
        self,
        exchange: Exchange,
        lines: list[bytes],
        grant: Grant,
        route: Route,
        token: str,
        token_key: bytes,
        body: IBodyProducer | None,
    ) -> tuple[Answer, bytes]:
        """Ask the provider, and count one use; the head of its answer, and the key that it was asked with."""
        request, remembering = exchange.request, self._remembering
        key = self._keys.known(grant.project_id, route.api_name)
        if key is None:
            key = await self._keys.look_up(grant.project_id, route.api_name, route.auth)
        exchange.share = self._shares.enter(route.api_name, grant.project_id)
        if remembering is None or remembering.known_use(token_key) is None:
            await self._count(token)
        exchange.asked = self._clock.seconds()
        exchange.answer = answer = await self._upstreams.send(
            route,
            grant.project_id,
            request.method,
            self._outgoing(exchange, route, lines, key.line),
            body,
            request.upload,
            partial(self._deadline, exchange, route),
        )
        exchange.first_byte = self._clock.seconds()
        return answer, key.value

    async def _cached(
        self, exchange: Exchange, route: Route, asking: Asking, body: IBodyProducer | None, fetch: Fetching
    ) -> None:
        """Answer from the cache, or from the provider by way of it."""
        received = body.received if isinstance(body, BytesBody) else b""
        found = asking.recall(route.target, received, partial(self._refresh, exchange, fetch))
        found = found or await asking.fetch(partial(fetch, exchange))
        if self._remembering is not None and asking.status in ("hit", "coalesced"):
            self._remembering.hit(asking.token_id)
        answer = found.answer
        if isinstance(answer, Given) and answer.at_once:
            self._give(exchange, route, answer)
            return
        await self._relay(exchange, route, answer, found.secret)
        if asking.leads:
            await asking.over()

    async def _refresh(self, exchange: Exchange, fetch: Fetching, asking: Asking) -> None:
        """Fetch anew what has just been given although it was stale: a request of the proxy's own, told like any."""
        own = exchange.aside(self._clock.seconds())
        own.asking = asking
        self.observer.begun(own)
        try:
            found = await asking.fetch(partial(fetch, own))
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
        exchange.model = exchange.facts.model
        lines = self._with_ours(exchange, route, given.lines)
        exchange.request.respond(given.code, given.phrase, lines, given.length, given.body)

    def _outgoing(self, exchange: Exchange, route: Route, lines: list[bytes], credential: bytes) -> list[bytes]:
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

        @param key: To be starred out; C{None} where it has been.
        """
        request, timeouts = exchange.request, route.api.timeouts
        asked = self._asks_for_stream(exchange, route)
        exchange.stream = sniff.is_stream_answer(answer.lines) or (answer.code < 400 and asked)
        total = timeouts.stream if exchange.stream else timeouts.request
        exchange.relay = relay = Relay(
            request,
            self._clock,
            idle=timeouts.idle,
            stalled=0.0 if request.paced else STALLED,
            deadline=exchange.arrived + total if total else None,
            flush_interval=timeouts.flush_interval,
            rewriting=Mask(key) if key is not None and answer.code >= 400 else None,
        )
        exchange.status = answer.code
        passed = answer.lines if key is None else masked_lines(answer.lines, key)
        lines = fields.incoming(passed, own_cors=bool(route.api.allowed_origins))
        relay.carry(answer, self._with_ours(exchange, route, lines))
        exchange.outcome = relay.outcome or await relay.done

    def _asks_for_stream(self, exchange: Exchange, route: Route) -> bool:
        exchange.model, streamed = exchange.facts
        return streamed or route.stream or sniff.expects_stream(route.query, exchange.request.lines)

    def _deadline(self, exchange: Exchange, route: Route) -> float | None:
        """When the whole answer is due, going by what was asked for so far."""
        timeouts = route.api.timeouts
        total = timeouts.stream if self._asks_for_stream(exchange, route) else timeouts.request
        return exchange.arrived + total if total else None

    def _with_ours(self, exchange: Exchange, route: Route, lines: list[bytes]) -> list[bytes]:
        """The fields that pass, and ours."""
        if route.api.allowed_origins:
            lines += cors.answer(exchange.request.lines, route.api.allowed_origins)
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


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "backslashreplace")[:256]


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 4 else 0
