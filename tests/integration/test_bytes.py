"""What comes in goes out, byte for byte, both ways."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import Iterator

import pytest

from tests.support.stack import Stack

ODD = {
    "duplicate keys": b'{"model":"a","model":"b","x":1,"x":2}',
    "integers beyond 2^53": b'{"n":9007199254740993,"m":123456789012345678901234567890}',
    "not UTF-8": b'{"text":"\xff\xfe\x80"}',
    "white space and escapes": b' {\t"a" : "\\u0041\\/"\r\n}\n\n',
    "nothing": b"",
}


def bodies() -> Iterator[tuple[str, bytes]]:
    yield from ODD.items()
    made = random.Random(20261123)
    yield "gzip", gzip.compress(made.randbytes(50_000), mtime=0)
    for number in range(20):
        yield f"random {number}", made.randbytes(made.choice((1, 100, 4096, 65536, 65537, 300_000, 1 << 20)))


@pytest.mark.parametrize(("kind", "body"), list(bodies()), ids=lambda value: value if isinstance(value, str) else "")
def test_body_is_the_same_on_both_ends(stack: Stack, kind: str, body: bytes) -> None:
    given = {"X-Sim-Echo": "1", "Content-Type": "application/json"}
    if kind == "gzip":
        given["Content-Encoding"] = "gzip"
    reply = stack.ask("POST", "/anything/v1/echo", body, given)
    assert reply.status == 200, reply.body[:500]
    assert hashlib.sha256(reply.body).hexdigest() == hashlib.sha256(body).hexdigest()
    assert stack.last()["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_an_encoded_answer_is_not_decoded(stack: Stack) -> None:
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
    reply = stack.ask("POST", "/v1/chat/completions", body, {"X-Sim-Gzip": "1", "Accept-Encoding": "br;q=0.1, gzip"})
    assert reply.header("Content-Encoding") == "gzip"
    assert gzip.decompress(reply.body).startswith(b"{")
    assert "Accept-Encoding: br;q=0.1, gzip" in stack.last()["headers"]


def test_headers_pass_in_order_with_duplicates(stack: Stack) -> None:
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
    reply = stack.ask(
        "POST",
        "/v1/chat/completions",
        body,
        {
            "X-Sim-Header": "X-Twice: one",
            "x-ODD-case": "kept",
            "X-Forwarded-For": "1.1.1.1",
            "Cookie": "a=b",
            "Via": "1.1 a",
        },
    )
    sent = stack.last()["headers"]
    assert "x-ODD-case: kept" in sent
    assert "Via: 1.1 a" in sent and "Cookie: a=b" not in sent
    assert not [line for line in sent if line.lower().startswith("x-forwarded")]
    assert [line for line in sent if line.lower().startswith("host:")] == [f"Host: 127.0.0.1:{stack.simulator.port}"]
    assert reply.all("X-Twice") == ["one"]


def test_redirects_pass_and_are_not_followed(stack: Stack) -> None:
    before = len(stack.recorded())
    reply = stack.ask("GET", "/v1/models", headers={"X-Sim-Redirect": "http://127.0.0.1:9/elsewhere"})
    assert reply.status in (302, 307) and reply.header("Location") == "http://127.0.0.1:9/elsewhere"
    assert len(stack.recorded()) == before + 1


def test_cookies_pass_and_are_not_remembered(stack: Stack) -> None:
    reply = stack.ask("GET", "/v1/models", headers={"X-Sim-Cookie": "tenant=a"})
    assert reply.header("Set-Cookie") == "tenant=a"
    stack.ask("GET", "/v1/models")
    assert not [line for line in stack.last()["headers"] if line.lower().startswith("cookie")]
