from __future__ import annotations

from unittest import TestCase

from llmproxy.http import body_hints


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
                self.assertEqual(body_hints.model_in_path(path), model)


class Streams(TestCase):
    def test_an_answer(self) -> None:
        """By its content type."""
        for kind in (b"text/event-stream", b"Text/Event-Stream; charset=utf-8", b"application/vnd.amazon.eventstream"):
            self.assertTrue(body_hints.is_stream_response([b"content-type: " + kind]))
        for lines in ([], [b"Content-Type: application/json"], [b"Content-Type: text/event-streams"]):
            self.assertFalse(body_hints.is_stream_response(lines))

    def test_server_sent_events(self) -> None:
        """Only these are events: other streams have formats of their own."""
        for value in (b"text/event-stream", b"Text/Event-Stream; charset=utf-8", b"text/event-stream ;a=b"):
            self.assertTrue(body_hints.is_event_stream([b"content-type: " + value]))
        for lines in ([], [b"Content-Type: application/x-ndjson"], [b"Content-Type: text/event-streams"]):
            self.assertFalse(body_hints.is_event_stream(lines))

    def test_a_media_type(self) -> None:
        self.assertEqual(body_hints.media_type([b"Content-Type:  Application/JSON ; a=b"]), b"application/json")
        self.assertEqual(body_hints.media_type([b"Content-Length: 1"]), b"")
        for value in (b"text/event-stream", b"  A/B;c", b"\ta/b ", b"", b"a:b", b"a/" + b"B" * 200):
            line = b"content-type:" + value
            self.assertEqual(body_hints.media_type_of(line), body_hints.media_type([line]), line)

    def test_a_request(self) -> None:
        """By its path, query or Accept."""
        self.assertFalse(body_hints.expects_stream(None, [b"Accept: application/json"]))
        self.assertFalse(body_hints.expects_stream(b"alt=json", []))
        self.assertTrue(body_hints.expects_stream(b"a=b&alt=sse", []))
        self.assertTrue(body_hints.expects_stream(None, [b"accept: text/event-stream"]))
        self.assertTrue(body_hints.names_stream(b"/v1/models/x:streamGenerateContent"))
        self.assertTrue(body_hints.names_stream(b"/model/x/invoke-with-response-stream"))
        self.assertFalse(body_hints.names_stream(b"/v1/models/x:generateContent"))
