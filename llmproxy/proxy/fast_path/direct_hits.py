"""Responses of the cache to direct requests."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from llmproxy.brief_record import ROUNDING, BriefRecord, RecordFigures, RecordKind
from llmproxy.caching import CacheRequest, LocalHit
from llmproxy.ledger.records import FinishedRequest
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.direct_records import kind_of_hit
from llmproxy.proxy.fast_path.flow import CacheableHead, FilledHead, FlowTable, KnownHead, RepeatedRequest
from llmproxy.proxy.fast_path.preparation import request_facts
from llmproxy.proxy.fast_path.request_identity import RequestIdentity, request_id
from llmproxy.proxy.hit_response import hit_template
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.server.direct import DirectChannel

MAX_KEPT_REQUEST_BYTES = 2048  # of a longer one its digest is kept
MAX_KEPT_HEAD_BYTES = 4096  # one with a longer head is not kept: its flow is, for as long as it is
MAX_KEPT_TEMPLATE_BYTES = 4096  # a request whose response has a longer head is not kept
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class ReadRequest(NamedTuple):
    """A request that the cache may respond to, whose head is known, and whose body has been read.

    @ivar filled: What stands in the holes of its head; C{None} where that is the length of its body alone.
    @ivar model: The model that it asks for.
    @ivar started_at: When its head came, in seconds since the epoch; C{arrived_at}: by the clock.
    """

    channel: DirectChannel
    known: KnownHead
    filled: FilledHead | None
    body: bytes
    model: str
    started_at: float
    arrived_at: float


class DirectHits:
    """Sends what the cache has, where it will do as it is.

    @ivar served: How often it did.
    """

    def __init__(
        self,
        table: FlowTable,
        pipeline: Pipeline,
        accounting: Accounting,
        clock: IReactorTime,
        identity: RequestIdentity,
    ) -> None:
        self.served = 0
        self._repeated = table.repeated
        self._cache = pipeline.cache
        self._debug_headers = pipeline.sender.debug_headers
        self._accounting = accounting
        self._report = accounting.report
        self._seconds = clock.seconds
        self._identity = identity
        self._fresh_id = identity.fresh_id

    def repeat(
        self, channel: DirectChannel, data: bytes, started_at: float, arrived_at: float, authorized: float
    ) -> bool:
        """Send what the cache has for a request that has come before, just as it is; C{False}: nothing was done.

        @param data: All of it.
        @param authorized: Until when it has waited for its body, by the clock; else as in L{ReadRequest}.
        """
        again = self._repeated.get(data if len(data) <= MAX_KEPT_REQUEST_BYTES else sha256(data).hexdigest())
        if again is None:
            return False
        known, cache, accounting = again.known, self._cache, self._accounting
        prepared, buffers = known.prepared, accounting.buffers
        assert prepared is not None and cache is not None
        expires_at = prepared.expires_at
        if (
            not known.current
            or authorized >= prepared.grant.until
            or (expires_at is not None and self._identity.now() >= expires_at)
            or accounting.shutting_down
            or (buffers is not None and buffers.held >= buffers.limit)
            or not channel.persistent
        ):
            return False
        hit = cache.hit_again(again.hit, authorized)
        if hit is None:
            return False
        known.used = True
        kind = again.kind
        if kind is None or channel.remote != again.remote:
            kind = self._kind(channel, known, again.filled, again.model, stream=hit.entry.stream)
            again.remote, again.kind = channel.remote, kind if kind.is_kept else None
        own_id, size = self._fresh_id(), again.body_bytes
        self._send(channel, known, own_id, hit, again.template, kind, size, started_at, arrived_at, authorized)
        return True

    def serve(self, read: ReadRequest, cacheable: CacheableHead) -> CacheRequest | None:
        """Send what the cache has for a body that has been read, and checked; where it has nothing that will do, what
        it was asked for, and nothing else was done."""
        channel, known, filled, body, model, started_at, arrived_at = read
        cache, prepared = self._cache, known.prepared
        assert cache is not None and prepared is not None
        authorized = self._seconds()
        request = cacheable.request if filled is None else cacheable.fill(filled.holes)
        request = cache.with_key(request, known.flow.route.target, body)
        hit = cache.hit_now(request)
        if hit is None:
            return request
        own_lines = b"".join([line + b"\r\n" for line in prepared.cors_lines])
        template = hit_template(hit, own_lines, debug_headers=self._debug_headers, persistent=channel.persistent)
        if known.may_repeat and hit.reason == "fresh" and channel.persistent:
            self._remember(read, request, hit, template)
        kind = self._kind(channel, known, filled, model, stream=hit.entry.stream)
        own_id = request_id(known.lines(filled), self._identity) if prepared.has_own_id else self._fresh_id()
        self._send(channel, known, own_id, hit, template, kind, len(body), started_at, arrived_at, authorized)
        return None

    def _remember(self, read: ReadRequest, request: CacheRequest, hit: LocalHit, template: bytes) -> None:
        """Know the request again, where that alone tells which response it gets."""
        known, filled, body = read.known, read.filled, read.body
        assert self._cache is not None and known.text is not None
        repeatable = self._cache.repeatable(request, hit)
        data = known.text.with_body(None if filled is None else filled.holes, body)
        fits = len(data) - len(body) <= MAX_KEPT_HEAD_BYTES and len(template) <= MAX_KEPT_TEMPLATE_BYTES
        if repeatable is not None and fits:
            # A text, where it is a digest: no bytes that a client sends are equal to that.
            key = data if len(data) <= MAX_KEPT_REQUEST_BYTES else sha256(data).hexdigest()
            self._repeated[key] = RepeatedRequest(known, filled, len(body), read.model, repeatable, template)
            known.repeats = True

    def _kind(
        self, channel: DirectChannel, known: KnownHead, filled: FilledHead | None, model: str, *, stream: bool
    ) -> RecordKind:
        """What is recorded of it that is no figure."""
        prepared, identity, accounting, client = known.prepared, self._identity, self._accounting, channel.remote
        assert prepared is not None
        if identity.believes_proxies:
            client = identity.client(client, known.lines(filled))
        facts = prepared.facts or request_facts(filled, known, prepared, accounting)
        return kind_of_hit(known, model, client, facts, accounting.kinds, stream=stream)

    def _send(
        self,
        channel: DirectChannel,
        known: KnownHead,
        own_id: str,
        hit: LocalHit,
        template: bytes,
        kind: RecordKind,
        body_bytes: int,
        started_at: float,
        arrived: float,
        authorized: float,
    ) -> None:
        """Send it, and account for it."""
        entry, age, _, ttl = hit
        body = entry.body
        known.flow.session.count_cache_hit()
        now = self._seconds()
        if self._debug_headers:
            auth, proxy = (authorized - arrived) * 1000, (now - authorized) * 1000
            reply = template % (age, own_id.encode(), ttl, auth, proxy, body)
        else:
            reply = template % (age, own_id.encode(), body)
        channel.write_final(reply, always_wait=False)
        channel.request_done()
        self.served += 1
        duration = ((now - arrived) * 1e6 + ROUNDING - ROUNDING) / 1e6  # to the microsecond
        figures = RecordFigures(duration, body_bytes, len(body), 0.0, 0.0, 0, 0, 0, 0, 0)
        record = BriefRecord(kind, own_id, started_at, figures)
        self._report(_new(FinishedRequest, (record, "", True, None, None)))
