"""The event bus: takes finished requests to the sinks, without ever holding up a request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import Pause, deferred
from llmproxy.base.outage_log import OutageLog
from llmproxy.brief_record import BriefRecord, parts_of
from llmproxy.instruments import HealthCheck, Instrument
from llmproxy.interfaces import IEventBus, IEventSink, IHealthChecked, IInstrumented
from llmproxy.model import RequestRecord
from llmproxy.observability.append_file import failure_reason

Scrub = Callable[[RequestRecord], RequestRecord]
Batch = Sequence[BriefRecord]
LINES_FACTOR = 4  # for each batch two threads wait for each other, which takes as long as to make a hundred lines
Event = BriefRecord | bytes  # a line of JSON is for sinks that take lines; the others never see it


class IEventLineSink(IEventSink):
    """One to which events go as lines of JSON, as the built-in file has them: those need not be made by each sink."""

    def write_lines(lines: bytes) -> Deferred[None]:
        """As C{write}; each line has its end."""


@implementer(IEventBus, IHealthChecked, IInstrumented)
class MemoryBus(Service):
    """Keeps a bounded queue for each sink, so that a slow or failing one holds up no other."""

    name = "events"

    def __init__(
        self,
        sinks: Mapping[str, IEventSink],
        clock: IReactorTime,
        *,
        queue_size: int = 10_000,
        batch: int = 500,
        linger: float = 0.1,
        patience: float = 30.0,
        retries: tuple[float, ...] = (1.0, 5.0, 15.0),
        flush: float = 3.0,
        scrub: Scrub = lambda event: event,
        lines: Callable[[Batch], bytes] | None = None,
    ) -> None:
        """
        @param sinks: By a name that tells them apart in the logs.
        @param queue_size: How many events wait for one sink at most.
        @param batch: How many it gets at once at most; L{LINES_FACTOR} times as many where it takes lines.
        @param linger: Seconds an event waits for company before its batch is sent.
        @param patience: Seconds a sink may take for one batch.
        @param retries: Seconds to wait before each further attempt at a batch; after the last it is dropped.
        @param flush: Seconds that stopping may take for what is still queued, and again for closing.
        @param scrub: Masks secrets in an event before a sink sees it.
        @param lines: Events as lines of JSON, secrets masked, for sinks that take lines.
        """
        self._clock = clock
        self._flush = flush
        self._sinks = sinks
        self._queues, self._queues_of_lines = [], []
        for name, sink in sinks.items():
            takes_lines = lines is not None and IEventLineSink.providedBy(sink)
            most, write = batch * LINES_FACTOR if takes_lines else batch, _writer(sink, scrub, lines)
            queue = _Queue(name, sink, clock, queue_size, most, linger, patience, retries, write)
            self._queues.append(queue)
            if takes_lines:
                self._queues_of_lines.append(queue)

    @property
    def dropped(self) -> int:
        return sum(queue.dropped for queue in self._queues)

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return [queue.task for queue in self._queues]

    @property
    def state(self) -> str:
        """C{ok}, or which sinks do not take what they are given, and why."""
        wrong = [f"{queue.name}: {queue.wrong}" for queue in self._queues if queue.wrong]
        return ", ".join(wrong) or "ok"

    def instruments(self) -> Iterator[Instrument]:
        for name, sink in self._sinks.items():
            if IInstrumented.providedBy(sink):
                yield from (each.labelled(name) for each in IInstrumented(sink).instruments())

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("events", lambda: self.state)

    def publish(self, event: RequestRecord) -> None:
        self.publish_all([parts_of(event)])

    def publish_all(self, events: Sequence[BriefRecord]) -> None:
        """Several at once."""
        for queue in self._queues:
            queue.put(events)

    def publish_line(self, line: bytes) -> None:
        """What is no request: a line of JSON, with its end, for sinks that take lines."""
        for queue in self._queues_of_lines:
            queue.put([line])

    @deferred
    async def stopService(self) -> None:
        """Deliver what is queued, within a bounded time; then close the sinks."""
        Service.stopService(self)
        await gatherResults([queue.close(self._flush) for queue in self._queues])


class _Queue:
    """What waits for one sink, and the one delivery that is in progress."""

    _log = Logger(namespace="llmproxy.events")

    def __init__(
        self,
        name: str,
        sink: IEventSink,
        clock: IReactorTime,
        limit: int,
        batch: int,
        linger: float,
        patience: float,
        retries: tuple[float, ...],
        write: Callable[[Sequence[Event]], Deferred[None]],
    ) -> None:
        self.name = name
        self._sink = sink
        self._clock = clock
        self._limit = limit
        self._batch = batch
        self._linger = linger
        self._patience = patience
        self._retries = retries
        self._write = write
        self._events: deque[Event] = deque()
        self._timer: IDelayedCall | None = None
        self._delivery: Deferred[None] | None = None
        self._busy = False
        self._sending: Deferred[None] | None = None
        self._pause = Pause(clock)
        self._closing = self._expired = False
        self._losses: OutageLog[str] = OutageLog(clock, self._report_loss, summarize=True)
        self.wrong = ""
        self.task = Task("events", clock)

    @property
    def dropped(self) -> int:
        return self._losses.failures

    def put(self, events: Sequence[Event]) -> None:
        room = 0 if self._closing else max(self._limit - len(self._events), 0)
        if len(events) > room:
            self._drop(len(events) - room, "the bus has stopped" if self._closing else "its queue is full")
            if not room:
                return
            events = events[:room]
        self._events.extend(events)
        if self._timer is None and not self._busy:
            self._timer = self._clock.callLater(self._linger, self._start)

    @deferred
    async def close(self, seconds: float) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._start()
        end = self._clock.callLater(seconds, self._expire)
        self._pause.end()
        if self._delivery is not None:
            await self._delivery
        if end.active():
            end.cancel()
        error = await self._settled(self._sink.close, seconds)
        if error is not None:
            self._log.warn("Sink {name} failed to close: {error}", name=self.name, error=_said(error))
        self._losses.close()

    def _expire(self) -> None:
        self._expired = True
        if self._sending is not None:
            self._sending.cancel()

    def _start(self) -> None:
        self._timer = None
        self._delivery = Deferred.fromCoroutine(self._deliver())

    async def _deliver(self) -> None:
        """Deliver what is there; whatever happens there, the next delivery can begin."""
        self._busy = True
        try:
            await self._deliver_all()
            self.task.worked()
        except Exception:
            self.task.failed()
            if self._events:
                self._events.popleft()  # it may be why: not again and again
                self._drop(1, "it could not be delivered")
        self._busy = False
        if self._events and not self._closing:
            self._timer = self._clock.callLater(self._linger, self._start)

    async def _deliver_all(self) -> None:
        """Deliver what is there now; what comes meanwhile lingers as this did, or under load each would go alone."""
        left = len(self._events)
        while self._events and (left > 0 or self._closing or len(self._events) >= self._batch):
            batch = tuple(islice(self._events, self._batch))
            left -= len(batch)
            error = await self._sent(batch)
            for _ in batch:
                self._events.popleft()
            if error is not None:
                self._drop(len(batch), _said(error))

    async def _sent(self, batch: tuple[Event, ...]) -> Exception | None:
        """Deliver one batch; what it failed with, if it did in the end."""
        error: Exception | None = None
        for pause in (*self._retries, None):
            if self._expired:
                return TimeoutError("there was no time left while stopping")
            error = await self._settled(lambda: self._write(batch), self._patience)
            if error is None or pause is None or self._closing:
                return error
            self._log.warn(
                "Sink {name} failed and is tried again in {pause} s: {error}",
                name=self.name,
                pause=pause,
                error=_said(error),
            )
            await self._pause.wait(pause)
        return error

    async def _settled(self, act: Callable[[], Deferred[None]], seconds: float) -> Exception | None:
        """What an act of the sink failed with, be it too late, or None."""
        self._sending = sending = maybeDeferred(act)
        sending.addTimeout(seconds, self._clock, onTimeoutCancel=_too_late)
        settled: Deferred[Exception | None] = sending.addCallbacks(lambda _: None, _exception)
        error = await settled
        self._sending = None
        self.wrong = "" if error is None else failure_reason(error)
        return error

    def _drop(self, count: int, reason: str) -> None:
        self._losses.failed(reason, count)

    def _report_loss(self, reason: str, count: int) -> None:
        self._log.warn("Sink {name} dropped {count} events: {reason}", name=self.name, count=count, reason=reason)


def _writer(
    sink: IEventSink, scrub: Scrub, lines: Callable[[Batch], bytes] | None
) -> Callable[[Sequence[Event]], Deferred[None]]:
    """Writes a batch to the sink, without secrets: what it takes is made when it is to be written."""
    if lines is None or not IEventLineSink.providedBy(sink):
        return lambda batch: sink.write(
            tuple([scrub(event.whole()) for event in batch if isinstance(event, BriefRecord)])
        )
    render, write_lines = lines, IEventLineSink(sink).write_lines

    def write(batch: Sequence[Event]) -> Deferred[None]:
        records = tuple([event for event in batch if isinstance(event, BriefRecord)])
        text = render(records) if records else b""
        if len(records) < len(batch):
            text += b"".join([event for event in batch if isinstance(event, bytes)])
        return write_lines(text)

    return write


def _exception(failure: Failure) -> Exception:
    return failure.value if isinstance(failure.value, Exception) else RuntimeError(failure.getErrorMessage())


def _too_late(result: object, seconds: float) -> object:
    raise TimeoutError(f"It took longer than {seconds:g} s.")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
