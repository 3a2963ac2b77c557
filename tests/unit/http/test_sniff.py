from __future__ import annotations

from time import process_time
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http import sniff
from llmproxy.http.sniff import Facts


class Bodies(TestCase):
    def test_model_and_stream(self) -> None:
        """However the body is laid out."""
        for body in (b'{"model":"gpt-4o","stream":true}', b'\n{ "stream" : true,\n "model" : "gpt-4o" }'):
            self.assertEqual(sniff.facts(body), Facts("gpt-4o", True))
        self.assertEqual(sniff.facts(b'{"model":"a\\u002fb","stream":false}'), Facts("a/b", False))

    def test_what_only_looks_like_it(self) -> None:
        """Text within a message, options, another type."""
        for body in (
            b'{"messages":[{"content":"{\\"model\\":\\"x\\",\\"stream\\":true}"}]}',
            b'{"stream_options":{"include_usage":true},"model":1}',
            b'{"stream":"true","models":"x"}',
            b'{"stream":truely}',
            b"model=x",
            b"",
            b'["model":"x"]',
        ):
            with self.subTest(body=body):
                self.assertEqual(sniff.facts(body), Facts())

    def test_a_broken_beginning(self) -> None:
        """What was cut tells what it can."""
        self.assertEqual(sniff.facts(b'{"stream":true,"model":"gp'), Facts("", True))
        self.assertEqual(sniff.facts(b'{"model":"\\q"}'), Facts())
        self.assertEqual(sniff.facts(b'{"model":"a\\u0000"}'), Facts())

    def test_long_names_are_cut(self) -> None:
        """A record does not grow with what a client makes up."""
        self.assertEqual(len(sniff.facts(b'{"model":"' + b"x" * 200 + b'"}').model), 128)
        self.assertEqual(sniff.facts(b'{"model":"' + b"x" * 2000 + b'"}').model, "")

    def test_hostile_beginnings_take_no_time(self) -> None:
        """Only the first 64 KiB are looked at, once."""
        for piece in (b'"model":"', b'"model" ', b'"model":"\\', b'"stream": ', b'"model":"x'):
            begin = process_time()
            sniff.facts(b"{" + piece * (2_000_000 // len(piece)))
            self.assertLess(process_time() - begin, 0.2)

    @given(st.binary(max_size=80).map(lambda tail: b'{"model":"' + tail))
    def test_any_bytes(self, body: bytes) -> None:
        """Nothing is raised, and what is told can be shown."""
        self.assertTrue(sniff.facts(body).model.isprintable())


class Paths(TestCase):
    def test_models_in_paths(self) -> None:
        """Gemini, Vertex AI, Azure, Bedrock."""
        for path, model in (
            (b"/v1beta/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
            (b"/v1/models/a:b:countTokens", "a:b"),
            (b"/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict", "claude"),
            (b"/openai/deployments/gpt-4o/chat/completions", "gpt-4o"),
            (b"/model/anthropic.claude-v2%3A1/invoke", "anthropic.claude-v2:1"),
            (b"/model/arn%3Aaws%2Fx/converse-stream", "arn:aws/x"),
            (b"/v1/models/gpt-4o", ""),
            (b"/v1/models", ""),
            (b"/v1/chat/completions", ""),
            (b"/v1/models/x%3A%67enerateContent", "x"),
            (b"/v1/models/x:generateContent/", "x"),
            (b"/v1/models/%78:generateContent", "x"),
            (b"/v1/models/a%2Fb:generateContent", "a/b"),
            (b"/v1/models/x%E2%80%8B:generateContent", "x\ufffd"),
            (b"/v1/models/" + b"x" * 500 + b":generateContent", "x" * 500),
        ):
            with self.subTest(path=path):
                self.assertEqual(sniff.model_in_path(path), model)


class Streams(TestCase):
    def test_an_answer(self) -> None:
        """By its content type."""
        for kind in (b"text/event-stream", b"Text/Event-Stream; charset=utf-8", b"application/vnd.amazon.eventstream"):
            self.assertTrue(sniff.is_stream_answer([b"content-type: " + kind]))
        for lines in ([], [b"Content-Type: application/json"], [b"Content-Type: text/event-streams"]):
            self.assertFalse(sniff.is_stream_answer(lines))

    def test_a_request(self) -> None:
        """By its path, query or Accept."""
        self.assertFalse(sniff.expects_stream(None, [b"Accept: application/json"]))
        self.assertFalse(sniff.expects_stream(b"alt=json", []))
        self.assertTrue(sniff.expects_stream(b"a=b&alt=sse", []))
        self.assertTrue(sniff.expects_stream(None, [b"accept: text/event-stream"]))
        self.assertTrue(sniff.names_stream(b"/v1/models/x:streamGenerateContent"))
        self.assertTrue(sniff.names_stream(b"/model/x/invoke-with-response-stream"))
        self.assertFalse(sniff.names_stream(b"/v1/models/x:generateContent"))
