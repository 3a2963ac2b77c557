"""Measures what a request's body holds, as it passes: text by the kinds of its characters, and media by their headers.

A measure is no count of tokens, but what one can be estimated from. The text is measured as JSON writes it; of a long
one, what follows its beginning by samples, at places that nobody knows before. Media are base64 where the APIs have
them: data URLs (OpenAI), C{source.data} (Anthropic), C{inlineData.data} (Gemini),
C{input_audio.data}, C{bytes} (Bedrock).
"""

from __future__ import annotations

import re
from base64 import b64decode
from hashlib import sha256
from operator import add
from random import randrange
from typing import NamedTuple

from llmproxy.http.media_heads import MAX_HEAD_BYTES, Medium, medium
from llmproxy.http.text_measure import NO_SCRIPTS, REMOTE, REMOTE_MEDIA, TextMeasure, ascii_counts, text_counts

MAX_MEDIA = 2048  # that are told one by one
MIN_MEDIUM_BYTES = 128  # of base64; what is shorter is measured as text
_MEDIUM = re.compile(
    rb'"(?:data|url|image_url|file_data|bytes|file|image|audio|b64_json)"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}"'
    rb"(?:data:([^\"\\,]{0,128}),)?(?=[A-Za-z0-9+/_-]{64})"
)
_NAME = re.compile(rb'"(?=(?:data|url|image_url|fileUri|file_uri|file_data|bytes|file|image|audio|b64_json)")')
_WRAPPERS = (b'"image_url"', b'"fileUri"', b'"file_uri"')  # an address may stand in an object of theirs
# In lower case, those of whatever holds media, or refers to them (L{text_measure<llmproxy.http.text_measure>}).
MEDIA_NAMES = frozenset(
    b"data url image_url file_data bytes file image audio b64_json fileuri file_uri".split(),
)
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/_=-]+|\\/)*")
_BASE64_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_=-"
_CARRY = 512  # bytes in which what precedes a medium can stand

SLICE_BYTES = 8192  # of a long text that are measured, and known again, as one
MAX_KNOWN_SLICES = 8192
SAMPLE_BYTES = 512
# Between two words neither an escape, nor a run of anything, nor the name of a medium is cut in two. That a space is
# looked for, and what is before it afterwards, passes a run of letters a hundred times as fast.
_BEFORE_WORD = re.compile(rb" (?=[a-z])")
_END_OF_WORD = re.compile(rb"[a-z]{2}")
MAX_CUTS_TRIED = 50


_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class Effort(NamedTuple):
    """How closely a text is looked at.

    @ivar exact_bytes: Of its beginning, which are measured, all of them.
    @ivar part_bytes: Of what follows, of which L{SAMPLE_BYTES} are.
    """

    exact_bytes: int
    part_bytes: int


CLOSELY = Effort(128 * 1024, 8 * SAMPLE_BYTES)  # for whoever goes by what a request may use
ROUGHLY = Effort(16 * 1024, 32 * SAMPLE_BYTES)  # for the rare response that does not tell what was used


class KnownSlices:
    """Measures of the slices of long texts, by their digest: each turn of a conversation begins with all of those
    before it. The text itself is not kept.
    """

    def __init__(self, most: int = MAX_KNOWN_SLICES) -> None:
        self._most = most
        self._counts: dict[bytes, list[int]] = {}

    def counts(self, text: bytes) -> list[int]:
        """As L{text_counts}."""
        digest = sha256(text).digest()
        known = self._counts.get(digest)
        if known is None:
            if len(self._counts) >= self._most:
                self._counts.clear()
            known = self._counts[digest] = text_counts(text)
        return known


_KNOWN_SLICES = KnownSlices()  # of the process: what a text measures depends on nothing else


class ContentMeasure:
    """Takes a text in any chunks.

    @ivar media: What was found of media; C{more_media}: how many there were beyond L{MAX_MEDIA}.
    """

    def __init__(self, effort: Effort = CLOSELY) -> None:
        self._counts = [0] * (REMOTE_MEDIA + 1)
        self._carry = b""
        self._head: bytearray | None = None  # of the medium that is passing
        self._kind = b""
        self._length = 0
        self._exact = effort.exact_bytes  # that are left
        self._samples = TextSamples(effort.part_bytes)  # of what follows
        self.media: list[Medium] = []
        self.more_media = 0

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """The next bytes of the text.

        @param last: Whether no more follow, but the end.
        """
        if self._carry:
            data, self._carry = self._carry + data, b""
        at = 0
        if self._head is not None:
            at = self._pass(data, 0)
            if at == len(data):
                return
        while (quote := data.find(b'"', at)) >= 0 and (found := _MEDIUM.search(data, quote)) is not None:
            if len(data) - found.end() < MIN_MEDIUM_BYTES and len(data) - found.start() < _CARRY:
                self._text(data[at : found.start()])
                self._carry = data[found.start() :]
                return
            self._text(data[at : found.end()])
            self._head, self._kind, self._length = bytearray(), found[1] or b"", 0
            at = self._pass(data, found.end())
            if self._head is not None:
                return
        edge = len(data) if last else _edge(data, at)
        self._text(data[at:edge])
        self._carry = data[edge:]

    def feed_whole(self, data: bytes, media: int) -> None:
        """All of a text, and its end.

        @param media: What L{possible_media} says of it; it is looked for where there may be some.
        """
        exact = self._exact
        if media or len(data) > exact:
            self.feed(data[:exact])
            self.feed(data[exact:], last=True)
            self.end()
        else:
            self._text(data)

    def end(self) -> None:
        """There is no more."""
        if self._head is not None:
            self._medium()
        self._text(self._carry)
        self._carry = b""

    @property
    def text(self) -> TextMeasure:
        counts = map(add, self._counts[:REMOTE_MEDIA], self._samples.counts())
        return TextMeasure(*counts)

    @property
    def remote(self) -> int:
        """How many media are only referred to, by an address."""
        return self._counts[REMOTE_MEDIA]

    def _pass(self, data: bytes, at: int) -> int:
        """Pass over the medium; where it ends."""
        end = data.find(b'"', at)
        end = end if end >= 0 else len(data)
        if data[at:end].translate(None, _BASE64_BYTES):
            end = _BASE64.match(data, at).end()  # type: ignore[union-attr]
        head = self._head
        assert head is not None
        if len(head) < MAX_HEAD_BYTES:
            head += data[at : min(end, at + MAX_HEAD_BYTES - len(head))]
        self._length += end - at
        if end < len(data):
            self._medium()
        return end

    def _medium(self) -> None:
        head, self._head = bytes(self._head or b""), None
        if self._length < MIN_MEDIUM_BYTES:
            self._text(head)
        elif len(self.media) >= MAX_MEDIA:
            self.more_media += 1
        else:
            self.media.append(medium(self._kind, _decoded(head), self._length * 3 // 4))

    def _text(self, data: bytes) -> None:
        at, end = 0, len(data)
        self._exact -= end
        if self._exact < 0 and data:
            self._samples.feed(data)
            self._counts[REMOTE_MEDIA] += len(REMOTE.findall(data)) if b'"' in data else 0
            return
        while end - at >= 2 * SLICE_BYTES and (cut := _between_words(data, at + SLICE_BYTES)) >= 0:
            self._add(_KNOWN_SLICES.counts(data[at:cut]))
            at = cut
        if at < end:
            self._add(text_counts(data[at:]))

    def _add(self, counts: list[int]) -> None:
        self._counts = list(map(add, self._counts, counts))


class TextSamples:
    """Measures samples of a text: one of each part of it, at a place in it that the writer of the text cannot know."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._counts = [0] * (REMOTE_MEDIA + 1)
        self._size = 0  # bytes of the text
        self._sampled = 0  # bytes of the samples
        self._part = 0  # where the part begins
        self._next = 0  # where its sample does

    def feed(self, data: bytes) -> None:
        """The next bytes of the text."""
        start, self._size = self._size, self._size + len(data)
        samples = []
        while self._next < self._size:
            end = self._next + SAMPLE_BYTES
            samples.append(data[max(self._next - start, 0) : end - start])
            if end > self._size:
                break  # the rest of it is yet to come
            self._part += self._part_bytes
            self._next = self._part + randrange(self._part_bytes - SAMPLE_BYTES)
        if samples:
            text = b" ".join(samples)
            self._sampled += len(text)
            self._counts = list(map(add, self._counts, text_counts(text)))

    def counts(self) -> list[int]:
        """As L{text_counts}, of the whole text."""
        if self._size <= self._sampled:
            return self._counts
        return [round(count * self._size / self._sampled) for count in self._counts]


def measure_short_text(text: bytes) -> tuple[TextMeasure, int] | None:
    """What a whole text measures, and how many media it refers to.

    C{None} where there is none, where it is long, and where it holds media: L{ContentMeasure} measures that.
    """
    if not 0 < len(text) < SLICE_BYTES or _MEDIUM.search(text) is not None:
        return None
    find = text.find  # C{in} takes three times as long: CPython tries a number first
    if find(b"\\") < 0 and find(b'rl"') < 0 and find(b'ri"') < 0 and text.isascii():
        return _new(TextMeasure, ascii_counts(text) + NO_SCRIPTS), 0
    counts = text_counts(text)
    remote = counts.pop()
    return _new(TextMeasure, counts), remote


def measure_bare_text(text: bytes) -> tuple[TextMeasure, int] | None:
    """As L{measure_short_text}, of one in ASCII with no escape and none of the L{MEDIA_NAMES} in it."""
    return (_new(TextMeasure, ascii_counts(text) + NO_SCRIPTS), 0) if len(text) < SLICE_BYTES else None


def _between_words(data: bytes, start: int) -> int:
    """Where the next word ends that another follows; C{-1} where none does, or it is not found soon."""
    for _ in range(MAX_CUTS_TRIED):
        found = _BEFORE_WORD.search(data, start)
        if found is None:
            return -1
        start = found.start()
        if _END_OF_WORD.match(data, max(start - 2, 0), start):
            return start
        start += 1
    return -1


def possible_media(text: bytes) -> int:
    """How many media there may be in a text, each of which takes some work to be measured."""
    return len(_MEDIUM.findall(text))


def _edge(data: bytes, at: int) -> int:
    """Where what may be the beginning of a medium's member, or the middle of a word, begins at the end of C{data}."""
    names = [found.start() for found in _NAME.finditer(data, max(at, len(data) - 200))]
    if names:
        return next((name for name in names[-2:] if data.startswith(_WRAPPERS, name)), names[-1])
    back = data.rfind(b'"', max(at, len(data) - 12))
    space = data.rfind(b" ", max(at, len(data) - 40))
    return max(back, space) if max(back, space) >= 0 else len(data)


def _decoded(head: bytes) -> bytes:
    plain = head.replace(b"\\/", b"/").translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return b64decode(plain[: len(plain) // 4 * 4])
