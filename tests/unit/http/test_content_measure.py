from __future__ import annotations

import json
from base64 import b64encode
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.content_measure import ContentMeasure
from tests.unit.http.test_media_heads import PNG, WAV

PICTURE = b64encode(PNG + bytes(5000)).decode()
SOUND = b64encode(WAV + bytes(6000)).decode()


def measure(body: bytes, piece: int = 0) -> ContentMeasure:
    found = ContentMeasure()
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
