"""Reads what a request says of itself, once, for everybody who must know: policy, limits, metering and the ledger.

Fed with the body as it passes, it takes the request's own top-level members wherever they stand and however large the
body is: of a JSON object (RFC 8259), of a form (RFC 7578 and C{application/x-www-form-urlencoded}), decoded where the
body has a content coding (RFC 9110, section 8.4) that is readable here. What C{Content-Type} says does not count where
the body is a JSON object, since servers do not go by it either. A body that can be read in more ways than one
(a byte order mark, UTF-16, a name that is there twice) is read, and its C{problem} says why a policy refuses it.

It does no I/O and does its work in bounded steps: after L{RequestReader.feed}, whoever feeds it calls
L{RequestReader.work} in later turns of the reactor while there is something C{pending}.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from multipart import parse_options_header

from llmproxy.http import fields
from llmproxy.http.content_coding import Decoder, can_decode
from llmproxy.http.content_measure import CLOSELY, ContentMeasure, Effort
from llmproxy.http.form_fields import MultipartFields, UrlencodedFields
from llmproxy.http.json_encoding import json_encoding
from llmproxy.http.json_members import JsonMembers
from llmproxy.http.media_heads import Medium
from llmproxy.http.model_and_stream import shown_model
from llmproxy.http.text_measure import TextMeasure

MAX_SLICE_BYTES = 4096  # that are read at a time
MAX_TURN_BYTES = 64 * 1024  # that are read in one turn of the reactor
MAX_TURN_STEPS = 1000  # tokens of JSON that are taken one by one in one turn
MAX_TURN_SECONDS = 0.005
MAX_TYPE_BYTES = 4096  # of a Content-Type that is read
MAX_FORM_SLICE_BYTES = {"multipart": 16 * 1024, "urlencoded": 1024}  # in the latter, each byte may be a field
MAX_PENDING_BYTES = 4 * 1024 * 1024  # that wait to be read, beyond which the rest is not

_SPACE = b" \t\r\n"
_Wanted = Callable[[str], bool]
_NOT_UTF8 = "The request body is not plain UTF-8."

_UNMEASURED = TextMeasure()


class RequestContent(NamedTuple):
    """What a request's body says.

    @ivar form: C{json}, C{urlencoded}, C{multipart}, C{none} (there is no body), or C{unknown}.
    @ivar members: The wanted top-level members, decoded; of a form, strings.
    @ivar complete: Whether all of the body has been read.
    @ivar problem: Why it cannot be read, or not in one way only, a sentence; C{""} where it can.
    @ivar repeated: Names of wanted members that are there more than once.
    @ivar oversize: Names of wanted members that are too long to be read.
    @ivar size: Bytes of the body so far, decoded.
    @ivar text: What its text is made of; C{media}: the media in it; C{unseen_media}: how many there are that are only
        referred to, or too many to be told.
    """

    form: str
    members: Mapping[str, Any]
    complete: bool
    problem: str
    repeated: frozenset[str]
    oversize: frozenset[str]
    size: int
    text: TextMeasure = _UNMEASURED
    media: Sequence[Medium] = ()
    unseen_media: int = 0

    @property
    def model(self) -> str:
        """The model that it names, as it may be shown; C{""} where it names none."""
        name = self.members.get("model")
        return shown_model(name) if isinstance(name, str) else ""

    @property
    def stream(self) -> bool:
        """Whether it asks for a stream."""
        said = self.members.get("stream")
        return said is True or (self.form != "json" and said in ("true", "True", "1"))


NO_CONTENT = RequestContent("none", {}, True, "", frozenset(), frozenset(), 0)


class RequestReader:
    """Reads one body."""

    def __init__(
        self, lines: Iterable[bytes], wanted: _Wanted, seconds: Callable[[], float] = float, effort: Effort = CLOSELY
    ) -> None:
        """
        @param lines: The request's header lines.
        @param wanted: Whether the value of a top-level member of that name is to be kept.
        @param seconds: A clock, by which a turn ends; without one it ends by what was read.
        @param effort: How closely its text is measured.
        """
        self._wanted = wanted
        self._seconds = seconds
        kind = fields.value(lines, b"content-type") or b""
        self._type = kind if len(kind) <= MAX_TYPE_BYTES else b""
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._working: Iterator[None] | None = None
        self._body: JsonMembers | MultipartFields | UrlencodedFields | None = None
        self._form = "none"
        self._problem = ""
        self._start = b""
        self._text: codecs.IncrementalDecoder | None = None
        self._transcoded = False
        self._measure = ContentMeasure(effort)
        self._size = 0
        self._ended = False
        self._decoded: deque[bytes] = deque()
        self._decoder: Decoder | None = None
        codings = content_codings(lines)
        if len(codings) > 1 or (codings and not can_decode(codings[0])):
            self._give_up("The request body has a content coding that cannot be read here.")
        elif codings:
            self._decoder = Decoder(codings[0], self._decoded.append)

    @property
    def queued(self) -> int:
        """Bytes that were fed and are not read yet."""
        return self._queued

    @property
    def pending(self) -> bool:
        """Whether there is something left to be read of what came."""
        return bool(self._queue or self._working is not None)

    def feed(self, data: bytes, *, at_once: bool = True) -> None:
        """The next bytes of the body, as they are on the wire. Reads as much as may be read in one turn.

        @param at_once: Whether to read now; else L{work} is called in a later turn.
        """
        if self._form == "unknown" or not data:
            self._size += len(data)
            return
        if self._queued > MAX_PENDING_BYTES:
            self._give_up("The request body takes too long to be read.")
            return
        self._queue.append(data)
        self._queued += len(data)
        if at_once:
            self.work()

    def end(self) -> None:
        """All of the body has come."""
        self._ended = True
        self.work()

    def work(self, until: float | None = None) -> None:
        """Read on, as much as may be read in one turn: until the clock shows so much, or L{MAX_TURN_SECONDS} later."""
        done, before = 0, 0 if self._body is None else self._body.steps
        until = self._seconds() + MAX_TURN_SECONDS if until is None else until
        if self._working is None and self._queue:
            self._working = self._reading()
        while self._working is not None:
            try:
                next(self._working)
            except StopIteration:
                self._working = None
                break
            done += MAX_SLICE_BYTES
            steps = 0 if self._body is None else self._body.steps
            if done >= MAX_TURN_BYTES or steps - before >= MAX_TURN_STEPS or self._seconds() > until:
                return
        if self._ended and not self._queue:
            self._end()

    def content(self) -> RequestContent:
        """What is known so far."""
        body = self._body
        if body is None:
            return RequestContent(self._form, _NOTHING, self._closed, self._problem, _NO, _NO, self._size)
        return RequestContent(
            self._form,
            body.members,
            self._closed and body.complete,
            self._problem or body.problem,
            frozenset(body.repeated),
            frozenset(body.oversize),
            self._size,
            self._measure.text,
            self._measure.media if self._form != "multipart" else [*self._measure.media, *body.media],  # type: ignore[union-attr]
            self._measure.remote + self._measure.more_media,
        )

    _closed = False

    def _reading(self) -> Iterator[None]:
        """Reads what is queued; a step for each slice."""
        while self._queue:
            data = self._queue.popleft()
            if self._decoder is None:
                yield from self._slices(data)
            else:
                for _ in self._decoder.decode_in_steps(data):
                    while self._decoded:
                        yield from self._slices(self._decoded.popleft())
                    if self._form == "unknown":
                        return
                if self._decoder.failed:
                    self._give_up("The request body is not encoded as it says.")
            self._queued = max(self._queued - len(data), 0)

    def _slices(self, data: bytes) -> Iterator[None]:
        self._size += len(data)
        at = 0
        while at < len(data) and self._form != "unknown":
            end = at + MAX_FORM_SLICE_BYTES.get(self._form, MAX_SLICE_BYTES)
            if isinstance(self._body, JsonMembers):
                end = max(end, self._body.ahead(data, at))
            self._read(data[at:end])
            at = end
            yield
            while isinstance(self._body, JsonMembers) and self._body.behind:
                self._body.feed(b"")
                yield

    def _read(self, data: bytes) -> None:
        if self._body is None:
            self._start += data.lstrip(_SPACE) if not self._start else data
            if len(self._start) < 4 and not self._ended:
                return
            data, self._start = self._start, b""
            self._begin(data)
        if self._text is not None:
            try:
                text = self._text.decode(data)
            except UnicodeDecodeError:
                if self._transcoded:
                    self._give_up(_NOT_UTF8)
                    return
                self._problem, self._text = _NOT_UTF8, None
            if self._transcoded:
                data = text.encode("utf-8", "surrogatepass")
        if self._body is not None:
            self._body.feed(data)
            if self._form != "multipart":
                self._measure.feed(data)

    def _begin(self, data: bytes) -> None:
        """The first bytes tell what it is."""
        if not data:
            return
        kind, options = parse_options_header(self._type.decode("latin-1"))
        coding = json_encoding(data)
        if data[:1] in (b"{", b"[") or coding:
            self._form = "json"
            self._body = JsonMembers(self._wanted)
            self._text = codecs.getincrementaldecoder(coding or "utf-8")()
            self._transcoded = bool(coding)
            if coding:
                self._problem = _NOT_UTF8
        elif kind == "multipart/form-data":
            self._form = "multipart"
            self._body = MultipartFields(options.get("boundary", ""), self._wanted)
            self._measure = self._body.measure
        elif kind == "application/x-www-form-urlencoded":
            self._form = "urlencoded"
            self._body = UrlencodedFields(self._wanted)
        else:
            self._give_up("The request body is neither a JSON object nor a form.")

    def _end(self) -> None:
        if self._closed:
            return
        if self._start and self._body is None:
            self._read(b"")
        if self._body is not None:
            self._body.end()
            self._measure.end()
        if isinstance(self._body, JsonMembers) and not self._body.is_object and not self._body.problem:
            self._problem = self._problem or "The request body is not a JSON object."
        if self._decoder is not None and not self._problem and self._size:
            if not self._decoder.complete:
                self._problem = "The request body ends too early."
            elif self._decoder.members > 1:
                self._problem = "The request body is encoded in more than one member."
        self._closed = self._form != "unknown"

    def _give_up(self, problem: str) -> None:
        self._form, self._problem, self._body = "unknown", problem, None
        self._queue.clear()
        self._queued = 0


_NO: frozenset[str] = frozenset()
_NOTHING: Mapping[str, Any] = {}


def content_codings(lines: Iterable[bytes]) -> list[bytes]:
    """How a body is encoded, in lower case; C{identity} is none."""
    each = b",".join(found).lower().split(b",") if (found := fields.values(lines, b"content-encoding")) else ()
    return [coding for part in each if (coding := part.strip()) not in (b"", b"identity")]
