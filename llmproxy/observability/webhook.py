"""Sends signed messages to one receiver, as Standard Webhooks has it: https://www.standardwebhooks.com/ (version 1).

The signature covers the message's id, the time and the body: C{HMAC-SHA256(secret, id.timestamp.body)} in base64, in
C{webhook-signature: v1,…}. The id is the same in each attempt, so that a receiver can tell a repeated one.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from binascii import Error
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import Pause, deferred, within
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.wire.client.request_writer import BytesBody

PAUSES_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)  # between attempts; the last again and again
RETRIED_STATUSES = frozenset({408, 409, 425, 429})  # of those below 500 that are worth another attempt
FLUSH_SECONDS = 3.0  # that stopping may take for what is queued
PREFIX = "whsec_"


class WebhookMessage(NamedTuple):
    """What is sent; C{id} is the same for each attempt."""

    id: str
    body: bytes


class DeliveryFailed(Exception):
    """The receiver did not take it; C{final}: nor will it later."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def message(message_id: str, kind: str, at: str, content: Mapping[str, Any]) -> WebhookMessage:
    """A message of this kind, such as C{budget.threshold}."""
    body = {"type": kind, "timestamp": at, "data": content}
    return WebhookMessage(message_id, json.dumps(body, separators=(",", ":")).encode())


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """C{v1,} and the HMAC in base64. L{ValueError} where a secret begins with C{whsec_} and is no base64."""
    if secret.startswith(PREFIX):
        try:
            key = b64decode(secret.removeprefix(PREFIX), validate=True)
        except Error as e:
            raise ValueError("The secret begins with whsec_, and what follows is no base64.") from e
    else:
        key = secret.encode()
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + b64encode(hmac.new(key, signed, sha256).digest()).decode()


class WebhookTarget(NamedTuple):
    """Where messages go, and how patiently they are delivered.

    @ivar secret: Gives the secret when it is needed; L{ValueError} or L{OSError} where it cannot.
    @ivar timeout: Seconds for each attempt; C{queue_size}: how many messages may wait.
    """

    url: str
    secret: Callable[[], str]
    agent: IAgent
    timeout: float
    attempts: int
    queue_size: int

    @property
    def host(self) -> str:
        """What is said of it in the log."""
        return str(URI.fromBytes(self.url.encode("ascii")).host, "ascii")


@implementer(IInstrumented)
class Webhook(Service):
    """Delivers one message after the other, from a bounded queue; nobody waits for it.

    @param target: Where to; C{None}: nowhere.
    @param delivered: Called with the id of what the receiver has got.
    @param now: Seconds since the epoch.
    """

    name: Any = "webhook"
    _log = Logger()

    def __init__(
        self,
        target: WebhookTarget | None,
        clock: IReactorTime,
        now: Callable[[], float],
        delivered: Callable[[str], Awaitable[object]],
    ) -> None:
        self._target = target
        self._clock = clock
        self._now = now
        self._on_delivered = delivered
        self._queue: deque[WebhookMessage] = deque()
        self._work: Deferred[None] | None = None
        self._pause = Pause(clock)
        self._stopping = False
        self._delivered = self._failures = self._dropped = 0
        self._task = Task("webhook", clock)
        self.tasks = (self._task,)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("webhook_deliveries", "Alerts that the webhook's receiver has taken.", lambda: self._delivered)
        yield Counter("webhook_failures", "Attempts to deliver an alert that failed.", lambda: self._failures)
        yield Counter("webhook_dropped", "Alerts that were given up: refused, tried too often, or too many waited.",
                      lambda: self._dropped)  # fmt: skip
        yield Gauge("webhook_queue", "Alerts that wait to be delivered.", lambda: float(len(self._queue)))

    @property
    def has_target(self) -> bool:
        """Whether messages go anywhere."""
        return self._target is not None

    def follow(self, target: WebhookTarget | None) -> None:
        """Deliver to this one from now on, at once what waits for another attempt."""
        self._target = target
        self._pause.end()

    def put(self, sent: WebhookMessage) -> None:
        """Deliver it when it is its turn; not at all where there is no target, or where it waits already."""
        if self._target is None or any(sent.id == each.id for each in self._queue):
            return
        if self._stopping or len(self._queue) >= self._target.queue_size:
            self._drop(sent, "too many wait" if not self._stopping else "the process ends")
            return
        self._queue.append(sent)
        if self._work is None:
            self._work = Deferred.fromCoroutine(self._deliver_all())

    @deferred
    async def stopService(self) -> None:
        """Try once more what is queued, within a bounded time."""
        Service.stopService(self)
        self._stopping = True
        self._pause.end()
        if self._work is not None:
            late = DeliveryFailed("There was no time left.")
            try:
                await within(FLUSH_SECONDS, self._clock, self._work, late)
            except (DeliveryFailed, CancelledError):
                self._log.warn("{count} alerts were not delivered.", count=len(self._queue))

    async def _deliver_all(self) -> None:
        try:
            while self._queue:
                sent = self._queue[0]
                try:
                    await self._deliver(sent)
                    self._task.worked()
                except CancelledError:
                    raise
                except Exception:
                    self._task.failed()
                    self._drop(sent, "of an error that was not foreseen")
                self._queue.popleft()
        finally:
            self._work = None

    async def _deliver(self, sent: WebhookMessage) -> None:
        attempt, tried = 0, self._target
        while True:
            target = self._target
            if target is None:
                self._drop(sent, "the settings name no webhook any more")
                return
            attempt, tried = (attempt if target is tried else 0) + 1, target
            try:
                await self._attempt(sent, target)
            except DeliveryFailed as e:
                self._failures += 1
                if self._stopping or (self._target is target and (e.final or attempt >= target.attempts)):
                    self._drop(sent, str(e))
                    return
                if self._target is not target:
                    continue
                pause = PAUSES_SECONDS[min(attempt - 1, len(PAUSES_SECONDS) - 1)]
                self._log.warn(
                    "The webhook at {host} failed and is tried again in {pause} s: {reason}",
                    host=target.host,
                    pause=pause,
                    reason=str(e),
                )
                await self._pause.wait(pause)
            else:
                self._delivered += 1
                await self._on_delivered(sent.id)
                return

    async def _attempt(self, sent: WebhookMessage, target: WebhookTarget) -> None:
        timestamp = int(self._now())
        try:
            signed = signature(target.secret(), sent.id, timestamp, sent.body)
        except (ValueError, OSError) as e:
            raise DeliveryFailed(f"its secret cannot be had: {e}") from e
        fields = {
            "content-type": ["application/json"],
            "user-agent": ["llmproxy"],
            "webhook-id": [sent.id],
            "webhook-timestamp": [str(timestamp)],
            "webhook-signature": [signed],
        }
        url = target.url.encode("ascii")
        asked = target.agent.request(b"POST", url, Headers(fields), BytesBody(sent.body))
        try:
            late = DeliveryFailed("it did not answer in time")
            response: Any = await within(target.timeout, self._clock, asked, late)
        except (DeliveryFailed, CancelledError):
            raise
        except Exception as e:  # as many kinds as there are ways to fail
            raise DeliveryFailed(f"it cannot be reached: {_reason(e)}") from e
        response.deliverBody(_Ignored())
        if not 200 <= response.code < 300:
            final = response.code < 500 and response.code not in RETRIED_STATUSES
            raise DeliveryFailed(f"it answered {response.code}", final=final)

    def _drop(self, sent: WebhookMessage, reason: str) -> None:
        self._dropped += 1
        self._log.error("The alert {id} is not delivered: {reason}", id=sent.id, reason=reason)


class _Ignored(Protocol):
    """What the receiver says beyond its status is of no use."""

    def connectionMade(self) -> None:
        abort = getattr(self.transport, "abortConnection", None) or getattr(self.transport, "loseConnection", None)
        if abort is not None:
            abort()


def _reason(e: Exception) -> str:
    causes = [failure.value for failure in getattr(e, "reasons", ())] or [e]
    return "; ".join(str(cause).rstrip(".") or type(cause).__name__ for cause in causes)[:200]
