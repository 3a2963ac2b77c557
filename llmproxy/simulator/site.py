"""The simulator's Resources: the providers' APIs, and C{/-/} for looking at what they received."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from email.parser import BytesParser
from email.policy import HTTP
from typing import IO, Any
from urllib.parse import parse_qsl

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from llmproxy.simulator.channel import Request, Site
from llmproxy.simulator.delivery import Delivery
from llmproxy.simulator.dialect import Call, Dialect, Refused, Reply, encode, whole
from llmproxy.simulator.journal import Journal
from llmproxy.simulator.keys import Keys
from llmproxy.simulator.routing import route
from llmproxy.simulator.steering import Steering, split, steering

_BLOCK = 64 * 1024
_JSON_BODY = 64 * 1024 * 1024


def make_site(keys: Keys, reactor: IReactorTime) -> Site:
    """Everything the simulator serves, with an empty journal."""
    journal = Journal(reactor)
    return Site(Root(Api(keys, reactor), Control(journal, reactor)), journal, reactor)


@implementer(IResource)
class Root(Resource):
    """C{/-/…} is the simulator's own; every other path is some provider's."""

    def __init__(self, api: Resource, control: Resource) -> None:
        super().__init__()
        self._api = api
        self.putChild(b"-", control)

    def getChild(self, path: bytes, request: Any) -> Resource:
        return self._api


class Control(Resource):
    """What was received, and bytes to download."""

    def __init__(self, journal: Journal, clock: IReactorTime) -> None:
        super().__init__()
        self.putChild(b"requests", Requests(journal))
        self.putChild(b"stats", Stats(journal))
        self.putChild(b"invoice", Invoice(journal))
        self.putChild(b"bytes", Bytes(clock))

    def getChild(self, path: bytes, request: Any) -> Any:
        return notFound()


class Requests(Resource):
    isLeaf = True

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        since = _query(request).get("since", "")
        return encode(self._journal.shown(int(since) if since.isdecimal() else 0))

    def render_DELETE(self, request: Request) -> bytes:
        self._journal.clear()
        request.setResponseCode(204)
        return b""


class Stats(Resource):
    isLeaf = True

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        return encode(self._journal.stats())


class Invoice(Resource):
    """What the remembered requests cost, as the providers' price pages say."""

    isLeaf = True

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        return encode(self._journal.invoice())


class Bytes(Resource):
    """C{?size=N&seed=S}: so many bytes, the same ones for the same seed; C{&chunked=1} hides how many."""

    isLeaf = True

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self._clock = clock

    def render_GET(self, request: Request) -> Any:
        try:
            steered = steering(request.lines)
            reply = self._reply(_query(request))
        except (Refused, ValueError) as e:
            request.setResponseCode(400)
            return str(e).encode()
        return _start(request, apply(reply, steered), steered, self._clock)

    def _reply(self, query: Mapping[str, str]) -> Reply:
        size, seed = int(query.get("size", "0")), query.get("seed", "0")
        length = None if query.get("chunked") == "1" else size
        return Reply(200, "application/octet-stream", pieces=pseudo_random(size, seed), length=length)


class Api(Resource):
    """All providers."""

    isLeaf = True

    def __init__(self, keys: Keys, clock: IReactorTime) -> None:
        super().__init__()
        self._keys = keys
        self._clock = clock

    def render(self, request: Any) -> Any:
        fields: dict[str, str] = {}
        for name, value in split(request.lines):
            fields.setdefault(name, value)
        dialect, path = route(request.path.decode("latin-1"), fields, self._keys)
        steered = Steering()
        request_id = f"req_sim_{request.entry.id:08d}"
        try:
            steered = steering(request.lines)
            reply = self._reply(request, dialect, path, fields, steered)
        except Refused as e:
            reply = whole(dialect.error(e.status, e.message, e.code, request_id), e.status)
        reply = replace(reply, lines=(*dialect.lines(request_id), *reply.lines))
        return _start(request, apply(reply, steered), steered, self._clock, dialect.error_event())

    def _reply(
        self, request: Request, dialect: Dialect, path: str | None, fields: Mapping[str, str], steered: Steering
    ) -> Reply:
        """What the provider says to this, before it is steered away from it."""
        call = _call(request, path or "", fields, steered)
        key = dialect.credential(call)
        if not self._keys.knows(dialect.NAME, key):
            raise Refused(
                401, f"Incorrect API key provided: {masked(key)}." if key else "You did not provide an API key."
            )
        if steered.fault == "early":
            raise Refused(steered.status or 413, "The request is too large.")
        if steered.echo:
            return _echo(request, fields, steered)
        if steered.redirect is not None:
            return Reply(steered.status or 307, "", b"", lines=(b"Location: " + steered.redirect,))
        if steered.status is not None and steered.status >= 400:
            raise Refused(steered.status, f"The simulator was asked for status {steered.status}.")
        if path is None:
            raise Refused(404, f"There is nothing at {request.path.decode('latin-1')}.")
        try:
            return dialect.reply(replace(call, body=_body(request, path)))
        except (TypeError, ValueError, AttributeError, KeyError) as e:
            raise Refused(400, f"The request body has a value of the wrong kind: {e}.") from e


def apply(reply: Reply, steered: Steering) -> Reply:
    """The response with the status and the lines it was steered to."""
    status = reply.status if steered.status is None else steered.status
    empty = status < 200 or status in (204, 304)
    return replace(
        reply,
        status=status,
        phrase=steered.phrase,
        content_type="" if empty else reply.content_type,
        lines=(*reply.lines, *steered.lines),
    )


def pseudo_random(size: int, seed: str) -> Iterator[bytes]:
    """C{size} bytes in blocks, each made when it is asked for."""
    source = random.Random(seed)
    for at in range(0, size, _BLOCK):
        yield source.randbytes(_BLOCK)[: size - at]


def masked(key: str) -> str:
    """As providers show a key that they refuse."""
    return key[:8] + "*" * max(len(key) - 12, 0) + key[12:][-4:]


def _start(request: Request, reply: Reply, steered: Steering, clock: IReactorTime, event: bytes = b"") -> int:
    """Send the response until it is complete or the client is gone."""
    if request.entry is not None and reply.status < 400:
        request.entry.bill = reply.bill
    running = Deferred.fromCoroutine(Delivery(request, reply, steered, clock, event).run())
    if not request.finished:
        request.notifyFinish().addErrback(lambda gone: running.cancel())
    running.addErrback(_stopped, request)
    return NOT_DONE_YET


def _stopped(failure: Failure, request: Request) -> None:
    if failure.check(CancelledError) and request.gone:
        return
    Logger().failure("The answer to {uri} broke off.", failure, uri=request.uri)
    if not request.gone:
        request.reset()


def _call(request: Request, path: str, fields: Mapping[str, str], steered: Steering) -> Call:
    return Call(
        method=request.method.decode("latin-1"),
        path=path,
        query=_query(request),
        fields=fields,
        body={},
        digest=request.digest,
        length=request.size,
        events=steered.events,
        size=steered.size,
        counts=steered.counts,
        tier=steered.tier,
        style=steered.style,
    )


def _body(request: Request, path: str) -> dict[str, Any]:
    if not request.size or path == "files":
        return {}
    if request.size > _JSON_BODY:
        raise Refused(413, "The request body is too large.")
    kind = request.getHeader("content-type") or ""
    if kind.startswith("multipart/form-data"):
        return form(kind, request.content.read())
    try:
        value = json.loads(request.content.read())
    except (ValueError, RecursionError) as e:
        raise Refused(400, "We could not parse the JSON body of your request.", "invalid_json") from e
    if not isinstance(value, dict):
        raise Refused(400, "The JSON body of your request is not an object.", "invalid_json")
    return value


def form(kind: str, body: bytes) -> dict[str, Any]:
    """The fields of a form with files in it; a file is what it is called."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode("latin-1") + b"\r\n\r\n" + body)
    if not message.is_multipart():
        raise Refused(400, "We could not parse the form of your request.", "invalid_form")
    named = ((part.get_param("name", header="content-disposition"), part) for part in message.iter_parts())
    return {str(name): part.get_filename() or part.get_content().strip() for name, part in named}


def _query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.uri.partition(b"?")[2].decode("latin-1"), keep_blank_values=True))


def _echo(request: Request, fields: Mapping[str, str], steered: Steering) -> Reply:
    """The body as it came, with the type and the encoding it came with."""
    size = max(-(-request.size // steered.events), 1) if steered.paced else _BLOCK
    encoding = fields.get("content-encoding")
    return Reply(
        200,
        fields.get("content-type", "application/octet-stream"),
        pieces=_blocks(request.content, size),
        length=None if steered.paced else request.size,
        lines=(b"Content-Encoding: " + encoding.encode("latin-1"),) if encoding else (),
    )


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while block := file.read(size):
        yield block
