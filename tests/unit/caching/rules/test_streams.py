"""Which streams are whole."""

from __future__ import annotations

from time import thread_time
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules.streams import is_complete

CHAT = b'data: {"choices":[]}\n\n'
DONE = b"data: [DONE]\n\n"
MESSAGE = (
    b'event: message_start\ndata: {"type":"message_start"}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSE = b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'
GEMINI = b'data: {"candidates":[]}\r\n\r\n'
PROVIDERS = ("openai", "azure", "mistral", "anthropic", "bedrock-bearer", "google", "generic")


class Complete(TestCase):
    def ends(self, body: bytes) -> list[str]:
        return [provider for provider in PROVIDERS if is_complete(provider, body)]

    def test_each_provider_ends_its_streams_in_its_own_way(self) -> None:
        """Another's end is no end."""
        self.assertEqual(self.ends(CHAT + DONE), ["openai", "azure", "mistral", "google", "generic"])
        self.assertEqual(self.ends(MESSAGE), ["anthropic", "bedrock-bearer", "google", "generic"])
        self.assertEqual(self.ends(RESPONSE), ["openai", "azure", "google", "generic"])
        self.assertEqual(self.ends(GEMINI), ["google"])

    def test_however_it_is_written(self) -> None:
        """Line ends of all kinds, no blank, no last blank line, a name or only a type, comments after it."""
        for body in (
            b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n",
            b"data: {}\r\rdata: [DONE]\r\r",
            b"data:[DONE]\n\n",
            b"data: [DONE]\n",
            b"data: [DONE]",
            CHAT + DONE + b": bye\n\n:\n\n",
            b'data: {"type":"response.incomplete"}\n\n',
            b'data: { "type" : "response.completed", "x": 1}\n\n',
        ):
            self.assertTrue(is_complete("openai", body), body)

    def test_half_of_one(self) -> None:
        """Wherever it is cut."""
        for body, provider in ((CHAT + DONE, "openai"), (MESSAGE, "anthropic"), (RESPONSE, "openai")):
            end = len(body.rstrip())
            for cut in range(end - 2, 0, -1):
                self.assertFalse(is_complete(provider, body[:cut]), (body[:cut], provider))
        self.assertEqual(self.ends(b""), [])
        self.assertEqual(self.ends(b": ping\n\n"), [])

    def test_an_end_that_is_only_quoted(self) -> None:
        """What a model says is not what the provider says."""
        for body in (b'data: {"content":"data: [DONE]"}\n\n', b'data: {"content":"\\n\\ndata: [DONE]\\n\\n"}\n\n'):
            self.assertEqual(self.ends(body), ["google"])

    def test_an_error_on_the_way(self) -> None:
        """It ended well, but it is not the answer."""
        for error in (b'data: {"error":{"message":"x"}}\n\n', b'event: error\ndata: {"type":"error"}\n\n'):
            for end in (DONE, MESSAGE, GEMINI, b""):
                self.assertEqual(self.ends(CHAT + error + end), [])
        self.assertEqual(self.ends(b'data: {"type":"response.failed"}\n\n'), ["google"])
        self.assertTrue(is_complete("openai", b'data: {"error":null,"choices":[]}\n\n' + DONE))

    def test_an_error_wherever_it_stands_in_its_event(self) -> None:
        """In any order, in lines of its own, however lines end; also one that cannot be read."""
        for error in (
            b'data: {"id":"a","object":"chat.completion.chunk","error":{"code":"server_error"},"choices":[{}]}',
            b'data: {"choices":[{"error":null}], "error" : "x"}',
            b'data: {"id": 1,\ndata: "error": {"code": 502}}',
            b'id: 1\ndata: {"type":"error","code":"ERR","message":"x"}',
            b'data: {"x":[1,2],"error":[]}\nevent: other',
            b"event: error\ndata: oh",
            b'data: {"error": "half',
            b'data: {"x":"\xff","error":1}',
            b"data: " + b'{"error":' * 100_000,
        ):
            for end in (b"\n", b"\r\n", b"\r"):
                body = b"".join([CHAT * 2, error, b"\n\n", CHAT * 2, DONE]).replace(b"\n", end)
                self.assertFalse(is_complete("openai", body), body[:200])
                self.assertFalse(is_complete("google", body.replace(DONE.replace(b"\n", end), b"")), body[:200])

    def test_what_is_no_error(self) -> None:
        """One that is null, one within something else, and one of which a model speaks."""
        for event in (
            b'data: {"id":"a","error":null,"choices":[]}',
            b'data: {"type":"response.created","response":{"error":null,"x":{"error":{"code":1}}}}',
            b'data: {"choices":[{"delta":{"content":"{\\"error\\": \\"x\\"}"}}]}',
            b'data: {"choices":[{"delta":{"content":"error"}}],"x":["error"]}',
            b'data: {"content":"\\nevent: error\\n"}',
            b'data: ["error", {"error": 1}]',
            b'data: {"error":1, "error":null}',
            b': "error"',
            b'event: "error"\ndata: {}',
        ):
            self.assertTrue(is_complete("openai", b"".join([CHAT, event, b"\n\n", CHAT, DONE])), event)

    def test_long_ones_take_no_time(self) -> None:
        """The loop is not held."""
        for body in (
            b"\n" * 1_000_000,
            b":\n\n" * 300_000,
            b"data: " + b"{" * 1_000_000 + b"\n\n",
            b"\r" * 999_999,
            b'"error"' * 50_000,
            b'"error"\n\n' * 20_000,
            b"\n" * 999_999 + b'"error"',
            b'data: {"error":null}\n\n' * 10_000,
        ):
            started = thread_time()
            self.ends(body)
            self.assertLess(thread_time() - started, 3.0)

    @given(st.binary(max_size=200), st.sampled_from(PROVIDERS))
    def test_any_bytes(self, body: bytes, provider: str) -> None:
        """Nothing fails, and whatever comes before a whole stream's end does not make it less whole."""
        is_complete(provider, body)
        if b"rror" not in body and provider == "openai":
            self.assertTrue(is_complete(provider, body + b"\n\n" + DONE))
