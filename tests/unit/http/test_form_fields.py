from __future__ import annotations

from unittest import TestCase
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.form_fields import MultipartFields, UrlencodedFields
from tests.support.reading import everything

MODEL = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n%b\r\n'
END = b"--b--\r\n"


def multipart(body: bytes, piece: int = 0) -> MultipartFields:
    found = MultipartFields("b", everything)
    piece = piece or len(body)
    for at in range(0, len(body), piece):
        found.feed(body[at : at + piece])
    found.end()
    return found


class Multipart(TestCase):
    def test_before_between_and_behind_files(self) -> None:
        prompt = MODEL.replace(b"model", b"prompt")
        for body in (MODEL + FILE + prompt + END, FILE + MODEL + prompt + FILE + END, FILE + prompt + MODEL + END):
            found = multipart(body.replace(b"%b", b"\0" * 300_000), 4096)
            self.assertEqual((found.members["model"], found.complete), ("whisper-1", True))
            self.assertEqual({medium.size for medium in found.media}, {300_000})

    def test_files_are_not_kept(self) -> None:
        found = MultipartFields("b", {"model"}.__contains__)
        found.feed(FILE.partition(b"%b")[0])
        for _ in range(1000):
            found.feed(b"x" * 65_536)
        self.assertLess(len(found._head or b""), 300_000)
        self.assertLess(len(found._value), 300_000)

    def test_a_field_sent_as_a_file_is_read_too(self) -> None:
        found = multipart(FILE.replace(b'"file"', b'"model"') % b"o1" + END)
        self.assertEqual(found.members["model"], "o1")

    def test_twice(self) -> None:
        self.assertEqual(multipart(MODEL + MODEL + END).repeated, {"model"})

    def test_what_cannot_be_read(self) -> None:
        for body in (b"--x\r\n", MODEL, MODEL + b"--b", b"model=x", FILE % b"", MODEL.replace(b"\r\n", b"\n") + END):
            with self.subTest(body=body):
                found = multipart(body)
                self.assertTrue(found.problem)
                self.assertFalse(found.complete)
        self.assertTrue(MultipartFields("", everything).problem)
        encoded = MODEL.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
        self.assertTrue(multipart(encoded + END).problem)

    @given(st.binary(max_size=200), st.integers(1, 50))
    def test_any_bytes(self, body: bytes, piece: int) -> None:
        multipart(b"--b\r\n" + body, piece)


class Urlencoded(TestCase):
    @given(st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=6), st.integers(1, 20))
    def test_any_form(self, form: dict[str, str], piece: int) -> None:
        try:
            body = urlencode(form).encode()
        except UnicodeEncodeError:
            return
        found = UrlencodedFields(everything)
        for at in range(0, len(body), piece):
            found.feed(body[at : at + piece])
        found.end()
        self.assertEqual((found.members, found.complete), (form, True))

    def test_twice_and_too_long(self) -> None:
        found = UrlencodedFields(everything)
        found.feed(b"a=1&%61=2&b=" + b"x" * 1_000_000 + b"&c=3")
        found.end()
        self.assertEqual((found.members, found.repeated, found.oversize), ({"a": "2", "b": "", "c": "3"}, {"a"}, {"b"}))

    def test_too_many(self) -> None:
        found = UrlencodedFields(everything)
        found.feed(b"&" * 20_000)
        self.assertTrue(found.problem)
