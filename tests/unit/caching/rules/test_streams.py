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

    def test_long_ones_take_no_time(self) -> None:
        """The loop is not held."""
        for body in (b"\n" * 1_000_000, b":\n\n" * 300_000, b"data: " + b"{" * 1_000_000 + b"\n\n", b"\r" * 999_999):
            started = thread_time()
            self.ends(body)
            self.assertLess(thread_time() - started, 3.0)

    @given(st.binary(max_size=200), st.sampled_from(PROVIDERS))
    def test_any_bytes(self, body: bytes, provider: str) -> None:
        """Nothing fails, and whatever comes before a whole stream's end does not make it less whole."""
        is_complete(provider, body)
        if b"rror" not in body and provider == "openai":
            self.assertTrue(is_complete(provider, body + b"\n\n" + DONE))
