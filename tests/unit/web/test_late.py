"""L{llmproxy.web.late}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface.verify import verifyObject

from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.late import LateResource
from llmproxy.web.respond import identify, json_response, run
from llmproxy.web.root import Root
from tests.support.client import Conversation, ask, ours, request, stock


class Echo(Resource):
    """Answers with the path and the body."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.rendered: list[bytes] = []

    def render(self, request: Request) -> int:
        self.rendered.append(request.path)
        if request.path == b"/manage/broken":
            raise RuntimeError("broken")
        request.content.seek(0)
        body = request.content.read().decode()

        async def answer() -> BufferedResponse:
            return json_response([request.path.decode(), body])

        run(request, answer(), request_id=identify(request))
        return NOT_DONE_YET


class LateResourceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.echo = Echo()
        self.made: list[Deferred[IResource]] = []
        self.late = LateResource(self.make)
        self.root = Root(manage=self.late)

    async def make(self) -> IResource:
        making: Deferred[IResource] = Deferred()
        self.made.append(making)
        return await making

    def sent(self, path: str, body: object = None, site: Any = ours) -> Conversation:
        return Conversation(self.root, request("POST", path, body), site=site)

    def test_interface(self) -> None:
        verifyObject(IResource, self.late)

    def test_made_once(self) -> None:
        """Nobody asks: nothing is made. All that ask meanwhile wait for the same, and get their own answers."""
        self.assertEqual(self.made, [])
        for site in (ours, stock):
            self.late._made = None
            waiting = [self.sent(f"/manage/{number}", b"body %d" % number, site) for number in range(3)]
            self.assertEqual([each.response().status for each in waiting], [0, 0, 0])
            self.made.pop().callback(self.echo)
            self.assertEqual(self.made, [])
            for number, each in enumerate(waiting):
                self.assertEqual(each.response().json, [f"/manage/{number}", f"body {number}"])
            self.assertEqual(ask(self.root, "POST", "/manage/later", site=site).json, ["/manage/later", ""])
            self.assertEqual(self.made, [])

    def test_a_client_that_leaves(self) -> None:
        """What it asked for is not done; the others are answered."""
        for site in (ours, stock):
            self.late._made = None
            first, second = self.sent("/manage/1", site=site), self.sent("/manage/2", site=site)
            first.leave()
            self.made.pop().callback(self.echo)
            self.assertEqual(second.response().status, 200)
            self.assertEqual(self.echo.rendered, [b"/manage/2"])
            self.echo.rendered.clear()

    def test_it_cannot_be_made(self) -> None:
        """All that wait are refused, it is logged why, and the next request tries again."""
        first, second = self.sent("/manage/1"), self.sent("/manage/2")
        self.made.pop().errback(ImportError("no such module"))
        self.assertEqual([each.response().status for each in (first, second)], [500, 500])
        self.assertNotIn(b"no such module", first.transport.value())
        self.assertEqual(len(self.flushLoggedErrors(ImportError)), 2)
        third = self.sent("/manage/3")
        self.made.pop().callback(self.echo)
        self.assertEqual(third.response().status, 200)

    def test_one_that_breaks(self) -> None:
        """Hurts none that wait with it."""
        first, second = self.sent("/manage/broken"), self.sent("/manage/2")
        self.made.pop().callback(self.echo)
        self.assertEqual([each.response().status for each in (first, second)], [500, 200])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
