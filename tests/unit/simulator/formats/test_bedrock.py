"""Bedrock's answers, and its frames as a reader of them sees them."""

from __future__ import annotations

import json
import struct
import unittest
from base64 import b64decode
from typing import Any
from zlib import crc32

from llmproxy.simulator.dialect import Reply
from llmproxy.simulator.formats import bedrock
from tests.unit.simulator.formats.call import call, dollars, spoken

ASKED = {"messages": [{"role": "user", "content": [{"text": "one two"}]}]}
NOVA, CLAUDE = "amazon.nova-pro-v1:0", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"


def frames(reply: Reply) -> list[Any]:
    """The payloads, both checksums of each frame checked."""
    data, found = b"".join(reply.pieces), []
    while data:
        size, head, prelude = struct.unpack(">III", data[:12])
        assert prelude == crc32(data[:8])
        assert struct.unpack(">I", data[size - 4 : size])[0] == crc32(data[: size - 4])
        found.append(json.loads(data[12 + head : size - 4]))
        data = data[size:]
    return found


class BedrockTests(unittest.TestCase):
    def test_converse(self) -> None:
        made = bedrock.reply(call(f"{NOVA}/converse", ASKED, counts={"cached": 10}))
        self.assertEqual(spoken(made)["usage"]["inputTokens"], 2)
        self.assertEqual(dollars(made), (2 * 0.8 + 10 * 0.2 + 2 * 3.2) / 1e6)

    def test_converse_streamed_tells_in_its_last_frame(self) -> None:
        made = bedrock.reply(call(f"{NOVA}/converse-stream", ASKED))
        self.assertEqual(frames(made)[-1]["usage"]["totalTokens"], 4)

    def test_invoke_tells_in_its_head(self) -> None:
        made = bedrock.reply(call(f"{CLAUDE}/invoke", {**ASKED, "max_tokens": 9}))
        self.assertIn(b"x-amzn-bedrock-input-token-count: 2", made.lines)
        self.assertEqual(dollars(made), (2 * 3 + 2 * 15) / 1e6)

    def test_invoke_streamed_tells_in_its_last_chunk(self) -> None:
        last = frames(bedrock.reply(call(f"{CLAUDE}/invoke-with-response-stream", {**ASKED, "max_tokens": 9})))[-1]
        told = json.loads(b64decode(last["bytes"]))["amazon-bedrock-invocationMetrics"]
        self.assertEqual((told["inputTokenCount"], told["outputTokenCount"]), (2, 2))
