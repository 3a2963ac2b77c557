"""Answers, refusals, and clients that leave."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from llmproxy.errors import ClientGone, MethodNotAllowed, ProxyError
from llmproxy.proxy.own_response import BufferedResponse, refuse
from llmproxy.web.respond import identify, json_response, run
from llmproxy.wire.server.twisted_adapter import adapt
from tests.support.client import Conversation, Serve, ask, ours, request, stock
from tests.support.responses import Response


class Runs(Resource):
    """Answers with what a coroutine makes."""

    isLeaf = True

    def __init__(self, answering: Coroutine[Any, Any, BufferedResponse]) -> None:
        super().__init__()
        self.answering = answering
        self.done: Deferred[None] = Deferred()

    def render(self, request: Request) -> int:
        self.done = run(request, self.answering, request_id=identify(request, lambda: "fresh"))
        return NOT_DONE_YET


class Refuses(Resource):
    """Refuses with an error, perhaps when an answer has begun."""

    isLeaf = True

    def __init__(self, error: BaseException, begin: bool = False, flavour: str = "hybrid") -> None:
        super().__init__()
        self.error = error
        self.begin = begin
        self.flavour = flavour
        self.told: ProxyError | None = None

    def render(self, request: Request) -> int:
        request = adapt(request)
        if self.begin:
            request.begin(200, b"OK", [], None)
            request.write(b"half")
        self.told = refuse(request, self.error, self.flavour, "id-1")
        return NOT_DONE_YET


async def answering(answer: BufferedResponse) -> BufferedResponse:
    return answer


async def failing(error: BaseException) -> BufferedResponse:
    raise error


class RunTests(SynchronousTestCase):
    site: Serve = staticmethod(stock)

    def ask(self, answering: Coroutine[Any, Any, BufferedResponse], method: str = "GET", **fields: str) -> Response:
        return ask(
            Runs(answering), method, "/", fields={k.replace("_", "-"): v for k, v in fields.items()}, site=self.site
        )

    def test_json(self) -> None:
        """JSON is not cached, not sniffed, dated, and carries the request's id; nothing names the server's make."""
        reply = self.ask(answering(json_response({"a": "ü"}, 201, [b"Location: /x"])))
        self.assertEqual((reply.status, reply.json), (201, {"a": "ü"}))
        self.assertEqual(reply["content-type"], "application/json")
        self.assertEqual(reply["cache-control"], "no-store")
        self.assertEqual(reply["x-content-type-options"], "nosniff")
        self.assertEqual(reply["location"], "/x")
        self.assertEqual(reply["x-request-id"], "fresh")
        self.assertIn("GMT", reply["date"])
        self.assertEqual(int(reply["content-length"]), len(reply.body))
        self.assertEqual(reply.all("Server"), [])

    def test_own_request_id(self) -> None:
        """A client finds its own request id in the answer."""
        self.assertEqual(self.ask(answering(json_response({})), x_request_id="mine")["x-request-id"], "mine")

    def test_unfit_request_id(self) -> None:
        """An id that is not visible ASCII, or too long, is not sent back."""
        for unfit in ("a b", "x" * 129, "ü"):
            self.assertEqual(self.ask(answering(json_response({})), x_request_id=unfit)["x-request-id"], "fresh")

    def test_head(self) -> None:
        """HEAD is told the length, and sent nothing."""
        reply = self.ask(answering(json_response({"a": 1})), "HEAD")
        self.assertEqual((reply.status, reply["content-length"], reply.body), (200, "8", b""))

    def test_no_content(self) -> None:
        """204 has neither body nor framing."""
        reply = self.ask(answering(BufferedResponse(204)))
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.assertFalse(
            {"content-length", "transfer-encoding", "content-type"}
            & {line.partition(":")[0].lower() for line in reply.lines}
        )

    def test_refusal(self) -> None:
        """A refusal is told with its status, code, message and fields."""
        reply = self.ask(failing(MethodNotAllowed("Not so.", headers={"Allow": "GET"})))
        self.assertEqual((reply.status, reply["allow"], reply["x-llmproxy-error"]), (405, "GET", "method_not_allowed"))
        self.assertEqual(reply.json["error"]["message"], "Not so.")
        self.assertEqual(reply["x-request-id"], "fresh")
        self.assertEqual(reply["cache-control"], "no-store")

    def test_fault(self) -> None:
        """A fault of ours is a 500 that says nothing of it; the log has the traceback."""
        reply = self.ask(failing(ZeroDivisionError("sk-secret")))
        self.assertEqual((reply.status, reply["x-llmproxy-error"]), (500, "internal_error"))
        self.assertNotIn(b"sk-secret", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelled_wait(self) -> None:
        """A wait that somebody cancelled does not leave the client waiting for ever."""
        self.assertEqual(self.ask(failing(CancelledError())).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)

    def test_client_leaves(self) -> None:
        """What was begun is done, although nobody is there to be told."""
        waiting: Deferred[None] = Deferred()
        did: list[str] = []

        async def change() -> BufferedResponse:
            await waiting
            did.append("changed")
            return json_response({})

        resource = Runs(change())
        conversation = Conversation(resource, request("GET", "/"), site=self.site)
        conversation.leave()
        waiting.callback(None)
        self.successResultOf(resource.done)
        self.assertEqual((did, conversation.response().status), (["changed"], 0))

    def test_client_leaves_and_it_fails(self) -> None:
        """A refusal that nobody reads is dropped; a fault of ours is logged all the same."""
        for error, logged in ((MethodNotAllowed(), 0), (ZeroDivisionError(), 1)):
            waiting: Deferred[BufferedResponse] = Deferred()

            async def change(waiting: Deferred[BufferedResponse] = waiting) -> BufferedResponse:
                return await waiting

            resource = Runs(change())
            Conversation(resource, request("GET", "/"), site=self.site).leave()
            waiting.errback(error)
            self.successResultOf(resource.done)
            self.assertEqual(len(self.flushLoggedErrors()), logged)


class RunOnOurSiteTests(RunTests):
    site = staticmethod(ours)


class RefuseTests(SynchronousTestCase):
    site: Serve = staticmethod(stock)

    def test_client_gone(self) -> None:
        """A client that has left is told nothing, and nobody is told that it was."""
        resource = Refuses(ClientGone())
        self.assertEqual(ask(resource, "GET", "/", site=self.site).status, 0)
        self.assertIsNone(resource.told)

    def test_half_an_answer(self) -> None:
        """An answer whose head is out is cut: the client can tell that it is not whole."""
        conversation = Conversation(Refuses(MethodNotAllowed(), begin=True), request("GET", "/"), site=self.site)
        self.assertTrue(conversation.transport.aborted or conversation.transport.disconnecting)
        self.assertFalse(conversation.transport.value().endswith(b"0\r\n\r\n"))
        self.assertNotIn(b"method_not_allowed", conversation.transport.value())

    def test_flavour(self) -> None:
        """The error has the shape that the API's clients know."""
        reply = ask(Refuses(MethodNotAllowed("No."), flavour="google"), "GET", "/", site=self.site)
        self.assertEqual(reply.json["error"]["code"], 405)

    def test_told(self) -> None:
        """Whoever writes the access log learns what the client was told."""
        resource = Refuses(ValueError("oops"))
        ask(resource, "GET", "/", site=self.site)
        self.assertEqual(getattr(resource.told, "code", None), "internal_error")
        self.flushLoggedErrors(ValueError)


class RefuseOnOurSiteTests(RefuseTests):
    site = staticmethod(ours)
