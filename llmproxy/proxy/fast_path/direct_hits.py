"""Responses of the cache to direct requests."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from llmproxy.caching import CachedResponse
from llmproxy.http.field_lines import FieldLines
from llmproxy.metering.meter import NO_USAGE
from llmproxy.model import RequestRecord
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.flow import CacheableHead, KnownHead, RequestFacts
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.body_framing import LAST_CHUNK, chunk
from llmproxy.wire.server.direct import DirectChannel


class HitRequest(NamedTuple):
    """A direct request that the cache may respond to.

    @ivar lines: Its field lines; C{model}: the one that it asks for; C{arrived}: when, by the clock.
    """

    known: KnownHead
    lines: FieldLines
    body: bytes
    model: str
    request_id: str
    client: str
    started_at: float
    arrived: float
    path: str
    facts: RequestFacts


class DirectHits:
    """Sends what the cache has, where it will do as it is.

    @ivar served: How often it did.
    """

    def __init__(self, pipeline: Pipeline, accounting: Accounting, clock: IReactorTime) -> None:
        self.served = 0
        self._pipeline = pipeline
        self._accounting = accounting
        self._clock = clock

    def serve(self, channel: DirectChannel, way: CacheableHead, request: HitRequest) -> bool:
        """Send it; C{False}: nothing was done."""
        cache, known, authorized = self._pipeline.cache, request.known, self._clock.seconds()
        if cache is None:
            return False
        asked = way.fill(known.holes(request.lines)) if way.filled else way.request
        lookup = cache.hit_now(cache.with_key(asked, known.flow.route.target, request.body))
        if lookup is None or lookup.hit is None or not isinstance(lookup.hit.response, CachedResponse):
            return False
        cached, outcome = lookup.hit.response, lookup.outcome
        length, body = cached.length, cached.body
        if cached.code != 200 or length not in (None, cached.count):
            return False
        self._accounting.begin()
        known.flow.session.count_cache_hit()
        out = self._pipeline.sender.hit_lines(cached, request.request_id, outcome, request.arrived, authorized)
        if length is None:
            out.append(b"Transfer-Encoding: chunked")
            body = b"%b%b" % (chunk(body), LAST_CHUNK) if body else LAST_CHUNK
        else:
            out.append(b"Content-Length: %d" % length)
        if not channel.persistent:
            out.append(b"Connection: close")
        reply = b"HTTP/1.1 200 %b\r\n%b\r\n\r\n%b" % (cached.phrase, b"\r\n".join(out), body)
        channel.write_final(reply, always_wait=False)
        channel.request_done()
        self.served += 1
        self._accounting.conclude(self._record(request, cached, outcome.status), "", None, None)
        return True

    def _record(self, request: HitRequest, cached: CachedResponse, status: str) -> RequestRecord:
        known, facts = request.known, request.facts
        route, grant = known.flow.route, known.flow.session.grant
        return RequestRecord(
            request_id=request.request_id,
            started_at=request.started_at,
            duration=round(self._clock.seconds() - request.arrived, 6),
            method="POST",
            path=request.path,
            status=200,
            outcome="complete",
            api=route.api_name,
            endpoint=route.endpoint,
            project_id=grant.project_id,
            token_id=grant.token_id,
            model=request.model,
            stream=cached.entry.stream,
            bytes_in=len(request.body),
            bytes_out=cached.count,
            cache=status,
            client=request.client,
            user_agent=facts.user_agent,
            sdk_retry=facts.sdk_retry,
            basis=NO_USAGE.basis,
            attribution=facts.attribution,
        )
