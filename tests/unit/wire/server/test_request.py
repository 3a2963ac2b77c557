"""What resources of C{twisted.web} rely on, and what the proxy writes."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock
from zlib import MAX_WBITS, decompressobj

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web import resource, server, util
from twisted.web.iweb import IRequest
from twisted.web.server import NOT_DONE_YET
from zope.interface.verify import verifyObject

from llmproxy.wire.body_framing import ChunkedBody
from llmproxy.wire.parser import MessageLimits
from tests.unit.wire.serving import GET, Client, Producer, Serving, post

with warnings.catch_warnings():  # Twisted's own, about what it imports from itself
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web import static


class Answering(resource.Resource):
    """Does what the test says."""

    isLeaf = True

    def __init__(self, act: Any) -> None:
        super().__init__()
        self._act = act

    def render_GET(self, request: Any) -> Any:
        return self._act(request)

    render_POST = render_GET


class Asking(Serving):
    def ask(self, act: Any, sent: bytes = GET % b"x", **more: Any) -> Client:
        """What a client gets from a resource that does C{act}."""
        self.root.putChild(b"x", act if isinstance(act, resource.Resource) else Answering(act))
        return self.client(sent, **more)

    def body(self, client: Client) -> bytes:
        """The body of a chunked answer, which must be whole."""
        chunks = ChunkedBody(MessageLimits())
        body = b"".join(chunks.feed(client.answer[1]))
        self.assertTrue(chunks.done)
        return body


class TwistedResources(Asking):
    """Everything that a Resource may do on Twisted's own Site."""

    def test_it_is_a_request(self) -> None:
        self.client(GET % b"wait")
        self.assertIsInstance(self.request, server.Request)
        verifyObject(IRequest, self.request)

    def test_bytes_that_are_returned(self) -> None:
        head, body = self.ask(lambda request: b"hello").answer
        self.assertEqual((head[0], body), (b"HTTP/1.1 200 OK", b"hello"))
        self.assertIn(b"Content-Length: 5", head)
        self.assertIn(b"Content-Type: text/html", head)
        self.assertEqual([line[:5] for line in head if line.startswith((b"Date", b"Serv"))], [b"Date:"])

    def test_the_head_and_a_short_answer_are_one_write(self) -> None:
        self.assertEqual(len(self.ask(lambda request: b"hello").link.near.writes), 1)

    def test_not_done_yet(self) -> None:
        def later(request: Any) -> int:
            def answer() -> None:
                request.write(b"one")
                request.write(b"two")
                request.finish()

            self.clock.callLater(5, answer)
            return NOT_DONE_YET

        client = self.ask(later)
        self.clock.advance(5)
        self.assertIn(b"Transfer-Encoding: chunked", client.answer[0])
        self.assertEqual(self.body(client), b"onetwo")

    def test_redirect_to(self) -> None:
        head, body = self.ask(lambda request: util.redirectTo(b"/there", request)).answer
        self.assertEqual(head[0], b"HTTP/1.1 302 Found")
        self.assertIn(b"Location: /there", head)
        self.assertIn(b"/there", body)

    def test_status_headers_and_cookies(self) -> None:
        def act(request: Any) -> bytes:
            request.setResponseCode(418, b"Teapot")
            request.setHeader(b"x-a", b"1")
            request.addCookie(b"k", b"v", path=b"/")
            request.addCookie(b"l", b"w")
            return b""

        head, _ = self.ask(act).answer
        self.assertEqual(head[0], b"HTTP/1.1 418 Teapot")
        self.assertEqual(
            [line for line in head if line.startswith(b"Set")], [b"Set-Cookie: k=v; Path=/", b"Set-Cookie: l=w"]
        )
        self.assertIn(b"X-A: 1", head)

    def test_what_was_sent(self) -> None:
        def act(request: Any) -> bytes:
            self.assertEqual(request.args, {b"q": [b"1", b"2"], b"f": [b"a b"]})
            self.assertEqual(request.getHeader(b"x-a"), b"last")
            self.assertEqual(request.requestHeaders.getRawHeaders(b"X-A"), [b"first", b"last"])
            self.assertEqual(request.getCookie(b"k"), b"v")
            self.assertEqual((request.prepath, request.postpath), ([b"x"], [b"a b", b""]))
            self.assertEqual(request.getClientAddress().host, "192.0.2.1")
            self.assertEqual((request.remote, request.isSecure()), ("192.0.2.1", False))
            self.assertEqual(request.prePathURL(), b"http://a:4711/x")
            self.assertEqual((request.clientproto, request.getRequestHostname()), (b"HTTP/1.1", b"a"))
            return b"fine"

        form = b"Content-Type: application/x-www-form-urlencoded; charset=utf-8"
        sent = post(b"f=a+b", b"x/a%20b/?q=1&q=2", form, b"X-A: first", b"x-a: last", b"Cookie: k=v; l=w")
        self.assertEqual(self.ask(act, sent).answer[1], b"fine")

    def test_sessions(self) -> None:
        def act(request: Any) -> bytes:
            return bytes(request.getSession().uid)

        head, uid = self.ask(act).answer
        (cookie,) = [line[12:].partition(b";")[0] for line in head if line.startswith(b"Set-Cookie: ")]
        _, again = self.ask(act, b"GET /x HTTP/1.1\r\nHost: a\r\nCookie: " + cookie + b"\r\n\r\n").answer
        self.assertEqual(uid, again)
        self.site.sessions[uid].expire()

    def test_files_and_ranges(self) -> None:
        with TemporaryDirectory() as folder:
            content = bytes(range(256)) * 2000
            Path(folder, "f.bin").write_bytes(content)
            self.root.putChild(b"files", static.File(folder))
            client = self.client(GET % b"files/f.bin")
            for _ in range(100):
                self.clock.advance(0)
                client.link.pump()
            self.assertEqual(client.answer[1], content)
            client = self.client(b"GET /files/f.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=10-19\r\n\r\n")
            self.clock.pump([0] * 10)
            self.assertEqual(client.answer[0][0], b"HTTP/1.1 206 Partial Content")
            self.assertEqual(client.answer[1], content[10:20])
            client = self.client(b"GET /files/f.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-4,-5\r\n\r\n")
            self.clock.pump([0] * 10)
            self.assertEqual(client.answer[0][0], b"HTTP/1.1 206 Partial Content")
            self.assertEqual(client.answer[1].count(b"Content-range: bytes"), 2)
            client = self.client(b"GET /files/f.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=600000-\r\n\r\n")
            self.clock.pump([0] * 10)
            self.assertEqual(client.answer[0][0], b"HTTP/1.1 416 Requested Range not satisfiable")

    def test_a_file_for_a_client_that_does_not_read(self) -> None:
        with TemporaryDirectory() as folder:
            Path(folder, "f.bin").write_bytes(b"a" * 3_000_000)
            self.root.putChild(b"files", static.File(folder))
            client = self.client()
            client.link.far.pauseProducing()
            client.send(GET % b"files/f.bin")
            for _ in range(100):
                self.clock.advance(0)
                client.link.pump()
            self.assertLess(len(client.link.near.unsent), 500_000)
            client.leave()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_head_is_answered_from_get(self) -> None:
        head, body = self.ask(lambda request: b"hello", b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").answer
        self.assertEqual(body, b"")
        self.assertIn(b"Content-Length: 5", head)

    def test_head_with_a_length_of_the_resources_own(self) -> None:
        def act(request: Any) -> bytes:
            request.setHeader(b"Content-Length", b"12345")
            return b""

        head, body = self.ask(act, b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").answer
        self.assertEqual((body, head.count(b"Content-Length: 12345")), (b"", 1))

    def test_a_form_in_parts(self) -> None:
        kind = b"Content-Type: multipart/form-data; boundary=xy"
        body = b'--xy\r\nContent-Disposition: form-data; name="n"\r\n\r\nv\r\n--xy--\r\n'
        self.assertEqual(self.ask(lambda request: request.args[b"n"][0], post(body, b"x", kind)).answer[1], b"v")

    def test_a_form_that_is_none(self) -> None:
        """The resource that asks for its fields need not know: 400, and no traceback."""
        sent = post(b"nothing", b"x", b"Content-Type: multipart/form-data")
        head, body = self.ask(lambda request: request.args[b"n"][0], sent).answer
        self.assertEqual(head[0], b"HTTP/1.1 400 Bad Request")
        self.assertIn(b"X-LLMProxy-Error: invalid_body", head)
        self.assertIn(b"The form has no parts.", body)

    def test_a_method_that_the_resource_does_not_have(self) -> None:
        head, _ = self.ask(lambda request: b"", b"DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n").answer
        self.assertEqual(head[0], b"HTTP/1.1 405 Method Not Allowed")
        self.assertIn(b"Allow: GET, HEAD, POST", head)

    def test_an_answer_that_is_no_bytes(self) -> None:
        self.assertEqual(self.ask(lambda request: "text").answer[0][0], b"HTTP/1.1 500 Internal Server Error")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_an_encoding_resource(self) -> None:
        inner = Answering(lambda request: b"hello" * 100)
        self.root.putChild(b"x", inner)
        self.root.putChild(b"z", resource.EncodingResourceWrapper(inner, [server.GzipEncoderFactory()]))
        client = self.client(b"GET /z HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        self.assertIn(b"Content-Encoding: gzip", client.answer[0])
        self.assertEqual(decompressobj(16 + MAX_WBITS).decompress(self.body(client)), b"hello" * 100)

    def test_validators(self) -> None:
        def act(request: Any) -> bytes:
            return b"" if request.setETag(b'"a"') or request.setLastModified(1e9) else b"hello"

        head, body = self.ask(act).answer
        self.assertIn(b'ETag: "a"', head)
        self.assertIn(b"Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT", head)
        head, body = self.ask(act, b'GET /x HTTP/1.1\r\nHost: a\r\nIf-None-Match: "a"\r\n\r\n').answer
        self.assertEqual((head[0], body), (b"HTTP/1.1 304 Not Modified", b""))
        self.assertFalse([line for line in head if line.startswith((b"Content-Length", b"Transfer"))])

    def test_notify_finish(self) -> None:
        ends: list[object] = []

        def act(request: Any) -> bytes:
            request.notifyFinish().addBoth(ends.append)
            return b""

        self.ask(act)
        self.assertEqual(ends, [None])
        self.client(GET % b"wait").leave()
        self.clock.advance(1)
        self.assertIsInstance(self.waiting.ends[0], Failure)

    def test_a_resource_that_fails(self) -> None:
        client = self.ask(lambda request: {}["secret"])
        head, body = client.answer
        self.assertEqual(head[0], b"HTTP/1.1 500 Internal Server Error")
        self.assertNotIn(b"secret", body)
        self.assertNotIn(b"Traceback", body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        client.send(GET % b"echo")
        self.assertIn(b"got /echo", client.received)

    def test_a_resource_that_fails_in_the_middle(self) -> None:
        def act(request: Any) -> bytes:
            request.write(b"half")
            raise KeyError("secret")

        client = self.ask(act)
        self.assertTrue(client.received.endswith(b"\r\n\r\n4\r\nhalf\r\n"))
        self.assertTrue(client.ended)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_resource_that_closes_the_connection(self) -> None:
        def act(request: Any) -> bytes:
            request.setHeader(b"Connection", b"close")
            return b"bye"

        client = self.ask(act)
        self.assertEqual(client.answer[0].count(b"Connection: close"), 1)
        self.assertTrue(client.ended)

    def test_finishing_twice(self) -> None:
        self.client(GET % b"wait")
        self.request.finish()
        self.assertRaises(RuntimeError, self.request.write, b"more")
        with mock.patch("warnings.warn") as warned:
            self.request.finish()
        self.assertEqual(warned.call_count, 1)

    def test_a_push_producer(self) -> None:
        producer = Producer()

        def act(request: Any) -> int:
            request.registerProducer(producer, True)
            request.write(b"a" * 500_000)
            return NOT_DONE_YET

        client = self.client()
        client.link.far.pauseProducing()
        self.root.putChild(b"x", Answering(act))
        client.send(GET % b"x")
        self.assertEqual(producer.told, ["pause"])
        client.link.far.resumeProducing()
        client.link.pump()
        self.assertEqual(producer.told, ["pause", "resume"])
        client.leave()
        self.assertEqual(producer.told, ["pause", "resume", "stop"])

    def test_a_pull_producer(self) -> None:
        class Pull:
            def __init__(self, request: Any) -> None:
                self.pieces = [b"one", b"two"]
                self.request = request
                request.registerProducer(self, False)

            def resumeProducing(self) -> None:
                if self.pieces:
                    self.request.write(self.pieces.pop(0))
                else:
                    self.request.unregisterProducer()
                    self.request.finish()

        def act(request: Any) -> int:
            Pull(request)
            return NOT_DONE_YET

        client = self.ask(act)
        self.clock.pump([0] * 4)
        self.assertEqual(self.body(client), b"onetwo")


class Answers(Asking):
    """What the proxy writes."""

    def begun(self, *given: Any, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> tuple[list[bytes], Client]:
        client = self.client(method + b" /wait " + version + b"\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        self.request.begin(*given)
        return client.answer[0], client

    def test_lines_go_as_they_are(self) -> None:
        lines = [b"x-A:1", b"X-a: 2 ", b"Set-Cookie: a", b"Set-Cookie: b"]
        head, _ = self.begun(529, b"Overloaded now", lines, 5)
        self.assertEqual(head, [b"HTTP/1.1 529 Overloaded now", *lines, b"Content-Length: 5"])

    def test_a_length_that_is_not_known(self) -> None:
        head, client = self.begun(200, b"OK", [], None)
        self.assertEqual(head, [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"])
        self.request.write(b"hello")
        self.request.write(b"")
        self.request.write(b"a" * 10_000)
        self.request.finish()
        self.assertEqual(self.body(client), b"hello" + b"a" * 10_000)

    def test_a_piece_leaves_when_it_is_written(self) -> None:
        _, client = self.begun(200, b"OK", [], None)
        before = len(client.link.near.writes)
        self.request.write(b"hello")
        self.assertEqual(client.link.near.writes[before:], [b"5\r\nhello\r\n"])

    def test_chunks_leave_as_they_are(self) -> None:
        """They are counted as what they hold."""
        _, client = self.begun(200, b"OK", [], None)
        before = len(client.link.near.writes)
        self.assertTrue(self.request.write_chunk(b"5\r\nhello\r\n"))
        self.assertEqual(client.link.near.writes[before:], [b"5\r\nhello\r\n"])
        self.assertEqual(self.request.sentLength, 5)
        self.request.finish()
        self.assertEqual(self.body(client), b"hello")

    def test_where_chunks_cannot_leave(self) -> None:
        """Nothing is written then: before the head has left, where the body is in none, and once the client is gone."""
        for given, version in (((200, b"OK", [], None, True), b"HTTP/1.1"), ((200, b"OK", [], 5), b"HTTP/1.1"),
                               ((200, b"OK", [], None), b"HTTP/1.0")):  # fmt: skip
            client = self.client(b"GET /wait " + version + b"\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            self.request.begin(*given)
            before = client.received
            self.assertFalse(self.request.write_chunk(b"5\r\nhello\r\n"), given)
            self.assertEqual((client.received, self.request.sentLength), (before, 0), given)
        _, client = self.begun(200, b"OK", [], None)
        client.reset()
        self.assertFalse(self.request.write_chunk(b"5\r\nhello\r\n"))

    def test_answers_without_a_body(self) -> None:
        for code, method, length, fields in (
            (204, b"GET", None, []),
            (204, b"GET", 0, []),
            (304, b"GET", 7, []),
            (200, b"HEAD", 7, [b"Content-Length: 7"]),
            (200, b"HEAD", None, []),
        ):
            with self.subTest(code=code, method=method, length=length):
                head, client = self.begun(code, b"X", [], length, method=method)
                self.assertEqual(head[1:], fields)
                self.request.write(b"not to be sent")
                self.request.finish()
                client.send(GET % b"echo")
                self.assertEqual(client.answer[1].count(b"HTTP/1.1 200 OK"), 1)
                self.assertFalse(client.ended)

    def test_an_answer_shorter_than_announced_is_cut(self) -> None:
        _, client = self.begun(200, b"OK", [], 5)
        self.request.write(b"hell")
        self.request.finish()
        self.assertTrue(client.ended)

    def test_an_answer_longer_than_announced_is_cut(self) -> None:
        _, client = self.begun(200, b"OK", [], 5)
        self.assertRaises(RuntimeError, self.request.write, b"hello!")
        self.assertTrue(client.ended)

    def test_beginning_twice(self) -> None:
        self.begun(200, b"OK", [], 5)
        self.assertRaises(RuntimeError, self.request.begin, 200, b"OK", [], 5)

    def test_an_answer_that_is_cut_ends_visibly(self) -> None:
        _, client = self.begun(200, b"OK", [], None)
        self.request.write(b"half")
        self.request.abort()
        self.assertTrue(client.received.endswith(b"4\r\nhalf\r\n"))
        self.assertIs(client.peer.lost.type, ConnectionDone)
        self.assertTrue(self.request.gone)
        self.assertEqual(len(self.waiting.ends), 1)

    def test_an_answer_whose_end_would_not_show_is_reset(self) -> None:
        _, client = self.begun(200, b"OK", [], None, version=b"HTTP/1.0")
        self.request.abort()
        self.assertTrue(client.link.near.aborted)

    def test_cutting_off_a_client_that_does_not_read(self) -> None:
        _, client = self.begun(200, b"OK", [], None)
        client.link.far.pauseProducing()
        self.request.write(b"a" * 500_000)
        self.request.abort()
        client.link.pump()
        self.clock.advance(5)
        self.assertTrue(client.link.near.aborted)

    def test_nothing_is_touched_once_the_client_is_gone(self) -> None:
        _, client = self.begun(200, b"OK", [], None)
        client.reset()
        producer = Producer()
        self.request.write(b"more")
        self.request.begin(200, b"OK", [], None)
        self.request.registerProducer(producer, True)
        self.request.unregisterProducer()
        self.request.abort()
        self.assertEqual(producer.told, ["stop"])
        self.assertRaises(RuntimeError, self.request.finish)

    def test_two_producers(self) -> None:
        self.begun(200, b"OK", [], None)
        self.request.registerProducer(Producer(), True)
        self.assertRaises(ValueError, self.request.registerProducer, Producer(), True)

    def test_nothing_is_made_that_nobody_asked_for(self) -> None:
        self.begun(200, b"OK", [], 0)
        self.request.finish()
        made = {"requestHeaders", "responseHeaders", "args", "content", "received_cookies", "client", "host"}
        self.assertEqual(made & set(vars(self.request)), set())
