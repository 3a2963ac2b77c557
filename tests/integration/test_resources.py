"""One tree of C{twisted.web} resources, on Twisted's own Site and on ours: whoever asks must not see a difference.

Both listen on real ports and are asked the same. What may differ is said in L{told}, and nothing else.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web import pages, resource, rewrite, server, util, vhost, wsgi
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.server import NOT_DONE_YET
from twisted.web.template import Element, TagLoader, renderElement, tags
from zope.interface import implementer

from llmproxy.wire.body_framing import ChunkedBody
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.server.site import Site
from tests.unit.wire.serving import Producer

with warnings.catch_warnings():  # Twisted's own, about what it imports from itself
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web import static

real: Any = reactor
CONTENT = bytes(range(256)) * 1000
LONG_AGO = 1_000_000_000
DATE = b"Sun, 09 Sep 2001 01:46:40 GMT"


class Doing(resource.Resource):
    """Answers GET and POST with what a function makes of the request."""

    isLeaf = True

    def __init__(self, act: Callable[[Any], Any]) -> None:
        super().__init__()
        self.render_GET = self.render_POST = act


def shown(request: Any) -> bytes:
    """All that a resource may ask of a request before it answers."""
    return repr(
        (
            request.method,
            request.uri,
            request.path,
            request.prepath,
            request.postpath,
            request.clientproto,
            sorted(request.args.items()),
            request.content.read(),
            sorted(request.getAllHeaders().items()),
            sorted(request.requestHeaders.getAllRawHeaders()),
            request.getHeader(b"x-twice"),
            request.requestHeaders.getRawHeaders(b"X-Twice"),
            sorted(request.received_cookies.items()),
            request.getCookie(b"a"),
            request.getUser(),
            request.getPassword(),
            request.getRequestHostname(),
            request.isSecure(),
            type(request.getClientAddress()).__name__,
            request.getClientAddress().host,
            request.getHost().host,
            request.prePathURL().partition(b"://")[0],
            str(request.URLPath()).rpartition(":")[2].partition("/")[2],
            request.childLink(b"c"),
            request.sibLink(b"s"),
            request.code,
            request.finished,
        )
    ).encode()


def many_fields(request: Any) -> bytes:
    request.setResponseCode(299, b"Quite fine")
    request.setHeader(b"x-one", b"1")
    request.responseHeaders.addRawHeader(b"X-Two", b"a")
    request.responseHeaders.addRawHeader(b"x-two", b"b")
    request.setHeader(b"content-type", b"text/x-own")
    request.addCookie(b"a", b"1", expires=b"Thu", domain=b"d", path=b"/p", max_age=b"5", comment=b"c", secure=True)
    request.addCookie("b", "2", httpOnly=True, sameSite="lax")
    return b"body"


def later(request: Any) -> int:
    """In pieces, over some turns of the reactor."""

    async def go_on() -> None:
        for piece in (b"one", b"", b"two", b"x" * 100_000):
            await deferLater(real, 0)
            request.write(piece)
        request.finish()

    Deferred.fromCoroutine(go_on())
    return NOT_DONE_YET


def announced(request: Any) -> int:
    """With a length of its own."""
    request.setHeader(b"content-length", b"6")
    request.write(b"abc")
    real.callLater(0, lambda: (request.write(b"def"), request.finish()))
    return NOT_DONE_YET


def empty(code: int) -> Callable[[Any], bytes]:
    def act(request: Any) -> bytes:
        request.setResponseCode(code)
        return b""

    return act


def unchanged(request: Any) -> bytes:
    request.setLastModified(LONG_AGO + 0.5)
    return b"" if request.setETag(b'"v1"') is http_cached else b"the whole"


http_cached = server.http.CACHED


class PullToPush:
    """A pull producer of twenty pieces."""

    def __init__(self, request: Any) -> None:
        self.left = 20
        self.request = request

    def resumeProducing(self) -> None:
        self.request.write(b"%d," % self.left * 1000)
        self.left -= 1
        if not self.left:
            self.request.unregisterProducer()
            self.request.finish()

    def stopProducing(self) -> None:
        """Nobody minds."""


def pulled(request: Any) -> int:
    request.registerProducer(PullToPush(request), False)
    return NOT_DONE_YET


class Pushed(Producer):
    """A push producer of five megabytes that does what it is told."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request
        self.left = 80
        self.going = True

    def pauseProducing(self) -> None:
        self.going = False

    def resumeProducing(self) -> None:
        self.going = True
        self.go_on()

    def go_on(self) -> None:
        while self.going and self.left:
            self.left -= 1
            self.request.write(bytes([self.left]) * 65536)
        if not self.left:
            self.left = -1
            self.request.unregisterProducer()
            self.request.finish()


def pushed(request: Any) -> int:
    producer = Pushed(request)
    request.registerProducer(producer, True)
    real.callLater(0, producer.go_on)
    return NOT_DONE_YET


def failing(request: Any) -> bytes:
    raise ValueError("What a resource did not expect.")


class Numbers(resource.Resource):
    """A tree that is made as it is walked; its leaves and its branches answer."""

    def getChild(self, path: bytes, request: Any) -> resource.Resource:
        return self if not path else Numbers() if path.isdigit() else pages.notFound("No number", "At all")

    def render_GET(self, request: Any) -> bytes:
        return repr((request.prepath, request.postpath)).encode()


class Page(Element):
    loader = TagLoader(tags.html(tags.body("<&>", tags.p("é"))))


@implementer(IRealm)
class Realm:
    def requestAvatar(self, avatar: bytes, mind: object, *interfaces: Any) -> Any:
        return resource.IResource, Doing(lambda request: b"hello " + avatar), lambda: None


def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
    body = environ["wsgi.input"].read()
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH")
    start("201 Made", [("X-App", "1")])
    yield repr([environ.get(name) for name in (*names, "SERVER_PROTOCOL", "HTTP_X_TWICE")]).encode()
    yield body


def tree(folder: str) -> resource.Resource:
    """Something of everything that C{twisted.web} has."""
    root = resource.Resource()
    inner = resource.Resource()
    hosts = vhost.NameVirtualHost()
    hosts.addHost(b"one.test", Doing(lambda request: b"one"))
    hosts.default = Doing(lambda request: b"another")
    checker = InMemoryUsernamePasswordDatabaseDontUse(joe=b"secret")
    gzip = resource.EncodingResourceWrapper(Doing(lambda request: b"hello" * 500), [server.GzipEncoderFactory()])
    for path, child in {
        b"": Doing(lambda request: b"index"),
        b"show": Doing(shown),
        b"fields": Doing(many_fields),
        b"later": Doing(later),
        b"announced": Doing(announced),
        b"no-content": Doing(empty(204)),
        b"not-modified": Doing(empty(304)),
        b"validators": Doing(unchanged),
        b"pulled": Doing(pulled),
        b"pushed": Doing(pushed),
        b"failing": Doing(failing),
        b"redirect": Doing(lambda request: util.redirectTo(b"/there?a=b", request)),
        b"moved": util.Redirect(b"/elsewhere"),
        b"parent": util.ParentRedirect(),
        b"deferred": util.DeferredResource(succeed(Doing(lambda request: b"in the end"))),
        b"error": pages.errorPage(418, "Teapot", "<Short and stout>"),
        b"forbidden": pages.forbidden("No"),
        b"numbers": Numbers(),
        b"hosts": hosts,
        b"monster": vhost.VHostMonsterResource(),
        b"guarded": HTTPAuthSessionWrapper(Portal(Realm(), [checker]), [BasicCredentialFactory(b"here")]),
        b"zipped": gzip,
        b"element": Doing(lambda request: renderElement(request, Page())),
        b"data": static.Data(b"some data", "text/x-data"),
        b"files": static.File(folder),
        b"written": rewrite.RewriterResource(inner, lambda request: request.postpath.insert(0, b"deep")),
        b"wsgi": wsgi.WSGIResource(real, real.getThreadPool(), application),
    }.items():
        root.putChild(path, child)
    inner.putChild(b"deep", Doing(lambda request: b"deep"))
    return root


def get(path: str, *lines: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    fixed = ["Host: a.test", *(["Connection: close"] if version == "1.1" else [])]
    if any(line.startswith("Host:") for line in lines):
        fixed = fixed[1:]
    if body:
        fixed.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/{version}", *fixed, *lines, "", ""]).encode() + body


FORM = "Content-Type: application/x-www-form-urlencoded"
PARTS = b'--xy\r\nContent-Disposition: form-data; name="n"\r\n\r\nv\r\nw\r\n--xy--\r\n'
RANGES = ("0-9", "10-10", "-5", "255990-", "0-", "300000-", "5-1", "x", "0-4,-5", "0-4,300000-", "1-2,4-5,7-8")
CASES = {
    "index": get("/"),
    "head": get("/", method="HEAD"),
    "http-1.0": get("/", version="1.0"),
    "nothing": get("/nothing/here"),
    "nothing-below-a-leaf": get("/data/below"),
    "show": get("/show/a%20b/c%2fd//e/?q=1&q=2&r=&s", "X-Twice: 1", "x-twice: 2", "Cookie: a=1; b=2; c"),
    "user": get("/show", "Authorization: Basic am9lOnNlY3JldDpt", "Host: a.test:81"),
    "form": get("/show?a=0", FORM, method="POST", body=b"a=1&b=x+y%20z"),
    "multipart": get("/show?a=0", "Content-Type: multipart/form-data; boundary=xy", method="POST", body=PARTS),
    "body": get("/show", "Content-Type: application/json", method="POST", body=b'{"a":1}' * 20_000),
    "chunked": get("/show", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n",
    "fields": get("/fields"),
    "later": get("/later"),
    "later-head": get("/later", method="HEAD"),
    "later-1.0": get("/later", version="1.0"),
    "announced": get("/announced"),
    "no-content": get("/no-content"),
    "not-modified": get("/not-modified"),
    "validators": get("/validators"),
    "etag-same": get("/validators", 'If-None-Match: W/"v0", "v1"'),
    "etag-other": get("/validators", 'If-None-Match: "v0"'),
    "not-modified-since": get("/validators", f"If-Modified-Since: {DATE.decode()}"),
    "pulled": get("/pulled"),
    "pushed": get("/pushed"),
    "method": get("/data", method="DELETE"),
    "method-unlike": get("/numbers", method="PUT"),
    "failing": get("/failing"),
    "redirect": get("/redirect"),
    "moved": get("/moved"),
    "parent": get("/parent"),
    "deferred": get("/deferred"),
    "error": get("/error"),
    "forbidden": get("/forbidden"),
    "numbers": get("/numbers/1/22/333?x"),
    "numbers-slash": get("/numbers/1/"),
    "no-number": get("/numbers/1/x"),
    "host-one": get("/hosts", "Host: one.test"),
    "host-two": get("/hosts", "Host: two.test:80"),
    "monster": get("/monster/https/outside.test:444/show"),
    "guard": get("/guarded"),
    "guard-open": get("/guarded", "Authorization: Basic am9lOnNlY3JldA=="),
    "guard-wrong": get("/guarded", "Authorization: Basic am9lOndyb25n"),
    "zipped": get("/zipped", "Accept-Encoding: gzip"),
    "not-zipped": get("/zipped"),
    "zipped-head": get("/zipped", "Accept-Encoding: gzip", method="HEAD"),
    "element": get("/element"),
    "data": get("/data"),
    "file": get("/files/f.bin"),
    "file-head": get("/files/f.bin", method="HEAD"),
    "file-empty": get("/files/empty.txt"),
    "file-missing": get("/files/g.bin"),
    "file-unchanged": get("/files/f.bin", f"If-Modified-Since: {DATE.decode()}"),
    "folder": get("/files/sub"),
    "folder-listing": get("/files/sub/"),
    "written": get("/written"),
    "wsgi": get("/wsgi/a%20b?c", "X-Twice: 1", method="POST", body=b"body"),
    **{
        f"range-{value}": get("/files/f.bin", f"Range: bytes={value}")
        for value in RANGES
    },
    "range-head": get("/files/f.bin", "Range: bytes=0-9", method="HEAD"),
}  # fmt: skip


class Reader(Protocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.over: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(b"".join(self.received))


# Fields that two honest servers need not agree on; all others must be the same, in number and value.
FREE = (b"date", b"server", b"connection", b"transfer-encoding")


def told(data: bytes, *, head_only: bool) -> tuple[Any, ...]:
    """Status, phrase, fields and body of an answer, without what may differ.

    The framing of a body is the site's, and so is a page that a site makes itself, where something went wrong. Three
    things Twisted does that HTTP forbids, and we do not: a length where there is no body (RFC 9110, section 8.6), a
    body after HEAD, and 501 for a method that is known.
    """
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    if (b"transfer-encoding", b"chunked") in fields:
        chunks = ChunkedBody(MessageLimits())
        body = b"".join(chunks.feed(body))
        assert chunks.done and not chunks.rest, "not all of it"
    status = int(first.split(b" ")[1])
    phrase = first.split(b" ", 2)[2]
    if status in (204, 304):
        fields = [(name, value) for name, value in fields if name != b"content-length"]
    if status in (405, 500, 501):
        return {501: 405}.get(status, status), ()
    if head_only:
        body = b""
    kept = sorted((name, _without_boundary(value)) for name, value in fields if name not in FREE)
    return status, phrase, kept, _without_boundary(body)


def _without_boundary(data: bytes) -> bytes:
    """What separates the parts of an answer in several ranges is made of the time and the process."""
    return re.sub(rb'(?<=boundary=)"?[0-9a-f]+"?|(?<=\r\n--)[0-9a-f]+', b"BOUNDARY", data)


class ResourceTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.addCleanup(self._only_of_its_own)

    def _only_of_its_own(self) -> None:
        """Twisted warns of the error pages that its own sites and resources use; of nothing else."""
        said = {warning["message"] for warning in self.flushWarnings()}
        self.assertEqual([text for text in said if "_Unsafe" not in text], [])

    async def listen(self, site: Any) -> int:
        port = await endpoints.TCP4ServerEndpoint(real, 0, interface="127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def ask(self, port: int, sent: bytes) -> bytes:
        where = endpoints.TCP4ClientEndpoint(real, "127.0.0.1", port)
        reader = await where.connect(Factory.forProtocol(Reader))
        reader.transport.write(sent)
        received: bytes = await reader.over
        return received

    def folder(self) -> str:
        folder = Path(self.mktemp())
        (folder / "sub").mkdir(parents=True)
        for name, content in (("f.bin", CONTENT), ("empty.txt", b""), ("sub/a.txt", b"a"), ("sub/b b.html", b"<b>")):
            (folder / name).write_bytes(content)
            os.utime(folder / name, (LONG_AGO, LONG_AGO))
        return str(folder)

    async def test_the_same_on_both_sites(self) -> None:
        """Every case gives the same answer, in every way that a resource decides."""
        folder = self.folder()
        theirs = await self.listen(server.Site(tree(folder), reactor=real))
        ours = await self.listen(Site(tree(folder), reactor=real))
        differences = {}
        for name, sent in CASES.items():
            head_only = sent.startswith(b"HEAD ")
            answers = [(await self.ask(port, sent)).replace(b":%d" % port, b":PORT") for port in (ours, theirs)]
            got, expected = (told(answer, head_only=head_only) for answer in answers)
            if got != expected:
                differences[name] = {"ours": got, "theirs": expected}
            if head_only:
                self.assertTrue(answers[0].endswith(b"\r\n\r\n"), name)
        self.assertEqual(differences, {})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    async def test_all_of_it_on_one_connection(self) -> None:
        """One request after the other, as fast as they can be sent: the answers are those, in that order."""
        folder = self.folder()
        port = await self.listen(Site(tree(folder), reactor=real))
        paths = ["/", "/later", "/files/f.bin", "/pushed", "/pulled", "/no-content", "/data", "/nothing", "/element"]
        kept = [get(path).replace(b"Connection: close\r\n", b"") for path in paths]
        alone = [await self.ask(port, get(path)) for path in paths]
        together = await self.ask(port, b"".join([*kept, get("/")]))
        for answer in alone:
            head, _, body = answer.partition(b"\r\n\r\n")
            status = head.partition(b"\r\n")[0]
            self.assertTrue(together.startswith(status), (status, together[:100]))
            _, _, together = together.partition(b"\r\n\r\n")
            self.assertTrue(together.startswith(body), status)
            together = together[len(body) :]
        self.assertTrue(together.endswith(b"\r\n\r\nindex"))

    async def test_sessions(self) -> None:
        """Are kept from one request to the next, each site for itself."""

        def act(request: Any) -> bytes:
            session = request.getSession()
            session.count = getattr(session, "count", 0) + 1
            if session.count == 2:
                session.expire()
            return b"%d" % session.count

        for made in (server.Site, Site):
            site = made(Doing(act), reactor=real)
            port = await self.listen(site)
            first = await self.ask(port, get("/"))
            cookie = re.search(rb"Set-Cookie: (TWISTED_SESSION=[0-9a-f]+); Path=/", first)
            assert cookie is not None
            second = await self.ask(port, get("/", f"Cookie: {cookie[1].decode()}"))
            third = await self.ask(port, get("/", f"Cookie: {cookie[1].decode()}"))
            self.assertEqual([answer[-1:] for answer in (first, second, third)], [b"1", b"2", b"1"])
            for session in list(site.sessions.values()):
                session.expire()

    async def test_the_end_of_a_request(self) -> None:
        """C{notifyFinish} tells how it ended: with the answer, or with the client's leaving, which stops a producer."""
        for made in (server.Site, Site):
            ends: list[Any] = []
            producer = Producer()

            def act(request: Any, ends: list[Any] = ends, producer: Any = producer) -> Any:
                for _ in range(2):
                    request.notifyFinish().addBoth(ends.append)
                if request.path == b"/short":
                    return b"short"
                request.registerProducer(producer, True)
                request.write(b"begun")
                return NOT_DONE_YET

            port = await self.listen(made(Doing(act), reactor=real))
            await self.ask(port, get("/short"))
            self.assertEqual(ends, [None, None])
            where = endpoints.TCP4ClientEndpoint(real, "127.0.0.1", port)
            reader = await where.connect(Factory.forProtocol(Reader))
            reader.transport.write(get("/long"))
            while not reader.received:
                await deferLater(real, 0.01)
            reader.transport.abortConnection()
            while len(ends) < 4:
                await deferLater(real, 0.01)
            self.assertTrue(all(isinstance(end, Failure) for end in ends[2:]))
            self.assertEqual(producer.told[-1], "stop")

    async def test_a_resource_that_loses_its_connection(self) -> None:
        """What it had written arrives; the client is told that this was not all."""

        def act(request: Any) -> int:
            request.write(b"half")
            request.loseConnection()
            return NOT_DONE_YET

        for made in (server.Site, Site):
            port = await self.listen(made(Doing(act), reactor=real))
            received = await self.ask(port, get("/").replace(b"Connection: close\r\n", b""))
            self.assertTrue(received.endswith(b"\r\n\r\n4\r\nhalf\r\n"), received)
