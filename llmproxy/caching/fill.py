"""Fills the cache: calls the provider, does what the rules decide, and shares the response with all who wait for it."""

from __future__ import annotations

from dataclasses import replace

from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxy import errors
from llmproxy.base.tracebacks import drop_frames
from llmproxy.caching.broadcast import Broadcast, DiscardBody
from llmproxy.caching.collapsing import CollapsedRequest
from llmproxy.caching.lookup import CacheLookup, CacheResult, Fetch
from llmproxy.caching.rules import reuse, streams
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.request import CacheRequest
from llmproxy.caching.rules.response import PassThrough, Refreshed, ServeStale, StoreResponse, on_failure, on_response
from llmproxy.caching.rules.storing import ReceivedHead
from llmproxy.caching.rules.vary import selecting_fields
from llmproxy.caching.state import CacheState
from llmproxy.http.content_coding import decode_whole
from llmproxy.http.masking import KeyFilter, Mask, content_coding, mask_plan
from llmproxy.wire.client.response import Response

MAX_DECODED_BYTES = 4 * 1024 * 1024  # of a coded body; one that is longer is not stored
# Failures that those who have joined need not find out for themselves.
_UPSTREAM_FAILURES = (errors.UpstreamFailure, errors.CircuitOpen)


class CacheFill:
    """One call to a provider on behalf of a lookup, and of all lookups that have joined it."""

    _broadcast: Broadcast
    _entry: Entry
    _began_at: float
    _grown_at: float  # when something of its body came last
    _is_joinable = True
    _secret = b""

    def __init__(
        self, lookup: CacheLookup, call: CollapsedRequest[CacheLookup, CacheResult], state: CacheState
    ) -> None:
        self._lookup = lookup
        self._request = lookup.request
        self._call = call
        self._state = state

    async def run(self, fetch: Fetch) -> None:
        """Make the call. Never raises: those who wait are told."""
        state, stored = self._state, self._lookup.stored
        self._began_at = request_time = state.now()
        try:
            response, self._secret = await fetch(self._lookup.outgoing_lines())
            now = state.now()
            length = None if response.length == UNKNOWN_LENGTH else int(response.length)
            head = ReceivedHead(response.code, response.phrase, response.lines, request_time, now, state.wall(), length)
            match on_response(self._request, stored, head, now):
                case StoreResponse(entry):
                    self._share(response, entry)
                case PassThrough(reason, invalidates):
                    self._pass_through(response, reason, invalidates=invalidates)
                case Refreshed(entry, store):
                    response.deliverBody(DiscardBody())  # there is none, but its connection may be used again
                    self._refreshed(entry, store=store)
                case ServeStale(entry):
                    response.stopProducing()
                    self._serve(entry, "stale", "stale-if-error")
        except Exception as e:  # told to those who wait, a cancelled wait included
            self._failed(e)
            drop_frames(e)

    def _failed(self, error: Exception) -> None:
        upstream = isinstance(error, _UPSTREAM_FAILURES)
        stale = on_failure(self._request, self._lookup.stored, self._state.now()) if upstream else None
        if stale is not None:
            self._serve(stale.entry, "stale", "stale-if-error")
        else:
            self._call.fail(error, for_all=upstream)

    # What may come of it

    def _refreshed(self, entry: Entry, *, store: bool) -> None:
        if not store:
            self._state.storage.drop(self._request.key)
        elif self._call.storable:
            self._state.store(self._request, entry)
        self._serve(entry, "revalidated")

    def _serve(self, entry: Entry, status: str, reason: str = "") -> None:
        """Serve an entry to all for whom it will do."""

        def respond(waiter: CacheLookup) -> CacheResult | None:
            if waiter is self._lookup:
                return CacheResult(self._state.serve(waiter, entry, status, reason))
            if self._serves(waiter, entry, failing=reason != ""):
                return CacheResult(self._state.serve(waiter, entry, "coalesced"))
            return None

        self._call.settle(respond)

    def _pass_through(self, response: Response, reason: str, *, invalidates: bool) -> None:
        """It may not be shared: it is the leader's, and the others make calls of their own."""
        taken = False

        def respond(waiter: CacheLookup) -> CacheResult | None:
            nonlocal taken
            if waiter is not self._lookup:
                return None
            taken = True
            return CacheResult(response, self._secret)

        self._lookup.report("miss", reason)
        if invalidates:
            self._state.storage.drop(self._request.key)
        self._call.settle(respond)
        if not taken:
            response.stopProducing()

    def _share(self, response: Response, entry: Entry) -> None:
        """It goes to all who want it as it arrives, and is stored if it turns out to be complete."""
        self._entry, self._grown_at = entry, self._state.now()
        self._lookup.report("stored")
        lines, shared = list(response.lines), self._state.scope == "shared"
        coded = content_coding(lines) != b""
        self._is_joinable = not (shared and coded)  # in a shared one, nobody gets anything of another's key
        mask: KeyFilter | None = Mask(self._secret)
        if coded or not shared:
            mask = mask_plan(response.code, lines, self._secret, bytes, stream=entry.stream, whole=None).filter
        pace = self._state.pace if entry.stream else None
        self._broadcast = Broadcast(response, lines, mask, self, pace)
        self._call.share(self._subscribe, self._broadcast.begin)
        self._broadcast.moved()

    def _subscribe(self, waiter: CacheLookup) -> CacheResult | None:
        if waiter is self._lookup:
            return CacheResult(self._broadcast.subscriber())
        if self._is_late():
            self._call.forbid_storing()
            return None
        if not self._is_joinable or not self._serves(waiter, self._entry):
            return None
        waiter.report("coalesced")
        # Others get what they would if it were stored already: nothing that belongs to the one exchange.
        age = b"Age: %d" % self._entry.age(self._state.now())
        return CacheResult(self._broadcast.subscriber([*self._entry.lines, age]))

    def _is_late(self) -> bool:
        """Whether it takes longer than a client may have to wait for it: who joined would get half of it, and keep it
        going for the next one.
        """
        timeouts, now = self._request.policy.timeouts, self._state.now()
        stream = self._entry.stream
        total, idle = (timeouts.stream, timeouts.idle) if stream else (timeouts.request, 0.0)
        return 0.0 < total < now - self._began_at or 0.0 < idle < now - self._grown_at

    def _serves(self, waiter: CacheLookup, entry: Entry, *, failing: bool = False) -> bool:
        """Whether the response will do for another request than the one it was sent to, as if it had been stored
        before. It must have been selected by nothing that the two requests differ in.

        @param failing: The provider does not send a better one.
        """
        now, directives = self._state.now(), waiter.request.directives
        will_do = reuse.verdict(entry, directives, entry.age(now)) != "validate"
        if not will_do and not (failing and reuse.may_serve_stale(entry, directives, now)):
            return False
        ours, theirs = (selecting_fields(lines, entry.vary) for lines in (self._request.lines, waiter.request.lines))
        return ours == theirs

    # What the broadcast reports

    def grown(self, count: int) -> bool:
        self._grown_at = self._state.now()
        return self._call.hold(count)

    def closed(self) -> None:
        self._call.release()
        self._not_stored("too-large")

    def over(self, body: bytes | None) -> None:
        unfit = "cut" if body is None else "" if self._call.storable else "forgone"
        if body is None or (unfit := unfit or self._unfit(body)):
            self._not_stored(unfit)
            self._call.close()
            return
        entry = replace(self._entry, body=body, chunk_timings=tuple(self._broadcast.chunk_timings))
        self._call.complete()
        self._state.store(self._request, entry, self._call.close)  # until it is found there, others may join

    def _not_stored(self, reason: str) -> None:
        if self._lookup.outcome.status == "stored":
            self._lookup.report("miss", reason)

    def _unfit(self, body: bytes) -> str:
        coding = content_coding(self._broadcast.lines) if body else b""
        text = decode_whole(coding, body, MAX_DECODED_BYTES) if coding else body
        if text is None:
            return "unreadable-coding"
        if self._secret and self._secret in text:
            return "holds-a-secret"
        return _incomplete(self._request, self._entry, body)


def fill_at_once(state: CacheState, request: CacheRequest, head: ReceivedHead, body: bytes, *, storable: bool) -> str:
    """Fill the cache with a response that is there as a whole, holds no secret, and that nobody else waits for: as
    L{CacheFill} does. The cache is local, and nothing was stored for the request. Returns why it is not stored: one
    word, or C{""} where it is.
    """
    decision = on_response(request, None, head, head.response_time)
    if not isinstance(decision, StoreResponse):
        assert isinstance(decision, PassThrough)
        return decision.reason
    entry = decision.entry
    if not state.in_flight.may_hold(len(body)):
        return "too-large"
    unfit = _incomplete(request, entry, body) if storable else "forgone"
    if not unfit:
        timings = ((len(body), 0.0),) if entry.stream and state.pace is not None else ()
        state.store_now(request, replace(entry, body=body, chunk_timings=timings))
    return unfit


def _incomplete(request: CacheRequest, entry: Entry, body: bytes) -> str:
    complete = not entry.stream or streams.is_complete(request.policy.provider, body)
    return "" if complete else "stream-incomplete"
