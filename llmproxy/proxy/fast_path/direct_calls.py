"""Sends direct requests to their providers, once their limits admit them: under load those of a turn together."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxy import errors
from llmproxy.http import fields
from llmproxy.limits.limiter import LimitReservation, RequestSize
from llmproxy.limits.plan import LimitPlan
from llmproxy.metering.estimating import BYTES_PER_TOKEN
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.fallback import DirectFallback
from llmproxy.proxy.fast_path.flow import FlowTable
from llmproxy.proxy.fast_path.head_deadlines import HeadDeadlines
from llmproxy.proxy.fast_path.next_hop import NextHop, choose
from llmproxy.proxy.fast_path.preparation import request_facts
from llmproxy.proxy.fast_path.prepared_flow import PreparedSending
from llmproxy.proxy.fast_path.request_identity import RequestIdentity, names_of
from llmproxy.proxy.request_body import affinity_hint
from llmproxy.wire.client.request_writer import MAX_JOINED_BYTES, BytesBody

_JOINED = BytesBody(b"")  # stands for the body that is sent together with its head
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes
_log = Logger()


class DirectCalls:
    """Asks the limits of direct requests, and sends them: one step for all that have come in a turn, then the next.

    To the processor each step is a short loop then, of which it remembers where it goes: that saves an eighth of the
    time. They join the reports and not what is written: what is sent a moment later is answered in one piece more
    often, and that saves more than the moment costs.
    """

    def __init__(
        self,
        table: FlowTable,
        accounting: Accounting,
        fallback: DirectFallback,
        clock: IReactorTime,
        identity: RequestIdentity,
        deadlines: HeadDeadlines,
    ) -> None:
        self._table = table
        self._is_good = table.is_good
        self._accounting = accounting
        self._reserve = accounting.limiter.reserve
        self._join = accounting.join
        self._fallback = fallback
        self._seconds = clock.seconds
        self._identity = identity
        self._now = identity.now
        self._deadlines = deadlines
        self._read: list[DirectRequest] = []

    def add(self, request: DirectRequest) -> None:
        """One that has been read, and that its connection has begun with: send it before the turn is over, or have it
        refused or served by the pipeline."""
        read = self._read
        read.append(request)
        if len(read) == 1 and not self._join(self._go_on, False):
            self._go_on()

    def _go_on(self) -> None:
        read, self._read = self._read, []
        admitted = []
        for request in read:
            try:
                limits = request.known.flow.limits
                if not request.gone and (limits is None or self._admits(request, limits)):
                    admitted.append(request)
            except Exception:
                self._end(request)
        self._send_all(admitted)

    def _send_all(self, requests: Iterable[DirectRequest]) -> None:
        for request in requests:
            try:
                if not request.gone and not self._sends(request):
                    self._undecided(request)
            except errors.ProxyError:
                self._undecided(request)  # the pipeline says so in its own way
            except Exception:
                self._end(request)

    def _end(self, request: DirectRequest) -> None:
        """One that has failed takes none of the others with it, and does not wait for ever."""
        _log.failure("A request could not be sent.")
        request.channel.abortConnection()

    # Limits

    def _admits(self, request: DirectRequest, limits: LimitPlan) -> bool:
        """Whether its limits admit it now; else it has been told what becomes of it, or will be."""
        known, now = request.known, self._seconds()
        prepared, flow, content = known.prepared, known.flow, request.read
        assert prepared is not None and prepared.sending is not None and content is not None
        is_good, sole = self._is_good(known, now, self._now), prepared.sending.sole
        if not is_good or self._accounting.shutting_down or not (sole is None or sole.pool.sends_at_once()):
            self._undecided(request)
            return False
        asked = _new(RequestSize, (known.method, request.model, content, len(request.received)))
        try:
            reserved = self._reserve(limits, flow.route, asked)
        except errors.ProxyError as e:
            request.waits_since = now
            self.refuse(request, e)
            return False
        if isinstance(reserved, LimitReservation):
            request.reservation = reserved
            return True
        request.waits_since, request.pending = now, reserved
        reserved.then(request.admit, request.refuse)
        return False

    def admit(self, request: DirectRequest, reservation: LimitReservation) -> None:
        """Limits that are counted elsewhere, in Redis or by the supervisor of several workers, admit it."""
        request.pending, request.reservation = None, reservation
        self._send_all((request,))

    def refuse(self, request: DirectRequest, error: BaseException) -> None:
        """Its limits do not admit it: nobody is to ask them, and to count that, once more."""
        request.pending = None
        request.release()
        try:
            self._fallback.take_refused(request, *names_of(request, self._identity), error)
        except Exception:
            self._end(request)

    def abandon(self, request: DirectRequest, reason: Failure) -> None:
        """Its client has not waited. What is reserved for it all the same is given back by who counts."""
        pending, request.pending = request.pending, None
        if pending is not None:
            pending.cancel()
        self._give_back(request)
        request.release()
        self._fallback.take_left(request, *names_of(request, self._identity), reason)

    def leave(self, request: DirectRequest) -> None:
        """Others wait for its response too, before it was sent: the pipeline decides on it."""
        pending, request.pending = request.pending, None
        if pending is not None:
            pending.cancel()
        request.gone = True  # for whoever has it in hand
        self._undecided(request)

    def _undecided(self, request: DirectRequest) -> None:
        """It cannot be sent at once: the pipeline decides on it."""
        try:
            self._give_back(request)
            request.release()
            self._fallback.take_undecided(request, *names_of(request, self._identity))
        except Exception:
            self._end(request)

    def _give_back(self, request: DirectRequest) -> None:
        reservation, request.reservation = request.reservation, None
        if reservation is not None:
            reservation.give_back()

    # Sending

    def _sends(self, request: DirectRequest) -> bool:
        """Send it, where nothing has changed that its flow was made from, and nothing has to be waited for."""
        accounting, identity, known, filled = self._accounting, self._identity, request.known, request.filled
        now, prepared, reservation, since = self._seconds(), known.prepared, request.reservation, request.waits_since
        assert prepared is not None and prepared.sending is not None
        sending = prepared.sending
        hop, slots, uses = sending.sole, sending.slots, sending.uses
        # Whether it may be sent
        is_looked_at = reservation is not None and not since  # just before it got its limits
        if not is_looked_at and (accounting.shutting_down or not self._is_good(known, now, self._now)):
            return False
        if slots.taken >= slots.most:
            return False
        if hop is None:
            hop = self._chosen(request, sending, now)
            if hop is None:
                return False
        attempt = hop.begin(sending.common[0])
        if attempt is None:
            return False
        if uses is None:
            uses = known.flow.session.use_known()
            if uses is None:
                return False
        # What it is
        begin, open_line, fresh_id = accounting.begin, accounting.open_alike, identity.fresh_id  # no methods
        body, model, channel = request.whole, request.model, request.channel
        size = len(request.received)
        request.authorized_at, request.sent_at = since or now, now
        request.attempt, request.slot, request.hop = attempt, slots, hop
        expects_stream = request.expects_stream
        client = channel.remote
        request.client = identity.client(client, known.lines(filled)) if identity.believes_proxies else client
        request.facts = facts = prepared.facts or request_facts(filled, known, prepared, accounting)
        own_id = fields.request_id(known.lines(filled)) if prepared.has_own_id else None
        request.request_id = called = fresh_id() if own_id is None else own_id.decode("ascii")
        # Its line in the ledger
        alike = sending.openings.get(model) or sending.opening(model)
        estimated = -(-size // BYTES_PER_TOKEN) if prepared.estimates_input else 0
        request.ledger_id = open_line(
            alike, request.started_at, called, size, estimated, uses, facts.attribution, own_id is None
        )
        # Its bytes
        outgoing = hop.outgoing
        if request.usage_injected:
            assert hop.uncoded is not None
            outgoing, size = hop.uncoded, len(body)
        request.body = _JOINED if size < MAX_JOINED_BYTES else BytesBody(body)
        if outgoing.start:
            request.head = b"%b%d\r\n\r\n" % (outgoing.start, size)
        else:
            request.head = outgoing.render(() if filled is None else filled.holes, size, request.client)
        if sending.group.causes:
            sending.group.budget.deposit(now)
        slots.taken += 1  # not sooner: nobody would give it back where something fails before
        hop.enter()
        request.waits = False
        begin()
        if expects_stream:
            due = min(request.arrived_at + prepared.stream_total, now + prepared.header_timeout)
        else:
            due = request.arrived_at + prepared.total
        self._deadlines.watch(request, due)
        hop.pool.send(request)
        return True

    def _chosen(self, request: DirectRequest, sending: PreparedSending, now: float) -> NextHop | None:
        """Where it goes, of several hops."""
        known, body = request.known, request.whole
        if any(hop.state.is_retired for hop in sending.hops):
            self._table.drop(known)
            return None
        api, project_id, hint = sending.group.api, sending.common[0], b""
        if api.balance == "affinity":
            hint = affinity_hint(api, project_id, request.lines, body)
        return choose(sending.hops, api, project_id, hint, now)
