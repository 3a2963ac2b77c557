from __future__ import annotations

import json
import re
from base64 import b64encode
from itertools import pairwise
from unittest import TestCase
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http import text_measure
from llmproxy.http.content_measure import (
    CLOSELY,
    ROUGHLY,
    SLICE_BYTES,
    ContentMeasure,
    Effort,
    KnownSlices,
    _edge,
    measure_short_text,
    possible_media,
)
from llmproxy.http.text_measure import _SCRIPTS, _TABLE, LONG_WORD, TextMeasure, text_counts
from tests.unit.http.test_media_heads import PNG, WAV

PICTURE = b64encode(PNG + bytes(5000)).decode()
SOUND = b64encode(WAV + bytes(6000)).decode()


def measure(body: bytes, piece: int = 0, effort: Effort = CLOSELY) -> ContentMeasure:
    found = ContentMeasure(effort)
    piece = piece or max(len(body), 1)
    for at in range(0, len(body), piece):
        found.feed(body[at : at + piece])
    found.end()
    return found


class Texts(TestCase):
    def test_by_kind(self) -> None:
        text = measure('{"a":"hello Wörld 12 Привет 漢字 한국 ไทย 😀"}'.encode()).text
        self.assertEqual((text.digits, text.cyrillic, text.cjk, text.hangul, text.indic, text.rare), (2, 6, 2, 2, 3, 1))
        self.assertEqual((text.latin, text.words), (1, 4))

    def test_escapes_are_the_same_text(self) -> None:
        text = {"a": "hello Привет 漢字 한국 ไทย 😀 é"}
        plain, escaped = (measure(json.dumps(text, ensure_ascii=each).encode()).text for each in (False, True))
        self.assertEqual(plain, escaped)

    def test_long_words(self) -> None:
        self.assertEqual(measure(b"a" * 100 + b" bbb").text.long_letters, 92)


PARAGRAPHS = (
    "Explain in two sentences what it is.\\n",
    "if (x > 10) { return 0x7f; }\\n",
    "Что это такое? ",
    "这是什么? ",
)


class LongTexts(TestCase):
    """Beyond their beginning, they are measured by samples."""

    def check(self, text: TextMeasure, exact: TextMeasure, part: float) -> None:
        for name, found, true in zip(exact._fields, text, exact, strict=True):
            if true > 20_000:
                self.assertLess(abs(found - true), part * true, name)

    def test_close_to_all_of_it(self) -> None:
        for first, second in pairwise(PARAGRAPHS):
            body = json.dumps({"content": first * 10_000 + second * 10_000}, ensure_ascii=False).encode()
            exact = measure(body, effort=Effort(len(body), 0)).text
            for piece in (1000, 4096, 65536):
                self.check(measure(body, piece).text, exact, 0.15)
                self.check(measure(body, piece, ROUGHLY).text, exact, 0.4)

    def test_the_beginning_is_measured_all_of_it(self) -> None:
        body = json.dumps({"content": "a b 1 " * (CLOSELY.exact_bytes // 6 - 10)}).encode()
        self.assertEqual(measure(body, 4096).text, measure(body, 4096, Effort(len(body), 0)).text)

    def test_what_is_no_text_is_seen_wherever_it_stands(self) -> None:
        """Media, whether they are there or referred to."""
        parts = [{"text": "words " * 60_000}, {"image_url": {"url": "https://x/y.png"}}]
        body = json.dumps({"content": [*parts, {"image_url": {"url": f"data:image/png;base64,{PICTURE}"}}, *parts]})
        for effort in (CLOSELY, ROUGHLY):
            for piece in (4096, 65536):
                found = measure(body.encode(), piece, effort)
                self.assertEqual((len(found.media), found.remote), (1, 2))


class Media(TestCase):
    def test_wherever_apis_have_them(self) -> None:
        for body in (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
            {"inlineData": {"mimeType": "image/png", "data": PICTURE}},
            {"image": {"format": "png", "source": {"bytes": PICTURE}}},
        ):
            for piece in (0, 1, 7, 1000):
                found = measure(json.dumps({"a": [body, "and text"]}).encode(), piece)
                (medium,) = found.media
                self.assertEqual((medium.kind, medium.width, medium.height), ("image", 1024, 768), body)
                self.assertLess(found.text.words, 30)

    def test_sounds(self) -> None:
        (medium,) = measure(json.dumps({"input_audio": {"data": SOUND, "format": "wav"}}).encode()).media
        self.assertEqual(medium.kind, "audio")

    def test_what_is_only_referred_to(self) -> None:
        body = {"a": [{"image_url": {"url": "https://x/y.png"}}, {"source": {"type": "url", "url": "https://x/z"}}]}
        self.assertEqual(measure(json.dumps(body).encode()).remote, 2)

    def test_text_that_only_looks_like_it(self) -> None:
        """Base64 in a message is text to the provider."""
        found = measure(json.dumps({"content": f"data:image/png;base64,{PICTURE}"}).encode())
        self.assertEqual(found.media, [])
        self.assertGreater(found.text.long_letters, 5000)

    @given(st.text('{"data url:,/+A1é\\n', max_size=300).map(str.encode), st.integers(1, 50))
    def test_any_pieces(self, body: bytes, piece: int) -> None:
        """What is counted hangs little on where the pieces end."""
        once, apart = measure(body).text, measure(body, piece).text
        self.assertEqual((once.digits, once.latin), (apart.digits, apart.latin))


LETTERS = bytes(0x61 if byte in b"aA" else 0x20 for byte in range(256))
NAMES = [b'"%b"' % name for name in b"data url image_url file_data bytes file image audio b64_json".split()]
REMOTE = re.compile(
    rb'"(?:image_url|fileUri|file_uri)"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}'
    rb'(?:\{[ \t\r\n]{0,8}"url"[ \t\r\n]{0,8}:[ \t\r\n]{0,8})?'
    rb'"(?:https?|gs|s3):|"type"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}"url"'
)
PARTS = st.sampled_from(
    [
        *'{}[]"\\:,/+ \n\t\x01aA1.-=é漢Ж😀',
        "\\n",
        '\\"',
        "\\t",
        "\\u00e9",
        "\\ud83d\\ude00",
        "\\\\n",
        "  ",
        "000",
        "word",
        "camelCase",
        "incomprehensible",
        '"type": "url"',
        '"image_url":{"url":"https://x"',
        '\\"type\\":\\"url\\"',
        '"file_uri" : "gs:',
        '"data":"',
    ]
)


class PlainMeasure(ContentMeasure):
    """Counts each kind by a search of its own."""

    def _text(self, data: bytes) -> None:
        counts = self._counts
        if b"\\" in data:
            data = self._unescaped(data)
        counts[-1] += len(REMOTE.findall(data))
        classes = data.translate(_TABLE)
        runs = (b" " + classes.translate(LETTERS)).split()
        counts[0] += len(runs)
        counts[1] += sum(max(len(run) - LONG_WORD, 0) for run in runs)
        for index, kind in enumerate((b"aA", b"0", b"00", b"000", b".", b"..", b" ", b"  ", b"n"), 2):
            counts[index] += classes.count(kind)
        for index, script in _SCRIPTS:
            counts[index] += classes.count(script)

    def _unescaped(self, data: bytes) -> bytes:
        counts = self._counts
        if b"\\u" in data:

            def found(digits: str) -> int:
                return sum(data.count(b"\\u" + each.encode()) for each in digits.split())

            latin, cyrillic, symbols = found("00 01"), found("04"), found("2")
            other = found("02 03 05 06 07")
            indic = found("08 09 0a 0b 0c 0d 0e 0f 0A 0B 0C 0D 0E 0F 1")
            hangul = found("a b c A B C d0 d1 d2 d3 d4 d5 d6 d7 D0 D1 D2 D3 D4 D5 D6 D7")
            pairs = found("d8 D8 d9 D9 da DA db DB")
            cjk = max(data.count(b"\\u") - latin - cyrillic - other - indic - hangul - symbols - 2 * pairs, 0)
            for index, each in enumerate((latin, cyrillic, other, indic, cjk, hangul, pairs + symbols), 11):
                counts[index] += each
            data = re.sub(rb"\\u[0-9a-fA-F]{4}", b"\x80", data)
        return data.replace(b"\\n", b"\n").replace(b'\\"', b'"').replace(b"\\t", b" ")


class Counting(TestCase):
    """What is counted by few passes is what many simple ones count."""

    def check(self, body: bytes) -> None:
        fast, plain = ContentMeasure(), PlainMeasure()
        for measure in (fast, plain):
            measure.feed(body)
            measure.end()
        self.assertEqual((fast.text, fast.remote, fast.media), (plain.text, plain.remote, plain.media))

    @given(st.lists(PARTS, max_size=80).map("".join).map(str.encode) | st.binary(max_size=200))
    def test_the_same(self, body: bytes) -> None:
        self.check(body)

    @given(
        st.lists(PARTS, max_size=80).map("".join).map(str.encode)
        | st.binary(max_size=200)
        | st.text('{"data url:,/+A1é\\n', max_size=300).map(str.encode)
    )
    def test_short_ones_at_once(self, body: bytes) -> None:
        measure = ContentMeasure()
        measure.feed(body, last=True)
        measure.end()
        short = measure_short_text(body)
        if short is None:
            self.assertTrue(not body or possible_media(body))
        else:
            self.assertEqual((*short, measure.media), (measure.text, measure.remote, []))

    @given(
        st.lists(st.sampled_from(["\\u", "0", "1", "2", "4", "8", "a", "c", "d", "D", "\\", "x", "|", '"', "\n"])).map(
            "".join
        )
    )
    def test_few_escapes(self, text: str) -> None:
        """They are found once, and counted as many are."""
        counts = []
        for few in (0, 1 << 30):
            with patch.object(text_measure, "FEW_ESCAPES", few):
                counts.append(text_counts(text.encode()))
        self.assertEqual(*counts)

    def test_addresses_at_the_end(self) -> None:
        """They are not cut off from the member that they stand in, however the text comes."""
        for name in ("image_url", "fileUri", "file_uri"):
            body = json.dumps({"a": "words " * 100, name: {"url": "https://x/y.png"}}).encode()
            for piece in (0, len(body) - 10, len(body) - 25):
                self.assertEqual(measure(body, piece).remote, 1, (name, piece))

    def test_long_ones_take_longer(self) -> None:
        self.assertIsNone(measure_short_text(b"x" * SLICE_BYTES))
        self.assertIsNotNone(measure_short_text(b"x" * (SLICE_BYTES - 1)))

    @given(st.lists(PARTS | st.sampled_from([" the word ", "a b", "\\t a"]), min_size=1, max_size=40).map("".join))
    def test_long_texts(self, text: str) -> None:
        """They are measured in slices that are known again, the second time and where more follows them."""
        long = text.encode() * (3 * SLICE_BYTES // len(text.encode()))
        self.check(long)
        self.check(long + b" and so on " + long[:SLICE_BYTES])

    def test_slices_are_known_again(self) -> None:
        """As many as there is room for."""
        known = KnownSlices(2)
        for text in (b"one 1", b"two 22", b"one 1", b"three 333", b"one 1"):
            self.assertEqual(known.counts(text)[3], len(text.split()[1]))

    @given(st.text(max_size=200), st.booleans())
    def test_any_text(self, text: str, escaped: bool) -> None:
        self.check(json.dumps({"messages": [{"content": text}]}, ensure_ascii=escaped).encode("utf-8", "replace"))

    @given(st.lists(st.sampled_from(["x", " ", '"', "a:", *(name.decode() for name in NAMES)]), max_size=60))
    def test_where_a_name_may_begin(self, parts: list[str]) -> None:
        """The last of the names of media near the end is not cut off from what follows, nor from C{image_url}."""
        data = "".join(parts).encode()
        names = sorted(
            found.start() for found in re.finditer(b"|".join(NAMES), data) if found.start() >= len(data) - 200
        )
        if names:
            before = len(names) > 1 and data.startswith(b'"image_url"', names[-2])
            self.assertEqual(_edge(data, 0), names[-2 if before else -1])
