"""C{llmproxy chat}."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result
from twisted.web.resource import Resource
from twisted.web.server import Request

from llmproxy.cli.chat import summary_line
from llmproxy.cli.chat_stream import TurnSummary
from tests.unit.cli.daemon import DaemonTestCase

OPENAI: list[dict[str, Any]] = [
    {"model": "gpt-4o-mini", "choices": [{"delta": {"content": "Hel"}}]},
    {"model": "gpt-4o-mini", "choices": [{"delta": {"content": "lo\x1b[2J"}}]},
    {"model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}},
]
ANTHROPIC: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {"model": "claude-sonnet-4-5", "usage": {"input_tokens": 5, "output_tokens": 1}},
    },
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}},
]


class Chat(Resource):
    """Streams these events, and remembers what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.bodies: list[dict[str, Any]] = []

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        self.bodies.append(json.loads(request.content.read()))
        if request.getHeader("authorization") != "Bearer sk-lp-1":
            request.setResponseCode(401)
            return json.dumps({"error": {"message": "This token is unknown."}}).encode()
        request.setHeader(b"x-ratelimit-limit-requests", b"60")
        request.setHeader(b"x-ratelimit-remaining-requests", b"59")
        events = ANTHROPIC if request.path == b"/anthropic/v1/messages" else OPENAI
        return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


class ChatTests(DaemonTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.chat = Chat()
        self.address = self.serve(self.chat)

    async def talk(self, *arguments: str, stdin: str = "Hi\nAgain\n", token: str = "sk-lp-1") -> Result:
        environ = {"LLMPROXY_URL": self.address, "LLMPROXY_TOKEN": token}
        return await self.run_cli("chat", *arguments, environ=environ, stdin=stdin)

    async def test_conversation(self) -> None:
        """Each message goes with all before it; what steers a terminal does not reach it."""
        result = await self.talk("--model", "gpt-4o-mini", "--system", "Be brief.")
        self.assertEqual((result.exit_code, result.stdout), (0, "Hello?[2J\nHello?[2J\n"))
        self.assertEqual([m["role"] for m in self.chat.bodies[1]["messages"]], ["system", "user", "assistant", "user"])
        self.assertIn("1000 input tokens, 500 output tokens", result.stderr)
        self.assertIn("$0.000450 ($0.000900 in all)", result.stderr)
        self.assertIn("59 of 60 requests left", result.stderr)

    async def test_anthropic(self) -> None:
        result = await self.talk("--api", "anthropic", "--format", "anthropic", "--model", "claude-sonnet-4-5")
        self.assertEqual((result.exit_code, result.stdout), (0, "Hello\nHello\n"))
        self.assertIn("5 input tokens, 7 output tokens", result.stderr)
        self.assertEqual(self.chat.bodies[0]["max_tokens"], 4096)

    async def test_refused(self) -> None:
        """A token that is none ends it, as does none at all."""
        result = await self.talk("--model", "gpt-4o-mini", token="sk-lp-2")
        self.assertEqual((result.exit_code, result.stdout), (77, ""))
        self.assertIn("This token is unknown.", result.stderr)
        self.assertEqual((await self.talk("--model", "gpt-4o-mini", token="")).exit_code, 77)

    def test_unknown_price(self) -> None:
        """What has no price is not free."""
        self.assertEqual(summary_line(TurnSummary(), None, 0.0), "usage not reported · price unknown")
