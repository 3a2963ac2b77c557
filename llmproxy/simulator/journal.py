"""What the simulator remembers of the requests it received, exactly as they came."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from typing import Any

from twisted.internet.interfaces import IReactorTime

from llmproxy.simulator.billing import Bill, invoice

KEPT = 10_000
KEPT_BODY = 64 * 1024


class Entry:
    """One request, from the end of its head to the end of its response. Times are seconds since the epoch.

    @ivar lines: The header lines as they came: order, case, white space, duplicates.
    @ivar left_at: When the client left before its response was complete.
    @ivar bill: What it costs, whole, from when its response begins.
    """

    def __init__(self, number: int, clock: IReactorTime, connection: int, request_line: bytes) -> None:
        self.id = number
        self.connection = connection
        self.request_line = request_line
        self.lines: list[bytes] = []
        self.started_at = clock.seconds()
        self.received_at: float | None = None
        self.finished_at: float | None = None
        self.left_at: float | None = None
        self.status: int | None = None
        self.bill: Bill | None = None
        self.body_length = self.bytes_sent = self.events_sent = 0
        self._clock = clock
        self._hash = hashlib.sha256()
        self._body = b""

    @property
    def sha256(self) -> str:
        """Of the body as far as it has arrived."""
        return self._hash.hexdigest()

    @property
    def request_id(self) -> str:
        """The client's C{X-Request-ID}, or nothing."""
        named = (line.partition(b":") for line in self.lines)
        found = (value for name, _, value in named if name.strip().lower() == b"x-request-id")
        return next(found, b"").strip().decode("latin-1")

    @property
    def over(self) -> bool:
        return self.finished_at is not None or self.left_at is not None

    def _words(self) -> tuple[str, str, str]:
        method, _, rest = self.request_line.decode("latin-1").partition(" ")
        target, _, version = rest.partition(" ")
        return method, target, version

    @property
    def target(self) -> str:
        return self._words()[1]

    def receive(self, data: bytes) -> None:
        self._hash.update(data)
        self.body_length += len(data)
        self._body = self._body + data if self.body_length <= KEPT_BODY else b""

    def received(self) -> None:
        """The request is complete."""
        self.received_at = self._clock.seconds()

    def sent(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self.events_sent += 1

    def finished(self) -> None:
        """The response is complete, or as broken as it was meant to be."""
        self.finished_at = self._clock.seconds()

    def left(self) -> None:
        """The client is gone."""
        self.left_at = self._clock.seconds()

    def named(self) -> dict[str, Any]:
        """What its line of the invoice says of it."""
        return {"id": self.id, "request_id": self.request_id, "target": self.target, "left_at": self.left_at}

    def shown(self) -> dict[str, Any]:
        """As JSON; bytes that are not ASCII stand for themselves as Latin-1."""
        method, target, version = self._words()
        kept = self.body_length <= KEPT_BODY
        return {
            "id": self.id,
            "connection": self.connection,
            "method": method,
            "target": target,
            "version": version,
            "headers": [line.decode("latin-1") for line in self.lines],
            "body_length": self.body_length,
            "body_sha256": self.sha256,
            "body": base64.b64encode(self._body).decode() if kept else None,
            "started_at": self.started_at,
            "received_at": self.received_at,
            "finished_at": self.finished_at,
            "left_at": self.left_at,
            "status": self.status,
            "bytes_sent": self.bytes_sent,
            "events_sent": self.events_sent,
        }


class Journal:
    """The last L{KEPT} requests, and how many there were."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._number = 0
        self.connections = self.connections_total = 0
        self.clear()

    def clear(self) -> None:
        """Forget all requests; numbers go on, so that C{since} stays meaningful."""
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._cleared = self._number

    def connected(self) -> int:
        """Count a connection and give it a number."""
        self.connections += 1
        self.connections_total += 1
        return self.connections_total

    def disconnected(self) -> None:
        self.connections -= 1

    def open(self, connection: int, request_line: bytes, lines: list[bytes]) -> Entry:
        """Remember a request whose head has arrived."""
        self._number += 1
        entry = Entry(self._number, self._clock, connection, request_line)
        entry.lines = lines
        self._entries.append(entry)
        return entry

    def shown(self, since: int = 0) -> dict[str, Any]:
        """The requests after number C{since}, oldest first."""
        entries = [entry.shown() for entry in self._entries if entry.id > since]
        return {"requests": entries, "last": self._number}

    def invoice(self) -> dict[str, Any]:
        """The bills of the requests that are still remembered."""
        return invoice(
            (
                {"id": entry.id, "request_id": entry.request_id, "target": entry.target, "left": entry.left_at},
                entry.bill,
            )
            for entry in self._entries
            if entry.bill is not None
        )

    def stats(self) -> dict[str, int]:
        """Figures over the requests that are still remembered."""
        entries = self._entries
        return {
            "requests": self._number - self._cleared,
            "active": sum(not entry.over for entry in entries),
            "left": sum(entry.left_at is not None for entry in entries),
            "bytes_received": sum(entry.body_length for entry in entries),
            "bytes_sent": sum(entry.bytes_sent for entry in entries),
            "events_sent": sum(entry.events_sent for entry in entries),
            "connections": self.connections,
            "connections_total": self.connections_total,
        }
