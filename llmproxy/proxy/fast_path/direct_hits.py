"""Responses of the cache to direct requests."""

from __future__ import annotations

from hashlib import sha256

from twisted.internet.interfaces import IReactorTime

from llmproxy.caching import CacheRequest, LocalHit
from llmproxy.ledger.records import FinishedRequest
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.awaiting_limits import ReadRequest
from llmproxy.proxy.fast_path.direct_records import record_of_hit
from llmproxy.proxy.fast_path.flow import AnsweredRequest, CacheableHead, FilledHead, FlowTable, KnownHead
from llmproxy.proxy.fast_path.preparation import request_facts
from llmproxy.proxy.fast_path.request_identity import RequestIdentity, request_id
from llmproxy.proxy.hit_response import hit_response
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.wire.server.direct import DirectChannel

MAX_KEPT_BODY_BYTES = 1024
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


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
        self._answered = table.answered
        self._cache = pipeline.cache
        self._sender = pipeline.sender
        self._accounting = accounting
        self._seconds = clock.seconds
        self._identity = identity

    def serve_again(
        self,
        channel: DirectChannel,
        known: KnownHead,
        filled: FilledHead | None,
        body: bytes,
        started_at: float,
        arrived_at: float,
        authorized: float,
    ) -> bool:
        """Send what the cache has for a body that has come with this head before; C{False}: nothing was done.

        The parameters are as in L{ReadRequest}, and in L{_send}.
        """
        cache = self._cache
        if cache is None or not known.varies_in_length_alone:
            return False
        answered = self._answered.get(_key(known, body))
        if answered is None:
            return False
        request, model, same = answered
        hit = None if same is None else cache.hit_again(same)
        if hit is None:
            hit = cache.hit_now(request)
            if hit is None:
                return False
            self._remember(known, body, request, model, hit)
        read = _new(ReadRequest, (channel, known, filled, body, None, model, False, started_at, arrived_at))
        self._send(read, hit, authorized)
        return True

    def serve(self, read: ReadRequest) -> bool:
        """Send what the cache has for a body that has been read, and checked; C{False}: nothing was done."""
        known, body, filled, cache = read.known, read.body, read.filled, self._cache
        way = known.flow.way
        if cache is None or not isinstance(way, CacheableHead):
            return False
        authorized = self._seconds()
        request = way.request if filled is None else way.fill(filled.holes)
        request = cache.with_key(request, known.flow.route.target, body)
        hit = cache.hit_now(request)
        if hit is None:
            return False
        if known.varies_in_length_alone:
            self._remember(known, body, request, read.model, hit)
        self._send(read, hit, authorized)
        return True

    def _remember(self, known: KnownHead, body: bytes, request: CacheRequest, model: str, hit: LocalHit) -> None:
        assert self._cache is not None
        answered = AnsweredRequest(request, model, self._cache.repeatable(request, hit))
        self._answered[_key(known, body)] = answered

    def _send(self, read: ReadRequest, hit: LocalHit, authorized: float) -> None:
        """Send it, and account for it.

        @param authorized: When the request was let through, and looked up.
        """
        channel, known, filled, body, _, model, _, started_at, arrived = read
        prepared, identity, accounting, entry = known.prepared, self._identity, self._accounting, hit.entry
        assert prepared is not None
        own_id = request_id(known.lines(filled), identity) if prepared.has_own_id else identity.fresh_id()
        client = channel.remote
        if identity.believes_proxies:
            client = identity.client(client, known.lines(filled))
        facts = prepared.facts or request_facts(filled, known, prepared, accounting)
        known.flow.session.count_cache_hit()
        now = self._seconds()
        reply = hit_response(
            hit,
            own_id,
            (authorized - arrived) * 1000,
            (now - authorized) * 1000,
            debug_headers=self._sender.debug_headers,
            persistent=channel.persistent,
        )
        channel.write_final(reply, always_wait=False)
        channel.request_done()
        self.served += 1
        sizes = (len(body), len(entry.body))
        record = record_of_hit(
            known, own_id, started_at, now - arrived, sizes, model, client, facts, accounting.kinds, stream=entry.stream
        )
        accounting.report(_new(FinishedRequest, (record, "", True, None, None)))


def _key(known: KnownHead, body: bytes) -> tuple[KnownHead, bytes, int]:
    """What a request is found by again: a body that is short by itself, any other by its size and its SHA-256."""
    size = len(body)
    return (known, body, 0) if size <= MAX_KEPT_BODY_BYTES else (known, sha256(body).digest(), size)
