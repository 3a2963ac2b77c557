"""Whatever a provider does to the started daemon, its client sees one clear outcome."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.test_malformed import lines_of, log_since, now_in_log
from tests.support.processes import HOST, free_port
from tests.support.scripted_provider import CLOSE, NEXT, RESET, Act, ScriptedProvider
from tests.support.stack import Stack, eventually

OK = b"HTTP/1.1 200 OK\r\n"
FINE = OK + b"Content-Length: 4\r\n\r\nfine"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BOMB = gzip.compress(bytes(50_000_000), mtime=0)
KEY = "sk-scripted-provider-key-0123456789"

# One 502 each, and that connection is never used again.
BROKEN: dict[str, Sequence[Act]] = {
    "reset-before-head": [RESET],
    "closed-before-head": [CLOSE],
    "reset-inside-head": [OK + b"Content-Le", 0.05, RESET],
    "closed-inside-head": [OK + b"Content-Le", CLOSE],
    "closed-after-interim": [CONTINUE, CLOSE],
    "garbage": [b"garbage\r\n\r\n"],
    "garbage-without-end": [b"\x00\x01\x02\x03"],
    "http-0.9": [b"<html>all of it</html>", CLOSE],
    "ssh": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "http-2": [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"],
    "version-2.0": [FINE.replace(b"/1.1", b"/2.0")],
    "status-99": [FINE.replace(b"200", b"99")],
    "status-099": [FINE.replace(b"200", b"099")],
    "status-600": [FINE.replace(b"200", b"600")],
    "status-2000": [FINE.replace(b"200", b"2000")],
    "status-abc": [FINE.replace(b"200", b"abc")],
    "status-negative": [FINE.replace(b"200", b"-200")],
    "two-spaces": [FINE.replace(b"1.1 ", b"1.1  ")],
    **{
        f"length-{name}": [OK + b"Content-Length: " + value + b"\r\n\r\nfine"]
        for name, value in (
            ("negative", b"-1"),
            ("plus", b"+4"),
            ("hex", b"0x4"),
            ("list", b"4, 4"),
            ("empty", b""),
            ("fraction", b"4.0"),
            ("words", b"four"),
            ("4300-digits", b"9" * 4300),
        )
    },
    "length-twice": [OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nfine"],
    "length-twice-different": [OK + b"Content-Length: 4\r\nContent-Length: 3\r\n\r\nfine"],
    "length-and-chunked": [OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"],
    "coding-gzip": [OK + b"Transfer-Encoding: gzip\r\n\r\n"],
    "coding-gzip-chunked": [OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"],
    "coding-identity": [OK + b"Transfer-Encoding: identity\r\n\r\nfine", CLOSE],
    "coding-chunked-identity": [OK + b"Transfer-Encoding: chunked, identity\r\n\r\n"],
    "coding-twice": [OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    "coding-in-1.0": [CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n"],
    "nul": [OK + b"X-A: \x00\r\nContent-Length: 4\r\n\r\nfine"],
    "bare-cr": [OK + b"X-A: b\rSet-Cookie: c\r\nContent-Length: 4\r\n\r\nfine"],
    "bare-lf": [OK + b"X-A: b\nSet-Cookie: c\r\nContent-Length: 4\r\n\r\nfine"],
    "bare-lf-everywhere": [FINE.replace(b"\r\n", b"\n")],
    "folded": [OK + b"X-A: b\r\n c\r\nContent-Length: 4\r\n\r\nfine"],
    "no-colon": [OK + b"X-A\r\nContent-Length: 4\r\n\r\nfine"],
    "space-before-colon": [OK + b"Content-Length : 4\r\n\r\nfine"],
    "endless-interim": [CONTINUE * 1000],
    "head-too-long": [OK + b"X-A: " + b"b" * 70_000 + b"\r\nContent-Length: 4\r\n\r\nfine"],
    "head-without-end": [OK + b"X-A: " + b"b" * 70_000],
    "too-many-fields": [OK + b"A: b\r\n" * 300 + b"Content-Length: 4\r\n\r\nfine"],
    "switching": [b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"],
    "switching-unasked": [b"HTTP/1.1 101 X\r\n\r\n" + FINE],
}
# The end of the answer never comes, whatever else does.
CUT: dict[str, Sequence[Act]] = {
    "chunked-closed": [CHUNKED + b"4\r\nfine\r\n", CLOSE],
    "chunked-reset": [CHUNKED + b"4\r\nfine\r\n", 0.05, RESET],
    "chunked-inside-a-chunk": [CHUNKED + b"4\r\nfi", CLOSE],
    "chunked-before-the-last-line": [CHUNKED + b"4\r\nfine\r\n0\r\n", CLOSE],
    "chunked-odd-size": [CHUNKED + b"4\r\nfine\r\nx\r\n"],
    "chunked-overflow": [CHUNKED + b"4\r\nfine\r\n" + b"f" * 17 + b"\r\n"],
    "chunked-odd-trailer": [CHUNKED + b"4\r\nfine\r\n0\r\nX-A\r\n\r\n"],
    "length-closed": [OK + b"Content-Length: 9\r\n\r\nfine", CLOSE],
    "length-reset": [OK + b"Content-Length: 9\r\n\r\nfine", 0.05, RESET],
    "without-length-reset": [OK + b"\r\nfine", 0.05, RESET],
    "silent": [CHUNKED + b"4\r\nfine\r\n"],
    "silent-with-length": [OK + b"Content-Length: 9\r\n\r\nfine"],
}
SILENT: dict[str, Sequence[Act]] = {
    "silent-head": [],
    "silent-inside-head": [OK + b"Content-Le"],
    "silent-after-interim": [CONTINUE],
    "head-by-bytes": [part for c in OK + b"X-A: " + b"b" * 60 for part in (bytes([c]), 0.1)],
}
ANSWERED: dict[str, Sequence[Act]] = {
    "fine": [FINE],
    "continue": [CONTINUE + FINE],
    "early-hints": [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.05, FINE],
    "trailers": [CHUNKED + b"4\r\nfine\r\n0\r\nX-Trailer: TRAILER\r\nSet-Cookie: TRAILER\r\n\r\n"],
    "extensions": [CHUNKED + b'4;a="b"\r\nfine\r\n0;c\r\n\r\n'],
    "close-delimited": [OK + b"\r\nfi", 0.05, b"ne", CLOSE],
    "close-delimited-1.0": [b"HTTP/1.0 200 OK\r\n\r\nfine", CLOSE],
    "says-more": [FINE + b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nPOISONED"],
    "no-phrase": [FINE.replace(b" OK", b"")],
}
BODILESS: dict[str, Sequence[Act]] = {
    "head-with-length": [OK + b"Content-Length: 8\r\n\r\n"],
    "head-with-body": [OK + b"Content-Length: 8\r\n\r\nPOISONED"],
    "head-with-answer": [OK + b"Content-Length: 8\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nPOISONED"],
    "204": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "204-with-body": [b"HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nPOISONED"],
    "304-with-length": [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\n"],
    "304-with-body": [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\nPOISONED"],
    "304-chunked": [b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nPOISONED\r\n0\r\n\r\n"],
}
MORE: dict[str, Sequence[Act]] = {
    "once": [FINE, NEXT, CLOSE],
    "once-and-reset": [FINE, NEXT, RESET],
    "at-once": [FINE, CLOSE],
    "early": [b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nfine"],
    "early-close": [b"HTTP/1.1 413 Too Much\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine"],
    "bomb": [OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB],
    "key": [b"HTTP/1.1 401 No\r\nX-Key: %b\r\nContent-Length: 43\r\n\r\nno: %b, no" % (KEY.encode(), KEY.encode())],
    "key-in-pieces": [
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        *[part for c in KEY.encode() for part in (b"1\r\n%c\r\n" % c, 0.002)],
        b"0\r\n\r\n",
    ],
}


def apis(port: int) -> str:
    """Two further APIs: the one behind the scripts, and one where nobody listens."""
    return f"""timeouts: {{}}
  scripted:
    base_url: http://{HOST}:{port}
    allowed_endpoints: ["/**"]
    allowed_methods: [GET, HEAD, POST]
    circuit_breaker: {{failures: 0}}
    timeouts: {{request: 1s}}
  nobody:
    base_url: http://{HOST}:{free_port()}
    allowed_endpoints: ["/**"]
    circuit_breaker: {{failures: 0}}"""


@dataclass
class Scene:
    """The daemon between a client and a provider that does what a script says."""

    stack: Stack
    provider: ScriptedProvider
    token: str

    def opened(self, name: str, method: str = "POST", body: bytes = b"{}", length: int | None = None) -> socket.socket:
        connection = socket.create_connection((HOST, self.stack.daemon.port), 10)
        size = len(body) if length is None else length
        connection.sendall(
            f"{method} /scripted/{name} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.token}\r\n".encode()
            + (b"\r\n" if method != "POST" else b"Content-Length: %d\r\n\r\n" % size + body)
        )
        return connection

    def told(self, name: str, method: str = "POST") -> tuple[bytes, bytes, str]:
        """Head and body of the answer as they came, and how the connection ended: C{closed}, C{reset} or C{kept}."""
        with self.opened(name, method) as connection:
            answer, end = b"", "closed"
            try:
                while not complete(answer, method):
                    if not (piece := connection.recv(65536)):
                        break
                    answer += piece
                else:
                    end = "kept"
            except ConnectionResetError:
                end = "reset"
        head, _, body = answer.partition(b"\r\n\r\n")
        return head, body, end


def complete(answer: bytes, method: str) -> bool:
    """Whether these bytes are a whole answer, by RFC 9112 section 6.3."""
    head, end, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if not end:
        return False
    if method == "HEAD" or answer[9:12] in (b"204", b"304"):
        return True
    if fields.get(b"transfer-encoding") == b"chunked":
        return body.endswith(b"\r\n0\r\n\r\n") or body == b"0\r\n\r\n"
    return len(body) >= int(fields[b"content-length"])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scripts = {**BROKEN, **CUT, **SILENT, **ANSWERED, **BODILESS, **MORE}
    home = tmp_path_factory.mktemp("faults")
    with ScriptedProvider(scripts) as provider, Stack(home, more=apis(provider.port)) as stack:
        keys = {"scripted": KEY, "nobody": KEY}
        made = stack.manage("POST", "/manage/projects", {"name": "Scripted", "api_keys": keys})
        yield Scene(stack, provider, stack.new_token(project_id=made["id"]))
        assert "Traceback" not in stack.daemon.output()
        assert KEY not in stack.daemon.output()


def check_error(head: bytes, body: bytes, status: int, *codes: str) -> None:
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    told = json.loads(body)
    assert told["error"]["message"] and told["code"] in codes
    assert f"X-LLMProxy-Error: {told['code']}".encode() in head


def line_since(scene: Scene, begun: int) -> dict[str, Any]:
    """The one access line since then."""
    (line,) = lines_of(log_since(scene.stack, begun))
    return line


@pytest.fixture(scope="module")
def broken(scene: Scene) -> tuple[dict[str, tuple[bytes, bytes, str]], list[dict[str, Any]]]:
    """The answers to all of them, each after one by which a connection is there to be used again; and the log."""
    begun = now_in_log(scene.stack)
    answers = {name: (scene.told("fine"), scene.told(name))[1] for name in BROKEN}
    return answers, lines_of(log_since(scene.stack, begun))


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_is_none(scene: Scene, broken: Any, name: str) -> None:
    """One 502, one line in the log, of a request that was sent once, on a connection that is then closed."""
    answers, lines = broken
    head, body, _ = answers[name]
    check_error(head, body, 502, "upstream_unreachable", "upstream_protocol_error")
    assert scene.provider.seen[name] == 1
    assert BROKEN[name][-1] in (CLOSE, RESET) or eventually(lambda: scene.provider.ended[name] == 1)
    assert len(lines) == 2 * len(BROKEN)
    fine, failed = lines[2 * list(BROKEN).index(name) :][:2]
    assert (fine["status"], fine["outcome"]) == (200, "complete")
    assert (failed["status"], failed["outcome"], failed["error"]) == (502, "failed", json.loads(body)["code"])


def test_nobody_listens(scene: Scene) -> None:
    reply = scene.stack.ask("POST", "/nobody/x", b"{}", token=scene.token)
    assert (reply.status, reply.json["code"]) == (502, "upstream_unreachable")


@pytest.mark.parametrize("name", CUT)
def test_an_answer_that_breaks_off(scene: Scene, name: str) -> None:
    """The client has what came, and can tell that it is not all."""
    begun = now_in_log(scene.stack)
    head, body, end = scene.told(name)
    assert head.startswith(OK[:-2]) and end in ("closed", "reset")
    assert not complete(head + b"\r\n\r\n" + body, "POST")
    assert b"fi" in body
    assert scene.provider.seen[name] == 1
    line = line_since(scene, begun)
    assert (line["status"], line["outcome"]) == (200, "truncated")
    assert line["error"] == ("upstream_timeout" if "silent" in name else "upstream_truncated")


@pytest.mark.parametrize("name", ["chunked-closed", "chunked-inside-a-chunk", "length-closed"])
def test_every_one_of_a_hundred_that_break_off(scene: Scene, name: str) -> None:
    for _ in range(100):
        head, body, end = scene.told(name)
        assert end in ("closed", "reset") and not complete(head + b"\r\n\r\n" + body, "POST")


@pytest.mark.parametrize("name", SILENT)
def test_a_provider_that_does_not_answer(scene: Scene, name: str) -> None:
    begun = time.monotonic()
    head, body, _ = scene.told(name)
    check_error(head, body, 504, "upstream_timeout")
    assert 0.8 < time.monotonic() - begun < 2.5
    assert scene.provider.seen[name] == 1


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_in_an_unusual_form(scene: Scene, name: str) -> None:
    """What RFC 9112 allows passes, and leaves nothing behind for the next request."""
    for _ in range(3):
        head, body, end = scene.told(name)
        assert head.startswith(b"HTTP/1.1 200") and end == "kept"
        assert body in (b"fine", b"4\r\nfine\r\n0\r\n\r\n", b"2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n")
        assert b"TRAILER" not in head + body
    assert scene.told("fine")[1] == b"fine"


@pytest.mark.parametrize("name", BODILESS)
def test_an_answer_that_can_have_no_body(scene: Scene, name: str) -> None:
    method = "HEAD" if name.startswith("head") else "GET"
    for _ in range(3):
        head, body, end = scene.told(name, method)
        assert head[9:12].decode() == (name[:3] if method == "GET" else "200") and (body, end) == (b"", "kept")
        assert method == "GET" or b"Content-Length: 8" in head
    assert scene.told("fine")[1] == b"fine"


@pytest.mark.parametrize("name", ["once", "once-and-reset"])
def test_a_kept_connection_that_is_closed_when_it_is_used(scene: Scene, name: str) -> None:
    """What may have arrived is not sent again; what does no harm is, once."""
    seen = scene.provider.seen
    assert scene.told(name)[1] == b"fine"
    before = seen["fine"]
    head, body, _ = scene.told("fine")
    check_error(head, body, 502, "upstream_unreachable")
    assert seen["fine"] == before, "the provider has read it on the connection that it closed, and nowhere else"
    assert scene.told(name)[1] == b"fine"
    assert scene.told("fine", "GET")[1] == b"fine"
    assert seen["fine"] == before + 1


def test_a_post_is_never_sent_twice(scene: Scene) -> None:
    """The provider closes in the very moment in which it has answered: two hundred times in a row."""
    for number in range(200):
        head, body, _ = scene.told("at-once")
        assert body == b"fine" or head.startswith(b"HTTP/1.1 502 ")
        assert scene.provider.seen["at-once"] <= number + 1


@pytest.mark.parametrize("name", ["early", "early-close"])
def test_an_answer_before_the_upload_is_finished(scene: Scene, name: str) -> None:
    """It passes, the upload stops, and both sides are closed."""
    with scene.opened(name, body=b"a" * 100_000, length=50_000_000) as connection:
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 Too Much\r\n") and answer.endswith(b"\r\n\r\nfine")
    eventually(lambda: scene.provider.ended[name] == 1)
    assert scene.told("fine")[1] == b"fine"


def test_a_gzip_bomb_is_not_opened(scene: Scene) -> None:
    head, body, _ = scene.told("bomb")
    assert b"Content-Encoding: gzip" in head and body == BOMB


@pytest.mark.parametrize("name", ["key", "key-in-pieces"])
def test_the_key_in_a_providers_error_is_masked(scene: Scene, name: str) -> None:
    head, body, _ = scene.told(name)
    assert head.startswith(b"HTTP/1.1 401 No")
    assert KEY.encode() not in head
    told = b"".join(line for line in body.split(b"\r\n") if b"*" in line or b"sk" in line)
    assert KEY.encode() not in told and b"*" * len(KEY) in told
