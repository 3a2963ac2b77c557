"""Reads the wanted fields of a form as its bytes pass: C{multipart/form-data} (RFC 7578) and
C{application/x-www-form-urlencoded} (WHATWG URL, section 5). Files of any size pass by, and nothing of them is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from llmproxy.http.content_measure import ContentMeasure
from llmproxy.http.media_heads import MAX_HEAD_BYTES, Medium, medium

MAX_VALUE_BYTES = 64 * 1024  # of a field that is kept
MAX_NAME_BYTES = 1024  # of a wanted field, and of a file that is read as if it were one, in case a server does so
MAX_PARTS = 1024
MAX_FIELDS = 10_000
MAX_HEADER_BYTES = 4096


class Fields:
    """What both kinds of form have in common.

    @ivar members: The values of wanted fields; of one that is there several times, the last.
    @ivar repeated: Names of wanted fields that are there several times; C{oversize}: that are too long to be kept.
    @ivar problem: Why it cannot be read, a sentence; C{""} so far.
    @ivar steps: A measure of the work so far.
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._name: str | None = None
        self._value = bytearray()
        self.members: dict[str, str] = {}
        self.repeated: set[str] = set()
        self.oversize: set[str] = set()
        self.problem = ""
        self.complete = False
        self.steps = 0

    def _found(self, name: str, raw: bytes, *, is_file: bool = False) -> None:
        if not is_file and (name in self.members or name in self.oversize):
            self.repeated.add(name)
        if len(raw) > MAX_VALUE_BYTES or (is_file and len(raw) > MAX_NAME_BYTES):
            self.members[name] = ""
            self.oversize.add(name)
        else:
            self.members[name] = raw.decode("utf-8", "replace")


class MultipartFields(Fields):
    """The fields of C{multipart/form-data}.

    @ivar media: The files.
    """

    def __init__(self, boundary: str, wanted: Callable[[str], bool]) -> None:
        super().__init__(wanted)
        self.media: list[Medium] = []
        self._head: bytearray | None = None  # of the file that is passing
        self._type = b""
        self._size = 0
        self.measure = ContentMeasure()  # of the fields that are no files
        self._parser: PushMultipartParser | None = None
        try:
            self._parser = PushMultipartParser(
                boundary, max_header_size=MAX_HEADER_BYTES, max_segment_count=MAX_PARTS, strict=True
            )
        except (MultipartError, UnicodeError):
            self.problem = "The request's form has no boundary that can be read."

    def feed(self, data: bytes) -> None:
        """The next bytes of the form."""
        if self.problem or self._parser is None:
            return
        try:
            for event in self._parser.parse(data):
                self.steps += 1
                self._take(event)
        except (MultipartError, UnicodeError, ValueError):
            self.problem = "The request body is not a form that can be read."

    def end(self) -> None:
        """There is no more."""
        if self.problem or self._parser is None:
            return
        try:
            self._parser.close()
            self.complete = True
        except MultipartError:
            self.problem = "The request's form ends too early."

    def _take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        if event is None:
            if self._name is not None:
                self._found(self._name, bytes(self._value), is_file=self._head is not None)
            if self._head is not None and self._size:
                self.media.append(medium(self._type, bytes(self._head), self._size))
            self._name, self._value, self._head = None, bytearray(), None
        elif isinstance(event, MultipartSegment):
            self._size, self._head = 0, None if event.filename is None else bytearray()
            self._type = (event.content_type or "").encode("latin-1", "replace")
            name = event.name.removesuffix("[]")
            self._name = name if self._wanted(name) else None
            if self._name is not None and event.header("Content-Transfer-Encoding", "binary") not in _PLAIN:
                self.problem = "The request's form encodes its fields."  # which RFC 7578, section 4.7, has done away
        else:
            self._size += len(event)
            if self._head is not None and len(self._head) < MAX_HEAD_BYTES:
                self._head += event[: MAX_HEAD_BYTES - len(self._head)]
            elif self._head is None:
                self.measure.feed(bytes(event))
            if self._name is not None and len(self._value) <= MAX_VALUE_BYTES:
                self._value += event[: MAX_VALUE_BYTES + 1]


_PLAIN = frozenset(("binary", "8bit", "7bit", "Binary", "8Bit", "7Bit"))


class UrlencodedFields(Fields):
    """The fields of C{application/x-www-form-urlencoded}."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        super().__init__(wanted)
        self._held = bytearray()  # of the field that has not ended
        self._long = False

    def feed(self, data: bytes) -> None:
        """The next bytes of the form."""
        if self.problem:
            return
        *ended, rest = data.split(b"&")
        for piece in ended:
            self._add(piece)
            self._ended()
        self._add(rest)
        self.steps += len(ended)
        if self.steps > MAX_FIELDS:
            self.problem = "The request's form has more fields than this proxy reads."

    def end(self) -> None:
        """There is no more."""
        self._ended()
        self.complete = not self.problem

    def _add(self, piece: bytes) -> None:
        if len(self._held) <= 3 * MAX_VALUE_BYTES:  # each byte may be written with three
            self._held += piece[: 3 * MAX_VALUE_BYTES + 1]
        else:
            self._long = True

    def _ended(self) -> None:
        held, self._held, long = bytes(self._held), bytearray(), self._long
        self._long = False
        raw, _, value = held.partition(b"=")
        if not raw or len(raw) > 3 * MAX_NAME_BYTES:
            return
        name = _decoded(raw).decode("utf-8", "replace")
        if self._wanted(name):
            # Each percent sign is a byte at least, and takes its time.
            long = long or value.count(b"%") > MAX_VALUE_BYTES
            self._found(name, b"x" * (MAX_VALUE_BYTES + 1) if long else _decoded(value))


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
