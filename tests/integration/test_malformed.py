"""What is no request, or could be read as two, never gets past the started daemon."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any
from uuid import uuid4

import pytest

from tests.support.processes import HOST
from tests.support.stack import Stack, eventually

GOOD = b"GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def get(target: bytes = b"/v1/models", *lines: bytes, method: bytes = b"GET", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *([host] if host else []), *lines, b"\r\n"])


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"POST /anything/v1/echo HTTP/" + version, b"Host: a", *lines, b"\r\n"]) + body


def start(line: bytes) -> bytes:
    return line + b"\r\nHost: a\r\n\r\n"


# Every one is refused by the wire: an answer with this status, closed, and nothing that follows is looked at.
HOSTS = {
    "no-host": (get(host=b""), 400),
    "two-hosts": (get(b"/v1/models", b"Host: b"), 400),
    "two-hosts-alike": (get(b"/v1/models", b"host: a"), 400),
    **{
        f"host-{name}": (get(host=b"Host: " + value), 400)
        for name, value in (
            ("space", b"a b"),
            ("slash", b"a/b"),
            ("comma", b"a,b"),
            ("at", b"u@a"),
            ("backslash", b"a\\b"),
            ("port", b"a:x"),
            ("port-99999", b"a:99999"),
            ("port-negative", b"a:-1"),
            ("two-ports", b"a:80:80"),
            ("empty", b""),
            ("bracket", b"[::1"),
        )
    },
}
TARGETS = {
    f"target-{name}": (get(target), 400)
    for name, target in (
        ("no-slash", b"v1/models"),
        ("userinfo", b"@evil.example/v1/models"),
        ("suffix", b".evil.example/v1/models"),
        ("port", b":1@evil.example"),
        ("query-alone", b"?x"),
        ("asterisk", b"*"),
        ("fragment", b"/v1/models#x"),
        ("fragment-in-query", b"/v1/models?a#x"),
        ("backslash", b"/v1\\models"),
        ("percent-zz", b"/v1/%zz"),
        ("percent-end", b"/v1/models%2"),
        ("high-byte", b"/v1/\xff"),
        ("quote", b'/v1/"'),
        ("control", b"/v1/\x01"),
        ("nul", b"/v1/\x00"),
        ("absolute-elsewhere", b"http://evil.example/v1/models"),
        ("absolute-port", b"http://a:1/v1/models"),
        ("absolute-ftp", b"ftp://a/v1/models"),
        ("absolute-file", b"file:///etc/passwd"),
        ("absolute-userinfo", b"http://u@a/v1/models"),
        ("absolute-without-host", b"http:///v1/models"),
    )
}
STARTS = {
    "connect": (start(b"CONNECT a:443 HTTP/1.1"), 405),
    "trace": (start(b"TRACE / HTTP/1.1"), 405),
    "query": (start(b"QUERY / HTTP/1.1"), 405),
    "lower-case": (start(b"get /v1/models HTTP/1.1"), 501),
    "made-up": (start(b"BREW /v1/models HTTP/1.1"), 501),
    "no-token": (start(b"G@T /v1/models HTTP/1.1"), 400),
    "no-method": (start(b" /v1/models HTTP/1.1"), 400),
    "tab": (start(b"GET\t/v1/models\tHTTP/1.1"), 400),
    "two-spaces": (start(b"GET  /v1/models HTTP/1.1"), 400),
    "space-in-target": (start(b"GET /v1/a b HTTP/1.1"), 400),
    "space-at-end": (start(b"GET /v1/models HTTP/1.1 "), 400),
    "http-0.9": (start(b"GET /v1/models"), 400),
    "http-2.0": (start(b"GET /v1/models HTTP/2.0"), 505),
    "http-1.2": (start(b"GET /v1/models HTTP/1.2"), 505),
    "http-1.10": (start(b"GET /v1/models HTTP/1.10"), 400),
    "version-lower-case": (start(b"GET /v1/models http/1.1"), 400),
    "http-2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "tls-hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32 + b"\n", 400),
    "two-empty-lines": (b"\r\n\r\n" + get(), 400),
}
FIELDS = {
    "bare-lf": (get().replace(b"\r\n", b"\n"), 400),
    "bare-lf-in-value": (get(b"/v1/models", b"X-A: b\nX-B: SMUGGLED"), 400),
    "bare-cr-in-value": (get(b"/v1/models", b"X-A: b\rX-B: SMUGGLED"), 400),
    "folded": (get(b"/v1/models", b"X-A: b", b" c"), 400),
    "folded-tab": (get(b"/v1/models", b"X-A: b", b"\tHost: c"), 400),
    "folded-first": (get(b"/v1/models", host=b" X-A: b"), 400),
    "underscore": (get(b"/v1/models", b"Content_Length: 5"), 400),
    "no-colon": (get(b"/v1/models", b"X-A"), 400),
    "no-name": (get(b"/v1/models", b": b"), 400),
    "space-before-colon": (get(b"/v1/models", b"X-A : b"), 400),
    "space-in-name": (get(b"/v1/models", b"X A: b"), 400),
    "high-byte-in-name": (get(b"/v1/models", b"X\x80: b"), 400),
    **{f"control-{c:02x}": (get(b"/v1/models", b"X-A: a%cb" % c), 400) for c in (0, 1, 7, 8, 11, 12, 27, 31, 127)},
}
FRAMING = {
    "length-and-chunked": (post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "chunked-and-length": (post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"), 400),
    "chunked-in-1.0": (post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0"), 400),
    "chunked-twice": (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "gzip-chunked": (post(b"Transfer-Encoding: gzip, chunked"), 501),
    **{
        f"coding-{name}": (post(b"Transfer-Encoding:" + value, body=b"0\r\n\r\n"), 400)
        for name, value in (
            ("identity", b" identity"),
            ("chunked-identity", b" chunked, identity"),
            ("chunked-chunked", b" chunked, chunked"),
            ("identity-chunked", b" identity, chunked"),
            ("xchunked", b" xchunked"),
            ("parameter", b" chunked;a=b"),
            ("quoted", b' "chunked"'),
            ("empty", b""),
            ("vertical-tab", b"\x0bchunked"),
            ("gzip", b" gzip"),
        )
    },
    "length-twice": (post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 400),
    "length-twice-different": (post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"), 400),
    **{
        f"length-{name}": (post(b"Content-Length: " + value, body=b"hello"), 400)
        for name, value in (
            ("plus", b"+5"),
            ("minus", b"-5"),
            ("list", b"5, 5"),
            ("space", b"5 5"),
            ("hex", b"0x5"),
            ("fraction", b"5.0"),
            ("empty", b""),
            ("underscore", b"1_0"),
            ("superscript", b"\xb2"),
            ("4300-digits", b"9" * 4300),
            ("beyond-64-bits", b"9" * 20),
        )
    },
}
SIZES = {
    "target-too-long": (get(b"/" + b"a" * 17_000), 414),
    "target-without-end": (b"GET /" + b"a" * 17_000, 414),
    "head-too-long": (get(b"/v1/models", *[b"X-%d: " % n + b"b" * 8000 for n in range(9)]), 431),
    "head-without-end": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-A: " + b"b" * 70_000, 431),
    "too-many-fields": (get(b"/v1/models", *[b"A: b"] * 200), 431),
}
EXPECTATIONS = {
    "expect-other": (post(b"Expect: 200-ok", b"Content-Length: 5"), 417),
    "expect-twice": (post(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 5"), 417),
    "expect-list": (post(b"Expect: 100-continue, x", b"Content-Length: 5"), 417),
}
NO_REQUESTS: dict[str, tuple[bytes, int]] = {**HOSTS, **TARGETS, **STARTS, **FIELDS, **FRAMING, **SIZES, **EXPECTATIONS}

CHUNKS = {
    "size-minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "size-plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "size-hex": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size-space-before": b" 5\r\nhello\r\n0\r\n\r\n",
    "size-space-after": b"5 \r\nhello\r\n0\r\n\r\n",
    "size-empty": b"\r\nhello\r\n0\r\n\r\n",
    "size-no-digit": b"g\r\nhello\r\n0\r\n\r\n",
    "size-underscore": b"5_0\r\nhello\r\n0\r\n\r\n",
    "size-overflow": b"f" * 16 + b"\r\nhello\r\n0\r\n\r\n",
    "size-overflow-64-bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-bare-lf": b"5\nhello\r\n0\r\n\r\n",
    "data-too-long": b"4\r\nhello\r\n0\r\n\r\n",
    "data-bare-lf": b"5\r\nhello\n0\r\n\r\n",
    "extension-control": b"5;a\x01\r\nhello\r\n0\r\n\r\n",
    "extension-bare-lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "extension-endless": b"5;" + b"a" * 1000,
    "trailer-no-field": b"5\r\nhello\r\n0\r\nSMUGGLED\r\n\r\n",
    "trailer-folded": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    "trailer-bare-lf": b"5\r\nhello\r\n0\r\nA: b\nC: d\r\n\r\n",
}


def authorization(stack: Stack) -> bytes:
    return f"Authorization: Bearer {stack.token}".encode()


def said(stack: Stack, sent: bytes) -> bytes:
    """All that comes back on a connection of its own, until the daemon ends it."""
    with socket.create_connection((HOST, stack.daemon.port), 10) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def log_since(stack: Stack, begun: int) -> str:
    """What the daemon has logged since then, up to now: lines are written in the order of what they tell."""
    mark = f"mark-{uuid4()}"
    stack.ask("GET", "/anything/nothing", headers={"X-Request-ID": mark})
    return str(eventually(lambda: (text := stack.daemon.output()[begun:]) and mark in text and text))


def now_in_log(stack: Stack) -> int:
    """The place in the log up to which all is written that has happened."""
    log_since(stack, 0)
    return len(stack.daemon.output())


def lines_of(log: str) -> list[dict[str, Any]]:
    """The access lines, but for the marks."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [x for x in lines if x["logger"] == "access" and not x.get("request_id", "").startswith("mark-")]


class Asked:
    """Asks each once and in order, and looks for its line when all have been asked."""

    def __init__(self, stack: Stack, requests: dict[str, bytes]) -> None:
        begun = now_in_log(stack)
        self.answers = {name: said(stack, sent) for name, sent in requests.items()}
        self.log = log_since(stack, begun)
        self.lines = lines_of(self.log)

    def line(self, name: str) -> dict[str, Any]:
        assert len(self.lines) == len(self.answers), "exactly one line for each"
        return self.lines[list(self.answers).index(name)]


@pytest.fixture(scope="module")
def asked(stack: Stack) -> Asked:
    return Asked(stack, {name: sent + GOOD for name, (sent, _) in NO_REQUESTS.items()})


@pytest.fixture(scope="module")
def uploaded(stack: Stack) -> Asked:
    head = post(authorization(stack), b"Transfer-Encoding: chunked")
    return Asked(stack, {name: head + chunks + GOOD for name, chunks in CHUNKS.items()})


def check_refusal(asked: Asked, name: str, status: int) -> None:
    """One answer that a client's program can read, then the end, and not a word of what was sent."""
    answer = asked.answers[name]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head and b"\r\nContent-Type: application/json" in head
    assert b"\r\nserver:" not in head.lower()
    told = json.loads(body)  # which also means that nothing follows it
    assert told["error"]["message"] and told["error"]["code"] == told["code"]
    line = asked.line(name)
    assert (line["status"], line["outcome"], line["error"]) == (status, "refused", told["code"])
    for text in (answer.decode(), asked.log):
        assert "SMUGGLED" not in text and "Traceback" not in text and '"exception"' not in text


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request(asked: Asked, name: str) -> None:
    check_refusal(asked, name, NO_REQUESTS[name][1])


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_that_are_none(uploaded: Asked, name: str) -> None:
    check_refusal(uploaded, name, 400)


def test_a_405_says_what_is_allowed(asked: Asked) -> None:
    assert b"\r\nAllow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT" in asked.answers["connect"]


def test_nothing_of_it_reaches_the_provider(stack: Stack) -> None:
    """Neither what is refused, nor the request that is hidden behind it."""
    token = authorization(stack)
    before = len(stack.recorded())
    hidden = get(b"/anything/v1/SMUGGLED", token)
    for sent, status in FRAMING.values():
        both = sent.replace(b"Host: a\r\n", b"Host: a\r\n" + token + b"\r\n", 1) + hidden
        assert said(stack, both).startswith(b"HTTP/1.1 %d " % status)
    for chunks in CHUNKS.values():
        said(stack, post(token, b"Transfer-Encoding: chunked", body=chunks + hidden))
    assert not [entry for entry in stack.recorded()[before:] if entry["received_at"]]


# What is a request, and is told no: the connection goes on, and what follows is answered.


def refused_later(stack: Stack) -> dict[str, tuple[bytes, int, str]]:
    token = authorization(stack)
    paths = {
        f"path-{path.decode()}": (get(path, token), 400, "bad_request_target")
        for path in (
            b"/v1//models",
            b"//v1/models",
            b"/v1/./models",
            b"/v1/x/../models",
            b"/v1/%2e%2e/models",
            b"/v1/%2E/models",
            b"/v1/models%00",
            b"/v1/models;a=b",
            b"/v1/%5cmodels",
            b"/v1/models%3fx",
            b"/v1/models%23x",
            b"/v1%252f/../models",
            b"/v1%2fmodels",
            b"/v1/%256dodels",
        )
    }
    unknown = b"sk-lp-" + b"0" * (len(stack.token) - 6)
    unlisted = {
        f"path-{path.decode()}": (get(path, token), 403, "endpoint_not_allowed")
        for path in (b"/v1/Models", b"/v1/models/", b"/v1/modelsx", b"/v1/m%6fdels")
    }
    return {
        **paths,
        **unlisted,
        "method": (get(b"/v1/models", token, method=b"DELETE"), 405, "method_not_allowed"),
        "no-token": (get(b"/v1/models"), 401, "missing_token"),
        "token-that-is-none": (get(b"/v1/models", b"Authorization: Bearer sk-lp-x' OR 1--"), 401, "missing_token"),
        "token-of-nobody": (get(b"/v1/models", b"Authorization: Bearer " + unknown), 401, "token_not_found"),
        "override": (get(b"/v1/chat/x", token, b"X-HTTP-Method-Override: POST"), 403, "endpoint_not_allowed"),
    }


def test_a_request_that_is_refused_leaves_the_connection_as_it_was(stack: Stack) -> None:
    cases = refused_later(stack)
    asked = Asked(stack, {name: sent + GOOD for name, (sent, _, _) in cases.items()})
    for name, (_, status, code) in cases.items():
        answer, line = asked.answers[name], asked.line(name)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (name, answer)
        assert f"X-LLMProxy-Error: {code}".encode() in answer, (name, answer)
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["status"] == "ok", name
        assert (line["status"], line["error"], line["outcome"]) == (status, code, "refused"), name
    assert b"\r\nAllow: GET, HEAD, POST" in asked.answers["method"]
    assert "Traceback" not in asked.log


def test_what_is_odd_but_clear_is_served(stack: Stack) -> None:
    token = authorization(stack)
    for sent in (
        b"\r\n" + get(b"/v1/models", token),
        get(b"http://a/v1/models", token),
        get(b"HTTP://A/v1/models", token),
        get(b"/v1/models", token, b"Connection: x, close"),
        get(b"/v1/models", token, b"X-A: \xff\t", b"x-a:", b"Connection:close"),
        b"GET /v1/models HTTP/1.0\r\n" + token + b"\r\n\r\n",
        get(b"/v1/models", token, host=b"Host: evil.example"),
    ):
        last = b"" if b"lose" in sent or b"1.0" in sent else GOOD
        assert said(stack, sent + last).startswith(b"HTTP/1.1 200 "), sent
    assert f"Host: {HOST}:{stack.simulator.port}" in stack.last()["headers"]


def test_chunk_extensions_and_trailers_stay_here(stack: Stack) -> None:
    chunks = b'5;a="b"\r\nhello\r\n0;x\r\nX-Trailer: SMUGGLED\r\nAuthorization: Bearer SMUGGLED\r\n\r\n'
    sent = post(authorization(stack), b"X-Sim-Echo: 1", b"Transfer-Encoding: Chunked", body=chunks)
    answer = said(stack, sent + GOOD)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"hello" in answer and b"SMUGGLED" not in answer
    assert "SMUGGLED" not in json.dumps(stack.last())


def test_pipelined_requests_are_answered_in_order(stack: Stack) -> None:
    token = authorization(stack)
    bodies = [b"first", b"second", b"third"]
    delays = [b"0.3", b"0.1", b"0"]
    sent = b"".join(
        post(token, b"X-Sim-Echo: 1", b"X-Sim-Delay: " + delay, b"Content-Length: %d" % len(body), body=body)
        for body, delay in zip(bodies, delays, strict=True)
    )
    answer = said(stack, sent + GOOD)
    assert list(map(answer.find, bodies)) == sorted(map(answer.find, bodies))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 4 and -1 not in map(answer.find, bodies)


def test_options_of_the_server_itself(stack: Stack) -> None:
    answer = said(stack, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ") and b"\r\nAllow: " in answer


@pytest.mark.parametrize(
    ("path", "lines", "status"),
    [
        (b"/anything/v1/echo", [], 401),
        (b"/v1/nothing", [b"{token}"], 403),
        (b"/anything/v1/echo", [b"{token}", b"Content-Length: 99999999999"], 413),
    ],
)
def test_it_is_decided_before_the_body_is_asked_for(stack: Stack, path: bytes, lines: list[bytes], status: int) -> None:
    """C{Expect: 100-continue}: the answer is no, and no C{100 Continue} stands before it."""
    given = [line.replace(b"{token}", authorization(stack)) for line in lines]
    if status != 413:
        given.append(b"Content-Length: 5")
    answer = said(stack, get(path, *given, b"Expect: 100-continue", method=b"POST"))
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_the_body_is_asked_for_once_the_answer_may_be_yes(stack: Stack) -> None:
    sent = post(authorization(stack), b"X-Sim-Echo: 1", b"Content-Length: 5", b"Expect: 100-continue")
    with socket.create_connection((HOST, stack.daemon.port), 10) as connection:
        connection.sendall(sent)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


# How long somebody may take


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A daemon that waits for nothing longer than a second, and for two connections at most."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HEAD_TIMEOUT", "BODY_TIMEOUT", "KEEPALIVE_TIMEOUT"):
            patch.setenv(f"LLMPROXY_SERVER_{name}", "1s")
        patch.setenv("LLMPROXY_SERVER_MAX_CONNECTIONS", "5")
        with Stack(tmp_path_factory.mktemp("impatient")) as stack:
            yield stack


def dripped(stack: Stack, first: bytes, *, drip: bytes = b"", every: float = 0.1) -> tuple[bytes, float]:
    """What comes back to somebody who goes on with a byte now and then, and after how many seconds it ended."""
    begun = time.monotonic()
    answer = b""
    with socket.create_connection((HOST, stack.daemon.port), 10) as connection:
        connection.sendall(first)
        connection.settimeout(every if drip else 8)
        while True:
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                with suppress(ConnectionError):
                    connection.sendall(drip)
                continue
            if not piece:
                return answer, time.monotonic() - begun
            answer += piece
            assert time.monotonic() - begun < 8, "nothing ends it"


def test_a_head_that_takes_for_ever(impatient: Stack) -> None:
    """A byte now and then does not hold a connection: the time counts for the whole head."""
    answer, seconds = dripped(impatient, b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-A: ", drip=b"a")
    assert answer.startswith(b"HTTP/1.1 408 ") and b"\r\nConnection: close" in answer
    assert 0.8 < seconds < 3


def test_a_request_line_without_a_version(impatient: Stack) -> None:
    """HTTP/0.9 has nothing behind its line: it is refused there, and not when the time for a head is over."""
    answer, seconds = dripped(impatient, b"GET /v1/models\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and seconds < 0.8


def test_a_connection_on_which_nothing_comes(impatient: Stack) -> None:
    answer, seconds = dripped(impatient, b"")
    assert answer == b"" and 0.8 < seconds < 3


def test_a_connection_that_is_not_used_again(impatient: Stack) -> None:
    answer, seconds = dripped(impatient, get(b"/live"))
    assert answer.startswith(b"HTTP/1.1 200 ") and 0.8 < seconds < 3


@pytest.mark.parametrize("drip", [b"", b"a"], ids=["nothing", "a-byte-now-and-then"])
def test_a_body_that_takes_for_ever(impatient: Stack, drip: bytes) -> None:
    sent = post(authorization(impatient), b"Content-Length: 100000", body=b"a")
    answer, seconds = dripped(impatient, sent, drip=drip)
    assert answer.startswith(b"HTTP/1.1 408 ") and 0.8 < seconds < 3
    assert "Traceback" not in impatient.daemon.output()


def test_one_connection_too_many(impatient: Stack) -> None:
    """Those beyond the bound are closed at once; those within it are served, and make room when they end."""
    where = (HOST, impatient.daemon.port)
    eventually(lambda: said(impatient, GOOD))
    with ExitStack() as held:
        inside = [held.enter_context(socket.create_connection(where, 10)) for _ in range(5)]
        for connection in inside:
            connection.sendall(get(b"/live"))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        with suppress(ConnectionError), socket.create_connection(where, 10) as outside:
            outside.sendall(GOOD)
            assert outside.recv(65536) == b""
    eventually(lambda: answered(impatient))


def answered(stack: Stack) -> bool:
    with suppress(ConnectionError):
        return said(stack, GOOD).startswith(b"HTTP/1.1 200 ")
    return False
