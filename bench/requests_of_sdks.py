"""Requests as official clients send them: their heads, their body sizes, and which of their fields differ each time.

Field names and order as openai-python 2 and 3, anthropic-python, Claude Code 2 and Codex send them (httpx, undici and reqwest
below). The path is the mock's in all of them. C{@} marks sixteen hexadecimal digits that C{load} makes anew for each request.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence

PATH = "/v1/chat/completions"
HEX = "@" * 16
STAINLESS = """\
X-Stainless-Lang: {lang}
X-Stainless-Package-Version: {version}
X-Stainless-OS: Linux
X-Stainless-Arch: x64
X-Stainless-Runtime: {runtime}
X-Stainless-Runtime-Version: {runtime_version}
"""
PYTHON = {"lang": "python", "runtime": "CPython", "runtime_version": "3.12.7"}
NODE = {"lang": "js", "runtime": "node", "runtime_version": "v24.3.0"}

OPENAI_PYTHON = f"""\
Host: 127.0.0.1
Accept-Encoding: gzip, deflate, br, zstd
Connection: keep-alive
Accept: application/json
Content-Type: application/json
User-Agent: OpenAI/Python 3.54.0
{STAINLESS.format(version="3.54.0", **PYTHON)}@TOKEN@
X-Stainless-Async: false
x-stainless-retry-count: 0
x-stainless-read-timeout: 600
Idempotency-Key: stainless-python-retry-{HEX}
"""
TRACED = OPENAI_PYTHON + f"traceparent: 00-{HEX}{HEX}-{HEX}-01\nX-Request-ID: {HEX}{HEX}\n"
ANTHROPIC_PYTHON = f"""\
Host: 127.0.0.1
Accept-Encoding: gzip, deflate, br, zstd
Connection: keep-alive
Accept: application/json
Content-Type: application/json
User-Agent: Anthropic/Python 2.12.0
{STAINLESS.format(version="2.12.0", **PYTHON)}@TOKEN@
X-Stainless-Async: false
anthropic-version: 2023-06-01
x-stainless-retry-count: 0
x-stainless-timeout: 600
"""
CLAUDE_CODE = f"""\
Host: 127.0.0.1
Connection: keep-alive
Accept: application/json
X-Stainless-Retry-Count: 0
X-Stainless-Timeout: 600
{STAINLESS.format(version="0.70.0", **NODE)}anthropic-dangerous-direct-browser-access: true
anthropic-version: 2023-06-01
@TOKEN@
x-app: cli
User-Agent: claude-cli/2.0.55 (external, cli)
content-type: application/json
anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14
X-Claude-Code-Session-Id: 6f1c2d3e-4a5b-4c6d-8e7f-0123456789ab
accept-language: *
sec-fetch-mode: cors
accept-encoding: gzip, deflate, br, zstd
"""
CODEX = f"""\
Host: 127.0.0.1
version: 0.63.0
openai-beta: responses=experimental
thread-id: 019abcde-0123-7456-89ab-cdef01234567
session-id: 019abcde-0123-7456-89ab-cdef01234567
accept: text/event-stream
content-type: application/json
@TOKEN@
user-agent: codex_cli_rs/0.63.0 (Debian 12.0.0; x86_64) xterm-256color
originator: codex_cli_rs
traceparent: 00-{HEX}{HEX}-{HEX}-01
"""

RESPONSE = {
    "id": "chatcmpl-mock0000000000000000000000", "object": "chat.completion", "created": 1700000000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there, how may I help? " * 24},
                 "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
              "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}},
    "service_tier": "default", "system_fingerprint": "fp_mock",
}  # fmt: skip
GZIPPED = gzip.compress(json.dumps(RESPONSE, separators=(",", ":")).encode(), 6, mtime=0)

WORDS = "Please read the report below and say in one sentence what went wrong, and who should look at it next. \n"


def body(size: int, *, stream: bool) -> bytes:
    """A chat of about so many bytes; what steers the mock stands in front, as SDKs put the model.

    Streams tell their usage, as those do that Claude Code and Codex get.
    """
    model = "mock-e20-i0-d0-g1-u1" if stream else "mock-z1"
    turns = [{"role": "system", "content": "You are a careful engineer."}]
    while size > 400:
        piece = min(size, 4000)
        turns.append({"role": ("user", "assistant")[len(turns) % 2 == 0], "content": (WORDS * 40)[:piece]})
        size -= piece
    turns.append({"role": "user", "content": WORDS})
    request = {"model": model, "stream": stream, "messages": turns, "max_tokens": 512}
    if stream:
        request["stream_options"] = {"include_usage": True}
    return json.dumps(request, separators=(",", ":")).encode()


def request(head: str, size: int, *, stream: bool) -> bytes:
    sent = body(size, stream=stream)
    lines = [f"POST {PATH} HTTP/1.1", *head.replace("@TOKEN@\n", "").splitlines(), f"Content-Length: {len(sent)}"]
    return "\r\n".join(lines).encode() + b"\r\n@TOKEN@\r\n\r\n" + sent


def of_many(tokens: Sequence[str], sent: str) -> bytes:
    """This body as each of these tokens sends it from ten addresses, by a proxy in front that keeps its connections."""
    requests = []
    for client in range(10):
        for token in tokens:
            lines = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", f"X-Forwarded-For: 192.0.2.{client}",
                     f"traceparent: 00-{HEX}{HEX}-{HEX}-01", f"Authorization: Bearer {token}",
                     "Content-Type: application/json", f"Content-Length: {len(sent)}", "", sent]  # fmt: skip
            requests.append("\r\n".join(lines).encode())
    return b"".join(b"%d\n%b" % (len(each), each) for each in requests)


def distinct(sent: str) -> bytes:
    """This body with something in it that differs each time."""
    sent = sent.replace("the world", f"the world {HEX}")
    lines = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    request = "\r\n".join([*lines, f"Content-Length: {len(sent)}", "@TOKEN@", "", sent]).encode()
    return b"%d\n%b" % (len(request), request)


def mix() -> bytes:
    """Six kinds in turns, a third of them streams: what C{load -F} reads."""
    kinds = [
        request(OPENAI_PYTHON, 1_500, stream=False),
        request(CLAUDE_CODE, 116_000, stream=True),
        request(TRACED, 3_000, stream=False),
        request(ANTHROPIC_PYTHON, 6_000, stream=False),
        request(CODEX, 24_000, stream=True),
        request(OPENAI_PYTHON, 600, stream=False),
    ]
    return b"".join(b"%d\n%b" % (len(kind), kind) for kind in kinds)
