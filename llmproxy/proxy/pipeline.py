"""The way of one request, from top to bottom."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from llmproxy import errors
from llmproxy.auth.authenticator import Authenticator, Session
from llmproxy.base.tracebacks import drop_frames
from llmproxy.base.ttl_cache import CacheEntry
from llmproxy.caching import CachedResponse, CacheLookup, CacheRequest, Fetch, ResponseCache, Subscriber
from llmproxy.config.model import Server
from llmproxy.config.routes import Route, Routes
from llmproxy.http import cors, credentials, error_body, fields
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.masking import mask_lines, replace_key
from llmproxy.model import Grant
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.background_body import discard
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.outgoing_fields import outgoing_lines
from llmproxy.proxy.own_response import as_proxy_error, refuse
from llmproxy.proxy.policy import Policy
from llmproxy.proxy.request_body import RequestBodies, affinity_hint, has_cacheable_body
from llmproxy.proxy.response_sender import ResponseSender
from llmproxy.upstream.delivery import Delivery, OutgoingRequest
from llmproxy.upstream.provider_keys import ProviderKey, ProviderKeys
from llmproxy.upstream.upstreams import HeadTimeouts, Upstream, Upstreams
from llmproxy.wire.client.transport import BytesBody, Response
from llmproxy.wire.relay import Relay

FirstAttempt = tuple[Response | errors.UpstreamFailure, Upstream]
SentOutcome = Response | BaseException | Deferred[Response | BaseException]


class Pipeline:
    """Takes a request to its provider and the response back.

    @ivar cache: What may respond instead of a provider; C{None} where nothing is cached.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        authenticator: Authenticator,
        policy: Policy,
        cache: ResponseCache | None,
        accounting: Accounting,
        provider_keys: ProviderKeys,
        upstreams: Upstreams,
        server: Server,
        clock: IReactorTime,
    ) -> None:
        """
        @param cache: What may respond instead of a provider; C{None} where nothing is cached.
        """
        self._routes = routes
        self._authenticator = authenticator
        self.policy = policy
        self.cache = cache
        self._accounting = accounting
        self._provider_keys = provider_keys
        self._upstreams = upstreams
        self._clock = clock
        self.bodies = RequestBodies(policy, server.max_request_bytes, clock, accounting.reading_turns)
        self.sender = ResponseSender(server, clock)

    def reconfigure(self, routes: Routes) -> None:
        """Find other APIs and endpoints from now on; requests under way go on with what they have found."""
        self._routes = routes

    def is_followed(self, route: Route) -> bool:
        """Whether this route belongs to the settings in force: a reload makes every API anew."""
        return self._routes.apis.get(route.api_name) is route.api

    @property
    def shutting_down(self) -> bool:
        """Whether what is cut from now on is cut by this process, because it ends."""
        return self._accounting.shutting_down

    def shut_down(self) -> None:
        """The process ends."""
        self._accounting.shutting_down = True

    async def serve(self, context: RequestContext) -> None:
        """Serve a request, from its first byte to its last record: whatever happens, it is responded to where somebody
        waits for that, settled, and reported once. Never raises.
        """
        self._accounting.begin()
        try:
            await (self._refetch(context) if context.background else self.handle(context))
        except Exception as e:  # everything ends here, a cancelled wait included
            self._refuse(context, e)
            drop_frames(e)
        if not context.background:
            context.request.on_gone = None  # it holds the context, which holds the request: the collector's work
        await self._accounting.finish(context)

    async def handle(self, context: RequestContext) -> None:
        """Take the whole way. Whatever refuses the request raises; a body under way ends as its relay reports."""
        self._accounting.check_buffers()
        request, lines = context.request, context.request.lines
        if self._respond_without_token(context):
            return
        context.route = route = self._routes.match(request.method, request.uri)
        taken = self._strip(context)
        context.session = session = await self._authenticate(context, taken.token)
        context.grant = grant = session.grant
        await self.policy.check(grant, route, lines, context.client, context.request_id)
        context.route = route = route.with_query(taken.query)
        self._accounting.classify(context)

        cache, lines = self.cache, taken.lines
        cacheable = None if cache is None else cache.request_for(route, grant, request.method, lines)
        await self.bodies.prepare(context, cacheable)
        context.authorized_at = self._clock.seconds()
        if cache is not None and cacheable is not None and has_cacheable_body(context):
            await self._through_cache(context, cache, cacheable)
            return
        if cache is not None and cache.forbids_calls(lines):
            context.cache = "bypass"
            raise errors.NotInCache

        response, key = await self._call_upstream(context, lines)
        await self.sender.relay(context, response, key)

    def start(self, context: RequestContext, serving: Coroutine[Any, Any, None]) -> None:
        """Run this for a request whose client may leave before it is over."""
        running = Deferred.fromCoroutine(serving)
        if not running.called:
            context.request.on_gone = partial(self._client_left, context, running)

    def _client_left(self, context: RequestContext, running: Deferred[None]) -> None:
        """A client that leaves ends whatever its request is waiting for, but a provider that is to be heard out."""
        context.client_left = not self.shutting_down
        relay = context.relay
        if isinstance(relay, Relay) and relay.drains:
            relay.stopProducing()
        else:
            running.cancel()

    # Requests of the fast path

    def may_be_cached(self, context: RequestContext) -> bool:
        """Whether the cache has something to do with requests that have this head."""
        route, grant, lines, cache = context.route, context.grant, context.lines, self.cache
        if cache is None or route is None or grant is None or lines is None:
            return False
        return cache.request_for(route, grant, context.request.method, FieldLines.of(lines)) is not None

    def key_entry(
        self, grant: Grant, route: Route, keys: Sequence[ProviderKey]
    ) -> CacheEntry[tuple[ProviderKey, ...]] | None:
        """Until when these are the keys that requests with this grant are sent with; C{None} where they are not."""
        entry = self._provider_keys.entry(grant.project_id, route.api_name)
        return entry if entry is not None and entry.value is keys else None

    async def resume(
        self, context: RequestContext, outcome: SentOutcome, at: Upstream | None, lookup: CacheLookup | None = None
    ) -> None:
        """Serve the rest of a request that was sent by the fast path: as L{serve} does from the response's head on.

        @param outcome: What came of it: a response of which nothing has been read yet, or why there is none.
        @param at: Where it was sent; C{None} where it was not.
        @param lookup: How it deals with the cache, which has had nothing for it; C{None} where it does not.
        """
        try:
            call, cache = partial(self._resumed_call, context, outcome, at), self.cache
            if lookup is not None and cache is not None:
                context.cache, context.lookup = "miss", lookup
                await self._serve_lookup(context, cache, lookup, call)
            else:
                response, key = await call(())
                await self.sender.relay(context, response, key)
        except Exception as e:
            self._refuse(context, e)
            drop_frames(e)
        context.request.on_gone = None
        await self._accounting.finish(context)

    async def _resumed_call(
        self, context: RequestContext, outcome: SentOutcome, at: Upstream | None, _: Sequence[bytes]
    ) -> tuple[Response, bytes]:
        """As L{_call_upstream}, of a call that has been made."""
        if isinstance(outcome, Deferred):
            outcome = await outcome
        if at is None or not isinstance(outcome, Response | errors.UpstreamFailure):
            raise outcome if isinstance(outcome, BaseException) else errors.InternalError()
        self._strip(context)
        response = await self._send(context, (outcome, at))
        self.receive(context, response, response.came_at or self._clock.seconds())
        assert context.provider_key is not None
        return response, context.provider_key.value

    # The steps

    def _respond_without_token(self, context: RequestContext) -> bool:
        """Respond to a browser's preflight, and to C{HEAD} on an API's root; C{False} for what takes the whole way."""
        request = context.request
        if request.method == b"OPTIONS" and (preflight := self._preflight(context)) is not None:
            code, phrase, lines = 204, b"No Content", preflight
        elif fields.asks_for_websocket(request.lines):
            raise errors.UpgradeRequired
        elif request.method == b"HEAD" and self._routes.is_root(request.uri):
            code, phrase, lines = 200, b"OK", [b"X-Request-ID: " + context.request_id.encode()]
        else:
            return False
        request.begin(code, phrase, lines, 0)
        request.finish()
        context.status, context.outcome = code, "complete"
        return True

    def _preflight(self, context: RequestContext) -> list[bytes] | None:
        """A browser's question before the real request; it carries no token (Fetch, section 3.2.2)."""
        lines = context.request.lines
        if fields.value(lines, b"access-control-request-method") is None:
            return None
        context.route = route = self._routes.preflight(context.request.uri)
        if not route.api.allowed_origins:
            return None
        return cors.preflight(lines, route.api.allowed_origins, route.api.allowed_methods)

    async def _authenticate(self, context: RequestContext, token: str | None) -> Session:
        if token is None:
            raise errors.MissingToken
        try:
            return await self._authenticator.authenticate(token, context.client)
        except errors.TokenInactive as e:
            await self.policy.audit_revoked(e, context.client, context.request_id)
            raise

    async def _call_upstream(self, context: RequestContext, lines: list[bytes]) -> tuple[Response, bytes]:
        """Charge for the call and make it: the head of the provider's response, and the key that it was sent with.

        @param lines: The field lines to be sent, without credentials.
        """
        route, grant = context.route, context.grant
        assert route is not None and grant is not None
        await self._accounting.open(context)
        keys = self._provider_keys.get_cached(grant.project_id, route.api_name)
        if keys is None:
            keys = await self._provider_keys.look_up(grant.project_id, route.api_name, route.auth)
        context.provider_keys, context.lines = keys, lines  # the cache may have changed them
        if context.body is context.request.upload and self._upstreams.of(route.api_name).may_replay(keys):
            await self.bodies.hold(context)
        await self._accounting.admit(context)
        context.request_sent = True
        response = await self._send(context)
        self.receive(context, response, self._clock.seconds())
        assert context.provider_key is not None
        return response, context.provider_key.value

    def _strip(self, context: RequestContext) -> credentials.StrippedHead:
        """Take the client's credentials out of the head; whatever is left is sent."""
        route, request = context.route, context.request
        assert route is not None
        taken = credentials.strip(request.lines, route.query, route.api.query_key, route.api.forward_cookies)
        context.lines = taken.lines
        return taken

    async def _send(self, context: RequestContext, first: FirstAttempt | None = None) -> Response:
        """Send what has been charged for.

        @param first: What came of the first attempt, where that has been made already, and at which upstream.
        """
        route, grant, keys = context.route, context.grant, context.provider_keys
        assert route is not None and grant is not None and keys is not None
        group, hint, body = self._upstreams.of(route.api_name), b"", context.body
        if route.api.balance == "affinity":
            begins = body.received if isinstance(body, BytesBody) else b""
            hint = affinity_hint(route.api, grant.project_id, context.request.lines, begins)
        request = OutgoingRequest(
            route,
            grant.project_id,
            context.request.method,
            keys,
            partial(self._outgoing_lines, context),
            body,
            context.request.upload,
            partial(self.head_timeouts, context),
            hint,
        )
        context.delivery = delivery = Delivery(self._upstreams, group, self._clock, request)
        try:
            if first is None:
                return await delivery.send()
            assert context.provider_key is not None
            return await delivery.resume(*first, context.provider_key, context.upstream_started or context.arrived_at)
        except errors.ProxyError as e:
            if nothing_sent(e) and not delivery.reached:
                self._accounting.nothing_sent(context)
            raise

    def _outgoing_lines(self, context: RequestContext, upstream: Upstream, key: ProviderKey) -> list[bytes]:
        """The field lines of an attempt, which begins."""
        context.provider_key = key
        context.upstream_started = self._clock.seconds()
        client = context.client if context.route is not None and context.route.api.forward_client_ip else ""
        return outgoing_lines(context, upstream, key, is_uncoded=context.usage_injected, client=client)

    def receive(self, context: RequestContext, response: Response, now: float) -> None:
        """The head of the response has come: take the provider's key out of it, and read in the body what was used."""
        key, route, grant, request = context.provider_key, context.route, context.grant, context.request
        assert key is not None and route is not None and grant is not None
        context.response = response
        context.first_byte_at = now
        response.lines = mask_lines(response.lines, key.value)
        response.phrase = replace_key(response.phrase, key.value)
        if self.cache is not None:
            self.cache.invalidate(route, grant, request.method, request.lines, response)
            context.cache = "bypass"  # unless there is a lookup, which knows better
        self._accounting.watch(context, response)

    def head_timeouts(self, context: RequestContext) -> HeadTimeouts:
        """How long the response's head may take, going by what is known of the request so far."""
        assert context.route is not None
        timeouts, streams = context.route.api.timeouts, context.expects_stream
        total = timeouts.stream if streams else timeouts.request
        return HeadTimeouts(timeouts.response_header if streams else 0.0, context.arrived_at + total if total else None)

    async def _through_cache(self, context: RequestContext, cache: ResponseCache, request: CacheRequest) -> None:
        """Respond from the cache, or from the provider by way of it."""
        assert context.route is not None
        context.cache = "miss"
        body = context.body.received if isinstance(context.body, BytesBody) else b""
        lookup = context.lookup = await cache.lookup(cache.with_key(request, context.route.target, body))
        if lookup.refresh is not None:  # the proxy's own request, to replace the stale response that is now sent
            cache.run_in_background(self.serve(context.background_copy(lookup.refresh, self._clock.seconds())))
        await self._serve_lookup(context, cache, lookup, partial(self._call_upstream, context))

    async def _serve_lookup(
        self, context: RequestContext, cache: ResponseCache, lookup: CacheLookup, call: Fetch
    ) -> None:
        """Respond with what the cache has found, or with what comes of a call, if there is none that can be joined."""
        assert context.session is not None
        response, key = lookup.hit or await cache.collapse(lookup, call)
        if lookup.outcome.saves_a_call:
            context.session.count_cache_hit()
        if isinstance(response, CachedResponse) and response.fits_one_write:
            self.sender.send_cached(context, response)
            return
        await self.sender.relay(context, response, key)
        await lookup.wait_closed()

    async def _refetch(self, context: RequestContext) -> None:
        """What L{handle} is to a client's request: nobody waits for the response but the cache."""
        lookup = context.lookup
        assert self.cache is not None and lookup is not None
        response = (await self.cache.collapse(lookup, partial(self._call_upstream, context))).response
        context.status, context.outcome = response.code, "complete"
        if isinstance(response, Response):
            response.stopProducing()
        elif isinstance(response, Subscriber):
            ended = await discard(context, response, self._clock)
            context.outcome, context.error = self._accounting.end_of(ended, left=False)
            if ended != "cancelled":
                await lookup.wait_closed()

    def _refuse(self, context: RequestContext, error: Exception) -> None:
        """Turn the error into the response, where somebody waits for one and has none yet."""
        request, begun = context.request, context.request.begun
        if context.background:
            reported = None if isinstance(error, CancelledError) else as_proxy_error(error, context.request_id)
        elif request.gone or isinstance(error, errors.ClientGone):
            reported = None
        else:
            reported = refuse(request, error, self._flavour(context), context.request_id, _cors_lines(context))
        if reported is None:
            context.outcome = "cancelled"
            return
        context.error = reported.code
        context.outcome = "failed" if reported.status >= 500 or context.background else "refused"
        if context.background or not begun:
            context.status = reported.status

    def _flavour(self, context: RequestContext) -> str:
        """In which shape the API's clients expect errors."""
        api = context.route.api if context.route else self._routes.api_of(context.request.uri)
        return "auto" if api is None else error_body.error_format_of(api)


def _cors_lines(context: RequestContext) -> list[bytes]:
    """A browser shows its page what went wrong only if the error's response says that it may."""
    if context.route is None or not context.route.api.allowed_origins:
        return []
    return cors.response_lines(context.request.lines, context.route.api.allowed_origins)


def nothing_sent(error: errors.ProxyError) -> bool:
    """Whether not one byte of the request has reached the provider."""
    held_back = isinstance(error, errors.CircuitOpen | errors.UpstreamBusy | errors.UpstreamDisabled)
    return held_back or (isinstance(error, errors.UpstreamFailure) and error.nothing_sent)
