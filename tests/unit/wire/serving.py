"""A Site, clients of it, and resources that show what they are given: all in memory, on one clock."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from llmproxy.wire.server.site import Request, Site
from tests.support.transport import (
    CAPACITY,
    HalfCloseProtocol,
    Link,
    RecordingProtocol,
    peer_closed,
    unacknowledged_bytes,
)

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes, path: bytes = b"", *lines: bytes, length: int | None = None) -> bytes:
    head = [b"POST /%b HTTP/1.1" % path, b"Host: a", b"Content-Length: %d" % (len(body) if length is None else length)]
    return b"\r\n".join([*head, *lines, b"\r\n"]) + body


class Waiting(Resource):
    """Starts on the head, and keeps its requests for the test to answer."""

    isLeaf = True
    starts_on_head = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.ends: list[object] = []

    def render(self, request: Request) -> int:
        self.requests.append(request)
        request.notifyFinish().addBoth(self.ends.append)
        return NOT_DONE_YET


class Echo(Resource):
    """An ordinary resource: its request's body comes back."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"got " + request.path

    def render_POST(self, request: Any) -> bytes:
        return b"got " + request.content.read()


class Consumer:
    """Takes an upload, and says when it has had enough."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: bytes) -> None:
        self.taken += data


class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Serving(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refused: list[tuple[int, str, str]] = []
        self.waiting = Waiting()
        self.root = Resource()
        self.root.putChild(b"", Echo())
        self.root.putChild(b"echo", Echo())
        self.root.putChild(b"wait", self.waiting)
        self.site = self.serve()

    def serve(self, resource: Any = None, **settings: Any) -> Site:
        return Site(
            resource or self.root,
            reactor=self.clock,
            on_refused=lambda *what: self.refused.append(what[:3]),
            fresh_id=lambda: "id-1",
            peer_closed=peer_closed,
            unacknowledged_bytes=unacknowledged_bytes,
            **settings,
        )

    def client(
        self, sent: bytes = b"", *, half: bool = False, capacity: int = CAPACITY, address: str = "192.0.2.1"
    ) -> Client:
        channel = self.site.buildProtocol(IPv4Address("TCP", address, 4711))
        client = Client(
            Link(channel, HalfCloseProtocol() if half else RecordingProtocol(), capacity=capacity, address=address)
        )
        client.send(sent)
        return client

    @property
    def request(self) -> Request:
        """The last request that waits."""
        return self.waiting.requests[-1]

    def assertRefused(self, client: Client, status: int, code: str) -> None:
        """It got one error as JSON, was told that this was all, and was noted once."""
        head, body = client.answer
        self.assertEqual(head[0].split(b" ")[1], b"%d" % status)
        self.assertIn(b"Connection: close", head)
        self.assertIn(b"Content-Type: application/json", head)
        self.assertIn(b"Content-Length: %d" % len(body), head)
        self.assertFalse([line for line in head if line.lower().startswith(b"server:")])
        told = json.loads(body)
        self.assertEqual((told["type"], told["code"], told["error"]["code"]), ("error", code, code))
        self.assertEqual((told["error"]["param"], told["request_id"]), (None, "id-1"))
        self.assertIn(("status and code", status, code), [("status and code", s, c) for s, c, _ in self.refused])
        self.assertEqual(len(self.refused), 1)
        self.assertTrue(client.ended)


class Client:
    """The other side, driven by hand."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.peer: Any = link.far.protocol
        self.channel: Any = link.near.protocol

    def send(self, data: bytes) -> None:
        self.link.far.write(data)
        self.link.pump()

    def leave(self) -> None:
        self.link.far.loseConnection()
        self.link.pump()

    def reset(self) -> None:
        self.link.far.abortConnection()
        self.link.pump()

    def stop_sending(self) -> None:
        self.link.far.loseWriteConnection()
        self.link.pump()

    @property
    def received(self) -> bytes:
        self.link.pump()
        return bytes(self.peer.received)

    @property
    def ended(self) -> bool:
        """Whether the server has said that it will send no more."""
        self.link.pump()
        return self.peer.lost is not None or self.peer.ended

    @property
    def answer(self) -> tuple[list[bytes], bytes]:
        """All that was received, as one answer: the lines of its head, and the rest."""
        head, _, body = self.received.partition(b"\r\n\r\n")
        return head.split(b"\r\n"), body


def failure_of(deferred: Deferred[Any]) -> type[BaseException] | None:
    """What a Deferred has failed with; the failure counts as seen."""
    seen: list[Failure] = []
    deferred.addErrback(seen.append)
    return type(seen[0].value) if seen else None
