"""Amazon Bedrock: Converse, and InvokeModel of Claude; as JSON, and as streams of binary frames.

Amazon Bedrock's API reference (Converse, ConverseStream, InvokeModel, InvokeModelWithResponseStream); the frames
are those of C{application/vnd.amazon.eventstream}: lengths, headers and payload, each closed by a CRC-32.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from zlib import crc32

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import Call, Refused, Reply, bearer, encode, stream, whole
from llmproxy.simulator.formats import anthropic
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use

NAME = "bedrock"
FRAMES = "application/vnd.amazon.eventstream"

credential = bearer


def reply(call: Call) -> Reply:
    """C{call.path} is what follows C{/model/}."""
    model, _, verb = call.path.rpartition("/")
    if call.method != "POST" or not model:
        raise Refused(404, "UnknownOperationException")
    call.need("messages")
    use = call.use(count(call.body["messages"]), call.text.tokens)
    charge = bill("bedrock", model, use)
    match verb:
        case "converse":
            message = {"role": "assistant", "content": [{"text": str(call.text)}]}
            answer = {"output": {"message": message}, "stopReason": "end_turn", "metrics": {"latencyMs": 5}}
            return whole({**answer, "usage": _converse_usage(use)}).charged(charge)
        case "converse-stream":
            return stream(_converse_frames(call, use), FRAMES).charged(charge)
        case "invoke":
            named = replace(call, body={**call.body, "model": model})
            invoked = anthropic.messages(replace(named, body={**named.body, "stream": False}))
            return replace(invoked, lines=_counted(use), bill=charge)
        case "invoke-with-response-stream":
            return stream(_invoke_frames(call, use), FRAMES).charged(charge)
    raise Refused(404, "UnknownOperationException")


def error(status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
    return {"message": message}


def error_event() -> bytes:
    return frame({"message": "Too many requests"}, "throttlingException", "exception")


def lines(request_id: str) -> list[bytes]:
    return [b"x-amzn-RequestId: " + request_id.encode()]


def _counted(use: Use) -> tuple[bytes, ...]:
    given, made = use.input, use.completion
    return (b"x-amzn-bedrock-input-token-count: %d" % given, b"x-amzn-bedrock-output-token-count: %d" % made)


def _converse_usage(use: Use) -> dict[str, Any]:
    """C{inputTokens} are those that were neither read from the cache nor written to it (TokenUsage)."""
    return {
        "inputTokens": use.input,
        "outputTokens": use.completion,
        "totalTokens": use.prompt + use.completion,
        "cacheReadInputTokens": use.cached,
        "cacheWriteInputTokens": use.written + use.written_1h,
    }


def _converse_frames(call: Call, use: Use) -> Iterator[bytes]:
    yield frame({"role": "assistant"}, "messageStart")
    for piece in call.text:
        yield frame({"contentBlockIndex": 0, "delta": {"text": piece}}, "contentBlockDelta")
    yield frame({"contentBlockIndex": 0}, "contentBlockStop")
    yield frame({"stopReason": "end_turn"}, "messageStop")
    yield frame({"usage": _converse_usage(use), "metrics": {"latencyMs": 5}}, "metadata")


def _invoke_frames(call: Call, use: Use) -> Iterator[bytes]:
    def chunk(value: dict[str, Any]) -> bytes:
        return frame({"bytes": b64encode(encode(value)).decode()}, "chunk")

    told = anthropic.usage(use)
    yield chunk({"type": "message_start", "message": {"model": call.path.rpartition("/")[0], "usage": told}})
    for piece in call.text:
        yield chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
    yield chunk({"type": "message_delta", "delta": {}, "usage": {"output_tokens": use.completion}})
    metrics = {
        "inputTokenCount": use.input,
        "outputTokenCount": use.completion,
        "cacheReadInputTokenCount": use.cached,
        "cacheWriteInputTokenCount": use.written + use.written_1h,
    }
    yield chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics})


def frame(value: Any, name: str, kind: str = "event") -> bytes:
    """One binary frame."""
    payload = encode(value)
    named = {":event-type": name, ":content-type": "application/json", ":message-type": kind}
    head = b"".join(_header(*pair) for pair in named.items())
    prelude = struct.pack(">II", len(head) + len(payload) + 16, len(head))
    prelude += struct.pack(">I", crc32(prelude))
    body = prelude + head + payload
    return body + struct.pack(">I", crc32(body))


def _header(name: str, value: str) -> bytes:
    """A header of type 7, which is a string."""
    return struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
