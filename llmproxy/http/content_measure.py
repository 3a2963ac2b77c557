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

MAX_MEDIA = 2048  # that are told one by one
MIN_MEDIUM_BYTES = 128  # of base64; what is shorter is measured as text
LONG_WORD = 8  # letters from which a word is no usual one

_CLASSES = bytearray(b"." * 256)
for _first, _last, _class in (
    (0x09, 0x20, b" "),
    (0x0A, 0x0A, b"n"),
    (0x30, 0x39, b"0"),
    (0x41, 0x5A, b"A"),
    (0x61, 0x7A, b"a"),
    (0x80, 0xBF, b"~"),
    (0xC0, 0xC5, b"l"),
    (0xC6, 0xCF, b"g"),
    (0xD0, 0xD3, b"d"),
    (0xD4, 0xDF, b"g"),
    (0xE0, 0xE1, b"e"),
    (0xE2, 0xE2, b"f"),
    (0xE3, 0xE9, b"c"),
    (0xEA, 0xEF, b"k"),
    (0xF0, 0xFF, b"f"),
):
    for _byte in range(_first, _last + 1):
        _CLASSES[_byte] = _class[0]
_TABLE = bytes(_CLASSES)
_LETTERS = bytes(0x31 if _class in b"aA" else 0x30 for _class in _TABLE)  # digits of a number to the base of 2

_HANGUL = tuple(b"a b c A B C d0 d1 d2 d3 d4 d5 d6 d7 D0 D1 D2 D3 D4 D5 D6 D7".split())
_INDIC = tuple(b"0a 0b 0c 0d 0e 0f 0A 0B 0C 0D 0E 0F 1".split())
_ESCAPED = re.compile(rb"\\u[0-9a-fA-F]{4}")
_MEDIUM = re.compile(
    rb'"(?:data|url|image_url|file_data|bytes|file|image|audio|b64_json)"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}"'
    rb"(?:data:([^\"\\,]{0,128}),)?(?=[A-Za-z0-9+/_-]{64})"
)
_NAME = re.compile(rb'"(?=(?:data|url|image_url|file_data|bytes|file|image|audio|b64_json)")')
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/_=-]+|\\/)*")
_BASE64_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_=-"
_REMOTE = re.compile(
    rb'"(?:image_url|fileUri|file_uri)"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}'
    rb'(?:\{[ \t\r\n]{0,8}"url"[ \t\r\n]{0,8}:[ \t\r\n]{0,8})?'
    rb'"(?:https?|gs|s3):|"type"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}"url"'
)
_CARRY = 512  # bytes in which what precedes a medium can stand

SLICE_BYTES = 8192  # of a long text that are measured, and known again, as one
MAX_KNOWN_SLICES = 8192
SAMPLE_BYTES = 512
# Between two words neither an escape, nor a run of anything, nor the name of a medium is cut in two. That a space is
# looked for, and what is before it afterwards, passes a run of letters a hundred times as fast.
_BEFORE_WORD = re.compile(rb" (?=[a-z])")
_END_OF_WORD = re.compile(rb"[a-z]{2}")
MAX_CUTS_TRIED = 50


# Scripts that are counted, by their index in L{TextMeasure}.
_SCRIPTS = tuple(enumerate((b"l", b"d", b"g", b"e", b"c", b"k", b"f"), 11))  # none of them in ASCII


class Effort(NamedTuple):
    """How closely a text is looked at.

    @ivar exact_bytes: Of its beginning, which are measured, all of them.
    @ivar part_bytes: Of what follows, of which L{SAMPLE_BYTES} are.
    """

    exact_bytes: int
    part_bytes: int


CLOSELY = Effort(128 * 1024, 8 * SAMPLE_BYTES)  # for whoever goes by what a request may use
ROUGHLY = Effort(16 * 1024, 32 * SAMPLE_BYTES)  # for the rare response that does not tell what was used


class TextMeasure(NamedTuple):
    """Characters of a text by kind.

    @ivar words: Runs of ASCII letters; C{long_letters}: their letters beyond the first L{LONG_WORD} of each;
        C{humps}: capitals behind small letters.
    @ivar digits: Likewise C{signs}, C{spaces}, and how many pairs and triples of them there are side by side.
    @ivar latin: Letters of the Latin script that are not ASCII; C{cyrillic}; C{other}: of Greek, Arabic, Hebrew and the
        like; C{indic}: of Indic scripts, Thai, Georgian and the like; C{cjk}; C{hangul}; C{rare}: signs that are not
        ASCII, emoji, and whatever is beyond the basic plane.
    """

    words: int = 0
    long_letters: int = 0
    humps: int = 0
    digits: int = 0
    digit_pairs: int = 0
    digit_triples: int = 0
    signs: int = 0
    sign_pairs: int = 0
    spaces: int = 0
    space_pairs: int = 0
    lines: int = 0
    latin: int = 0
    cyrillic: int = 0
    other: int = 0
    indic: int = 0
    cjk: int = 0
    hangul: int = 0
    rare: int = 0


_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes
_LATIN = TextMeasure._fields.index("latin")
_REMOTE_MEDIA = len(TextMeasure._fields)  # the index of what is counted beside the text: media that are referred to


class KnownSlices:
    """Measures of the slices of long texts, by their digest: each turn of a conversation begins with all of those
    before it. The text itself is not kept.
    """

    def __init__(self, most: int = MAX_KNOWN_SLICES) -> None:
        self._most = most
        self._counts: dict[bytes, list[int]] = {}

    def counts(self, text: bytes) -> list[int]:
        """As L{_text_counts}."""
        digest = sha256(text).digest()
        known = self._counts.get(digest)
        if known is None:
            if len(self._counts) >= self._most:
                self._counts.clear()
            known = self._counts[digest] = _text_counts(text)
        return known


_KNOWN_SLICES = KnownSlices()  # of the process: what a text measures depends on nothing else


class ContentMeasure:
    """Takes a text in any chunks.

    @ivar media: What was found of media; C{more_media}: how many there were beyond L{MAX_MEDIA}.
    """

    def __init__(self, effort: Effort = CLOSELY) -> None:
        self._counts = [0] * (_REMOTE_MEDIA + 1)
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
        if media:
            self.feed(data, last=True)
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
        counts = map(add, self._counts[:_REMOTE_MEDIA], self._samples.counts())
        return TextMeasure(*counts)

    @property
    def remote(self) -> int:
        """How many media are only referred to, by an address."""
        return self._counts[_REMOTE_MEDIA]

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
            self._counts[_REMOTE_MEDIA] += len(_REMOTE.findall(data)) if b'"' in data else 0
            return
        while end - at >= 2 * SLICE_BYTES and (cut := _between_words(data, at + SLICE_BYTES)) >= 0:
            self._add(_KNOWN_SLICES.counts(data[at:cut]))
            at = cut
        if at < end:
            self._add(_text_counts(data[at:]))

    def _add(self, counts: list[int]) -> None:
        self._counts = list(map(add, self._counts, counts))


class TextSamples:
    """Measures samples of a text: one of each part of it, at a place in it that the writer of the text cannot know."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._counts = [0] * (_REMOTE_MEDIA + 1)
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
            self._counts = list(map(add, self._counts, _text_counts(text)))

    def counts(self) -> list[int]:
        """As L{_text_counts}, of the whole text."""
        if self._size <= self._sampled:
            return self._counts
        return [round(count * self._size / self._sampled) for count in self._counts]


def measure_short_text(text: bytes) -> tuple[TextMeasure, int] | None:
    """What a whole text measures, and how many media it refers to.

    C{None} where there is none, where it is long, and where it holds media: L{ContentMeasure} measures that.
    """
    if not 0 < len(text) < SLICE_BYTES or _MEDIUM.search(text) is not None:
        return None
    counts = _text_counts(text)
    remote = counts.pop()
    return _new(TextMeasure, counts), remote


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


def _text_counts(data: bytes) -> list[int]:
    """The figures of a L{TextMeasure}, and how many media a text refers to."""
    counts = [0] * (_REMOTE_MEDIA + 1)
    if b"\\" in data:
        data = _unescaped(data, counts)
    if b'rl"' in data or b'ri"' in data:  # as the names of all that refers to media end
        counts[_REMOTE_MEDIA] = len(_REMOTE.findall(data))
    classes = data.translate(_TABLE)
    counts[0], counts[1] = _add_words(data, counts[0], counts[1])
    # None of these is counted otherwise. Runs of a kind are only there where the kind is.
    count = classes.count
    counts[2] = count(b"aA")
    counts[3] = digits = count(b"0")
    counts[4] = pairs = count(b"00") if digits > 1 else 0
    counts[5] = count(b"000") if pairs else 0
    counts[6] = signs = count(b".")
    counts[7] = count(b"..") if signs > 1 else 0
    counts[8] = spaces = count(b" ")
    counts[9] = count(b"  ") if spaces > 1 else 0
    counts[10] = count(b"n")
    if not data.isascii():
        for index, script in _SCRIPTS:
            counts[index] += classes.count(script)
    return counts


def _unescaped(data: bytes, counts: list[int]) -> bytes:
    """Count what is written C{\\uXXXX}, and put the usual escapes right."""
    if b"\\u" in data:
        latin, total = data.count(b"\\u00") + data.count(b"\\u01"), data.count(b"\\u")
        cyrillic = data.count(b"\\u04")
        other = sum(data.count(b"\\u0%x" % digit) for digit in (2, 3, 5, 6, 7))
        indic = sum(data.count(b"\\u" + each) for each in (b"08", b"09", *_INDIC))
        hangul = sum(data.count(b"\\u" + each) for each in _HANGUL)
        pairs = sum(data.count(b"\\u" + each) for each in (b"d8", b"D8", b"d9", b"D9", b"da", b"DA", b"db", b"DB"))
        symbols = data.count(b"\\u2")
        cjk = max(total - latin - cyrillic - other - indic - hangul - symbols - 2 * pairs, 0)
        for number, each in enumerate((latin, cyrillic, other, indic, cjk, hangul, pairs + symbols), _LATIN):
            counts[number] += each
        data = _ESCAPED.sub(b"\x80", data)  # which ends a word, and is not counted
    if b"\\t" in data:
        data = data.replace(b"\\t", b" ")
    # To split and to join takes two thirds of the time of bytes.replace, which counts first.
    return b'"'.join(b"\n".join(data.split(b"\\n")).split(b'\\"'))


def possible_media(text: bytes) -> int:
    """How many media there may be in a text, each of which takes some work to be measured."""
    return len(_MEDIUM.findall(text))


def _add_words(data: bytes, words: int, long_letters: int) -> tuple[int, int]:
    """Count the runs of letters, and the letters in each that are beyond the first L{LONG_WORD}.

    Each letter is a bit of one number, so that all runs are looked at by a few operations on it: where as many letters
    begin as each name says.
    """
    one = int(data.translate(_LETTERS), 2)
    two = one & one >> 1
    four = two & two >> 2
    eight = four & four >> 4
    return words + one.bit_count() - two.bit_count(), long_letters + (eight & one >> LONG_WORD).bit_count()


def _edge(data: bytes, at: int) -> int:
    """Where what may be the beginning of a medium's member, or the middle of a word, begins at the end of C{data}."""
    names = [found.start() for found in _NAME.finditer(data, max(at, len(data) - 200))]
    if names:
        return next((name for name in names[-2:] if data.startswith(b'"image_url"', name)), names[-1])
    back = data.rfind(b'"', max(at, len(data) - 12))
    space = data.rfind(b" ", max(at, len(data) - 40))
    return max(back, space) if max(back, space) >= 0 else len(data)


def _decoded(head: bytes) -> bytes:
    plain = head.replace(b"\\/", b"/").translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return b64decode(plain[: len(plain) // 4 * 4])
