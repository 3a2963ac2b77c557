from __future__ import annotations

import gzip
import random
import zlib
from functools import cache
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http.field_lines import FieldLines
from llmproxy.http.masking import (
    MIN_KEY_BYTES,
    ErrorMask,
    FilterChain,
    KeyFilter,
    KeyFound,
    Mask,
    MaskingPlan,
    Replacement,
    events_mask,
    mask_lines,
    mask_plan,
)

KEYS = st.text("ab-", min_size=1, max_size=6).map(str.encode)  # so that they overlap themselves, and stand anywhere
PIECES = st.lists(st.text("ab-", max_size=8).map(str.encode), max_size=12)


class Passing(TestCase):
    @given(KEYS, PIECES, st.text("ab-", max_size=12).map(str.encode), st.booleans())
    def test_what_needs_no_mask(self, secret: bytes, before: list[bytes], said: bytes, error: bool) -> None:
        """Whole events that pass are what the mask makes of them, and it goes on as if it had seen them."""
        asked, told = ErrorMask(secret), ErrorMask(secret)
        for piece in before:
            self.assertEqual(asked.feed(piece), told.feed(piece))
        events = b'data: {"error":{"message":"%b"}}\n\n' % said if error else b"data: %b\n\n" % said
        if asked.clean and asked.secret not in events:
            self.assertEqual(told.feed(events), events)
        else:
            asked.feed(events), told.feed(events)
        after = b'data: {"error":{"message":"%b"}}\n\n' % secret
        self.assertEqual(asked.feed(after) + asked.end(), told.feed(after) + told.end())


def masked(secret: bytes, pieces: list[bytes]) -> list[bytes]:
    mask = Mask(secret)
    return [*(mask.feed(piece) for piece in pieces), mask.end()]


class StreamsOfEvents(TestCase):
    def test_the_same_as_of_any_response(self) -> None:
        for secret in (
            b"short",
            b"k" * (MIN_KEY_BYTES - 1),
            b"k" * MIN_KEY_BYTES,
            b"sk-a-provider-key-of-usual-length",
        ):
            plan = mask_plan(200, [b"Content-Type: text/event-stream"], secret, bytes, stream=True, whole=None)
            mask = events_mask(secret)
            self.assertIs(plan.filter.__class__, mask.__class__)
            if mask is not None and plan.filter is not None:
                said = b'data: {"error": {"message": "%b"}}\n\n' % secret
                self.assertEqual(mask.feed(said), plan.filter.feed(said))
                self.assertNotIn(secret, mask.feed(said))


class Pieces(TestCase):
    @given(KEYS, PIECES)
    @example(b"aab", [b"aa", b"ab"])
    @example(b"aa", [b"a", b"a", b"a"])
    def test_any_split(self, secret: bytes, pieces: list[bytes]) -> None:
        """However the bytes are cut, the same come out, and as many; the secret is not among them."""
        whole = b"".join(pieces)
        got = b"".join(masked(secret, pieces))
        self.assertEqual(got, whole.replace(secret, b"*" * len(secret)))
        self.assertEqual(len(got), len(whole))
        self.assertNotIn(secret, got)

    @given(KEYS, PIECES)
    def test_what_is_held_back(self, secret: bytes, pieces: list[bytes]) -> None:
        """Is never more than the secret but one byte, and only what could become it."""
        mask = Mask(secret)
        given_so_far = got_so_far = 0
        for piece in pieces:
            given_so_far += len(piece)
            got_so_far += len(mask.feed(piece))
            self.assertLess(given_so_far - got_so_far, len(secret))
        held = mask.end()
        self.assertTrue(secret.startswith(held))
        self.assertEqual(mask.end(), b"")

    def test_bytes_that_have_nothing_of_it(self) -> None:
        """Pass at once."""
        self.assertEqual(masked(b"secret", [b"data: 1\n\n", b"xyz"]), [b"data: 1\n\n", b"xyz", b""])

    def test_its_beginning_at_the_end(self) -> None:
        """Is let go at the end: the answer must stay whole."""
        self.assertEqual(masked(b"secret", [b"a sec"]), [b"a ", b"sec"])


SECRET = b"sk-provider-0123456789"
STARS = b"*" * len(SECRET)
CODINGS = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress}
READ = {b"gzip": gzip.decompress, b"x-gzip": gzip.decompress, b"deflate": zlib.decompress}
EVENT = b'event: error\r\ndata: {"type": "error", "error": {"message": "no: %b"}}\r\n\r\n' % SECRET


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The same in pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def passed(rewriting: KeyFilter | None, pieces: list[bytes]) -> bytes:
    if rewriting is None:
        return b"".join(pieces)
    return b"".join([*(rewriting.feed(piece) for piece in pieces), rewriting.end()])


def shielded(
    code: int, encoding: bytes = b"", *, stream: bool = False, whole: bytes | None = None, kind: bytes = b"text/json"
) -> MaskingPlan:
    lines = [b"Content-Type: " + kind, *([b"Content-Encoding: " + encoding] if encoding else [])]
    return mask_plan(code, lines, SECRET, lambda: b'{"notice":1}', stream=stream, whole=whole)


SIZES = st.lists(st.integers(1, 40), max_size=12)


@cache
def bomb() -> bytes:
    return gzip.compress(b"\0" * 9_000_000)


class Refusals(TestCase):
    @given(st.sampled_from(sorted(CODINGS)), SIZES)
    def test_in_a_coding(self, encoding: bytes, sizes: list[int]) -> None:
        """It is masked within, and passes to the byte where there is nothing to mask."""
        for text in (b"no: %b!" % SECRET, b"no: %b!" % SECRET[:-1]):
            data = CODINGS[encoding](text)
            got = passed(shielded(401, encoding).filter, cut(data, sizes))
            self.assertEqual(READ[encoding](got), text.replace(SECRET, STARS))
            if SECRET not in text:
                self.assertEqual(got, data)

    def test_what_cannot_be_looked_into(self) -> None:
        """Is replaced: in its coding where that is known only at the end, without one where it is known at once."""
        data = gzip.compress(SECRET)
        bomb = gzip.compress(b"\0" * 20_000_000)
        long = gzip.compress(random.Random(1).randbytes(300_000))
        for coded in (data[:-9], b"plain %b" % SECRET, data + b"more", bomb, long):
            self.assertEqual(gzip.decompress(passed(shielded(401, b"gzip").filter, [coded])), b'{"notice":1}')
        for encoding in (b"compress", b"gzip, gzip", b"aes128gcm"):
            lines, rewriting = shielded(401, encoding)
            self.assertEqual(lines, [b"Content-Type: application/json"])
            self.assertEqual(passed(rewriting, [SECRET]), b'{"notice":1}')

    def test_no_body(self) -> None:
        self.assertEqual(passed(shielded(401, b"gzip").filter, []), b"")
        self.assertIsNone(shielded(304, b"compress").filter)


class Errors(TestCase):
    """Within answers of status 200."""

    @given(SIZES)
    def test_an_event_of_a_stream(self, sizes: list[int]) -> None:
        """However it is cut; what is no error says what it says."""
        before = b'data: {"error": null, "text": "my key is %b"}\r\n\r\n: ping\n\n' % SECRET
        got = passed(shielded(200, stream=True).filter, cut(before + EVENT + before, sizes))
        self.assertEqual(got, before + EVENT.replace(SECRET, STARS) + before)

    @given(SIZES)
    def test_a_body(self, sizes: list[int]) -> None:
        body = b'{"error": {"code": 401, "message": "%b"}}' % SECRET
        self.assertEqual(passed(shielded(200).filter, cut(body, sizes)), body.replace(SECRET, STARS))
        self.assertEqual(passed(shielded(200, whole=body).filter, [body]), body.replace(SECRET, STARS))

    def test_what_is_no_error(self) -> None:
        """Passes: a model's text may hold an escaped one."""
        body = b'{"error": null, "text": "{\\"error\\": {\\"message\\": \\"%b\\"}}"}' % SECRET
        self.assertEqual(passed(shielded(200).filter, [body]), body)
        self.assertEqual(passed(shielded(200, b"gzip").filter, [gzip.compress(body)]), gzip.compress(body))
        self.assertIsNone(shielded(200, kind=b"audio/mpeg").filter)
        self.assertIsNone(shielded(200, b"compress").filter)

    def test_a_key_that_is_a_word(self) -> None:
        """Is none: servers of one's own take any."""
        self.assertIsNone(mask_plan(200, [], b"ollama", bytes, stream=True, whole=None).filter)

    @given(st.sampled_from(sorted(CODINGS)), SIZES)
    def test_in_a_coding(self, encoding: bytes, sizes: list[int]) -> None:
        """Is masked where all of it is there; else it is cut before the key is out."""
        data = CODINGS[encoding](EVENT)
        got = passed(shielded(200, encoding, stream=True, whole=data).filter, [data])
        self.assertEqual(READ[encoding](got), EVENT.replace(SECRET, STARS))
        rewriting = shielded(200, encoding, stream=True).filter
        assert rewriting is not None
        out: list[bytes] = []
        with self.assertRaises(KeyFound):
            out.extend(map(rewriting.feed, cut(data, sizes)))
        bits = zlib.MAX_WBITS if encoding == b"deflate" else zlib.MAX_WBITS + 16
        self.assertNotIn(SECRET, zlib.decompressobj(bits).decompress(b"".join(out)))

    @given(SIZES)
    def test_a_coded_stream_without_the_key(self, sizes: list[int]) -> None:
        """Passes to the byte, and so does a bomb, or what is not so coded."""
        for data in (gzip.compress(EVENT.replace(SECRET, SECRET[:-1])), b"no gzip", bomb()):
            self.assertEqual(passed(shielded(200, b"gzip", stream=True).filter, cut(data, sizes)), data)

    def test_an_event_that_passes_in_pieces(self) -> None:
        """None is held longer than it must."""
        made = zlib.compressobj(wbits=31)
        rewriting = shielded(200, b"gzip", stream=True).filter
        assert rewriting is not None
        for _ in range(3):
            piece = made.compress(b'data: {"a": 1}\n\n') + made.flush(zlib.Z_SYNC_FLUSH)
            self.assertEqual(rewriting.feed(piece), piece)


class Chained(TestCase):
    def test_both(self) -> None:
        """What the first lets go at its end still goes through the second."""
        both = FilterChain(Mask(b"secret-one"), Mask(b"two"))
        self.assertEqual(both.feed(b"tw") + both.feed(b"o secret-one s") + both.end(), b"*** ********** s")
        self.assertTrue(both.keeps_length)
        self.assertFalse(FilterChain(Replacement(bytes), Mask(b"x")).keeps_length)


class Lines(TestCase):
    def test_with_and_without(self) -> None:
        lines = FieldLines.of([b"A: b", b"X-Key: my secret, secret"])
        self.assertEqual(mask_lines(lines, b"secret"), [b"A: b", b"X-Key: my ******, ******"])
        self.assertIs(mask_lines(lines, b"other"), lines)
