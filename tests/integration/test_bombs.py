"""Nothing that a client sends holds the reactor: bodies and heads that take long to read, through the daemon."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import pytest

from tests.integration.test_ledger import entered
from tests.support.processes import HOST
from tests.support.scripted_provider import CLOSE, ScriptedProvider
from tests.support.stack import MANAGEMENT, SETTINGS, Stack

MILLION = 1_000_000
BOUND_MS = 25.0  # of the processor's time in one turn, on a machine that does L{calibration} in CALIBRATION_MS
CALIBRATION_MS = 20.0
MAX_SLOWNESS = 4.0  # beyond, a machine tells nothing
TURNS = str(Path(__file__).parent.parent / "turns")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
GZIP = {"Content-Encoding": "gzip"}
CALL = b'{"type":"web_search_call","id":"ws_1"},'
USED = b'0],"usage":{"input_tokens":1,"output_tokens":1}}'
SAMPLE = json.dumps({str(number): {"a": [number, "text", None]} for number in range(400)})
PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'

Body = Callable[[], bytes]  # made when it is wanted: together they are half a gigabyte

BOMBS: dict[str, tuple[Body, dict[str, str]]] = {
    "escape and 1.4 million objects": (lambda: b'{"a":"\\u0041","b":[' + b"{}," * 1_400_000 + b"0]}", {}),
    "270,000 floats": (lambda: b'{"a":[' + b"0.12345678901," * 270_000 + b"0]}", {}),
    "250,000 small objects": (lambda: b'{"a":[' + b'{"b":1},' * 250_000 + b"0]}", {}),
    "nested lists": (lambda: b'{"a":[' + b"[[[[1]]]]," * 300_000 + b"0]}", {}),
    "branching lists": (lambda: b'{"a":[' + b"[[[],[]],[[],[]]]," * 200_000 + b"0]}", {}),
    "a million members": (lambda: b"{" + b'"":"",' * MILLION + b'"a":0}', {}),
    "deep": (lambda: b'{"a":' * MILLION, {}),
    "deep lists": (lambda: b"[" * 4 * MILLION, {}),
    "escapes": (lambda: b'{"a":"' + b'\\"\\n' * MILLION + b'"}', {}),
    "unicode escapes": (lambda: b'{"a":"' + b"\\u00e9" * 700_000 + b'"}', {}),
    "digits": (lambda: b'{"a":' + b"9" * 4 * MILLION + b"}", {}),
    "quotes": (lambda: b'"' * 4 * MILLION, {}),
    "white space": (lambda: b" " * 4 * MILLION + b"{}", {}),
    "beginnings of media": (lambda: b'{"data":"' + b'","data":"' * 400_000 + b'"}', {}),
    "short words": (lambda: b'{"a":"' + b"a b " * MILLION + b'"}', {}),
    "members within what is kept": (lambda: b'{"generationConfig":{' + b'"a":{},' * 30_000 + b'"b":1}}', {}),
    "tools": (lambda: b'{"tools":[' + b"{}," * 80_000 + b"0]}", {}),
    "ampersands": (lambda: b"&" * 4 * MILLION, FORM),
    "fields": (lambda: b"a=%61&" * 700_000, FORM),
    "per cent": (lambda: b"%" * MILLION, FORM),
    "a value of per cent": (lambda: b"temperature=" + b"%" * MILLION, FORM),
    "parts": (lambda: PART * 2_000, MULTIPART),
    "boundaries": (lambda: b"\r\n--" * 20_000, MULTIPART),
    "gzip of brackets": (lambda: gzip.compress(b"[" * 100 * MILLION), GZIP),
    "gzip of lists": (lambda: gzip.compress(b'{"a":[' + b"[[[[1]]]]," * 2 * MILLION), GZIP),
    "60 MB of text": (lambda: b'{"model":"gpt-4o","a":"' + b"a word of it " * 4_600_000 + b'"}', {}),
    "names of what is kept": (lambda: b"{" + b'"MODEL":1,"Model":2,' * 100_000 + b'"a":0}', {}),
    "escaped names": (lambda: b"{" + b'"\\u0061\\u0062":1,' * 150_000 + b'"a":0}', {}),
    "two bytes a character": (lambda: ('{"a":[' + "{}," * 300_000 + "0]}").encode("utf-16"), {}),
    "100,000 parts": (lambda: PART * 100_000 + b"--b--", MULTIPART),
    "gzip of a form": (lambda: gzip.compress(b"a=%61&" * 10 * MILLION), {**FORM, **GZIP}),
    "members of gzip": (lambda: gzip.compress(b"{}") * 100_000, GZIP),
    "a type of 60 kB": (lambda: b"{}--", {"Content-Type": "multipart/form-data; " + 'a="b"; ' * 8000}),
    "gzip of nothing": (lambda: gzip.compress(bytes(100 * MILLION)), GZIP),
}


REQUESTS = {  # pipelined on one connection
    "alive": b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
    "without a token": b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown": b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
}
MANAGED = {
    "objects": b'{"a":[' + b"{}," * 340_000 + b"0]}",
    "unknown members": b"{" + b",".join(b'"%d":{}' % number for number in range(80_000)) + b"}",
    "models": b'{"models":[' + b'"m",' * 250_000 + b'"m"]}',
    "brackets": b"[" * MILLION,
    "escapes": b'{"name":"' + b"\\u0061" * 170_000 + b'"}',
}
RESPONSES: dict[str, tuple[Body, bytes]] = {
    "50 MB of text": (
        lambda: b'{"choices":[{"text":"' + b"a b " * 12_500_000 + b'"}],"usage":{"prompt_tokens":1}}',
        b"",
    ),
    "50 MB of numbers": (lambda: b'{"data":[' + b"0.0123456789," * 3_800_000 + b'0],"usage":{"prompt_tokens":1}}', b""),
    "gzip of objects": (lambda: gzip.compress(b'{"a":[' + b"{}," * 33 * MILLION + b"0]}"), b"gzip"),
    "gzip of nothing": (lambda: gzip.compress(bytes(100 * MILLION)), b"gzip"),
    "250 KB of objects with calls": (lambda: b'{"output":[' + CALL * 6_000 + USED, b""),
    "10 MB of objects with calls": (lambda: b'{"output":[' + CALL * 260_000 + USED, b""),
    "250 KB of usage objects": (lambda: b"[" + b'{"usage":{"prompt_tokens":1}},' * 8_000 + b"0]", b""),
    "250 KB of errors": (lambda: b"[" + b'{"error":{}},' * 19_000 + b"0]", b""),
    "250 KB of short lines": (lambda: b"{}\n" * 85_000, b""),
    "20 MB of members": (lambda: b"{" + b'"":"",' * 3_300_000 + b'"a":0}', b""),
    "20 MB of wrapped members": (lambda: b'{"response":{' + b'"a":1,' * 3_000_000 + b'"a":0}}', b""),
    "20 MB of counts": (lambda: b"{" + b'"usage":{,,,,},' * 1_300_000 + b'"a":0}', b""),
    "gzip of members": (lambda: gzip.compress(b"{" + b'"":"",' * 3_300_000 + b'"a":0}'), b"gzip"),
}
LINES: dict[str, Body] = {
    "lines of usage": lambda: b'{"usage":{"prompt_tokens":1}}\n' * 33_000,
    "short lines": lambda: b'"_tokens"\n' * 100_000,
}
EVENTS: dict[str, Body] = {
    "events of usage": lambda: b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n' * 40_000,
    "events of errors": lambda: b'data: {"error":{"code":1}}\n\n' * 40_000,
    "error events without data": lambda: b"event: error\n\n" * 60_000,
    "blank lines": lambda: (b"\n" * 65_000 + b'data: {"_tokens":1}\n\n') * 20,
    "an event of lines": lambda: b'data: "_tokens"\n' * 60_000 + b"\n",
    "an event of 20 MB": lambda: b'data: {"usage":{' + b'"a":{},' * 2_500_000 + b'"b":1}}\n\n',
}


def frame(payload: bytes) -> bytes:
    """One of Amazon's event streams, without headers."""
    head = (16 + len(payload)).to_bytes(4) + bytes(4)
    whole = head + crc32(head).to_bytes(4) + payload
    return whole + crc32(whole).to_bytes(4)


FRAMES: dict[str, Body] = {
    "frames of usage": lambda: frame(b'{"usage":{"inputTokens":1}}') * 100_000,
    "empty frames": lambda: frame(b"{}") * 300_000,
}
PROVIDED: dict[str, tuple[bytes, bytes, Body]] = {  # media type, coding, body
    **{name: (b"application/json", coding, body) for name, (body, coding) in RESPONSES.items()},
    **{name: (b"application/x-ndjson", b"", body) for name, body in LINES.items()},
    **{name: (b"text/event-stream", b"", body) for name, body in EVENTS.items()},
    **{name: (b"application/vnd.amazon.eventstream", b"", body) for name, body in FRAMES.items()},
}


def calibration() -> float:
    """How much slower than usual this machine is now: the processor's time for work in the interpreter."""
    began = time.thread_time()
    for _ in range(40):
        json.dumps(json.loads(SAMPLE))
    return (time.thread_time() - began) * 1000 / CALIBRATION_MS


class Turns:
    """The turns of the daemon's reactor that computed for long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._slowness: list[float] = []
        self.longest: dict[str, float] = {}

    def note(self, name: str) -> None:
        """What has come since the last call is due to this."""
        time.sleep(0.1)
        text = self._path.read_text() if self._path.exists() else ""
        new, self._read = text[self._read :], len(text)
        took = max((float(line.split()[0]) for line in new.splitlines()), default=0.0)
        self.longest[name] = max(self.longest.get(name, 0.0), took)
        self._slowness.append(calibration())

    @property
    def bound(self) -> float:
        """Milliseconds; by the machine's speed all the while, which changes with what its others do."""
        return BOUND_MS * min(max(1.0, median(self._slowness)), MAX_SLOWNESS)

    def again(self, attempt: Callable[[str], None]) -> None:
        """Try what took too long twice more: what holds the reactor does so every time."""
        for name in [name for name, took in self.longest.items() if took >= self.bound] * 2:
            if (before := self.longest[name]) >= self.bound:
                self.longest[name] = 0.0
                attempt(name)
                self.longest[name] = min(before, self.longest[name])

    def check(self) -> None:
        worst = sorted(self.longest.items(), key=lambda each: -each[1])[:8]
        print("\nlongest turns in ms:", json.dumps(dict(worst)))
        print(f"bound: {self.bound:.1f}")
        assert worst[0][1] < self.bound, (self.bound, worst)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("bombs")
    env = {"PYTHONPATH": TURNS, "TURNS": str(home / "turns")}
    with Stack(home, "param_whitelist: {temperature: ['*']}", env=env) as started:
        yield started


@pytest.fixture
def turns(stack: Stack) -> Turns:
    turns = Turns(stack.home / "turns")
    turns.note("the start")
    turns.longest.clear()
    return turns


def exchanged(stack: Stack, data: bytes, seconds: float = 60.0) -> bytes:
    """All that comes back on a connection, until it is closed; the last request asks for that."""
    got = []
    with socket.create_connection((HOST, stack.daemon.port), seconds) as peer, suppress(OSError):
        peer.sendall(data)
        while more := peer.recv(MILLION):
            got.append(more)
    return b"".join(got)


def last(request: bytes) -> bytes:
    return request[:-2] + b"Connection: close\r\n\r\n"


def test_the_observer(stack: Stack, turns: Turns) -> None:
    """It sees turns of a few milliseconds: what follows can fail."""
    exchanged(stack, REQUESTS["alive"] * 999 + last(REQUESTS["alive"]))
    turns.note("a thousand requests")
    assert turns.longest["a thousand requests"] > 0


# What a token's owner may have, that its request's body is read for; and nothing, so that it passes unread.
LIMITED: dict[str, dict[str, Any]] = {
    "a budget": {"budget_usd": "1/day"},
    "a list of models": {"models": ["gpt-4o"]},
    "a rate": {"tokens_per_minute": 10_000},
    "no limit": {},
}
# For each reader of bodies, and each reason why one takes long, one at least.
SOME = (
    "escape and 1.4 million objects",
    "deep",
    "tools",
    "fields",
    "per cent",
    "a value of per cent",
    "100,000 parts",
    "gzip of lists",
    "names of what is kept",
    "two bytes a character",
)


@pytest.mark.alone
@pytest.mark.long("5 s: heads and chunks show the same of the wire, and the readers of bodies have tests of their own")
def test_some_bodies(stack: Stack, turns: Turns) -> None:
    send_bodies(stack, turns, stack.new_token(**LIMITED["a budget"]), SOME)


@pytest.mark.alone
@pytest.mark.long("8 s: no body of 32 kinds, each with every limit, holds the reactor for 25 ms")
@pytest.mark.parametrize("limit", LIMITED)
def test_bodies(stack: Stack, turns: Turns, limit: str) -> None:
    send_bodies(stack, turns, stack.new_token(**LIMITED[limit]), BOMBS, limited=bool(LIMITED[limit]))


def send_bodies(stack: Stack, turns: Turns, token: str, names: Iterable[str], limited: bool = True) -> None:
    path = "/openai/v1/chat/completions" if limited else "/anything/v1/nothing/there"

    def attempt(name: str) -> None:
        make, headers = BOMBS[name]
        body = make()
        if not limited and headers == MULTIPART and len(body) > 4 * MILLION:
            return  # the simulator reads a form's parts as Twisted does, which takes it half a minute
        with suppress(ConnectionError):  # refused before it was sent
            assert stack.ask("POST", path, body, headers, token=token).status < 600, name
        turns.note(name)

    for name in names:
        attempt(name)
    turns.again(attempt)
    turns.check()


@pytest.mark.alone
@pytest.mark.long("1 s: of which the reader of bodies has tests of its own")
def test_tiny_chunks(stack: Stack, turns: Turns) -> None:
    for name, token in (("read whole", stack.new_token(models=["gpt-4o"])), ("as it comes", stack.token)):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % token.encode()
        exchanged(
            stack,
            head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 300_000 + b"0\r\n\r\n",
        )
        turns.note(name)
    turns.check()


@pytest.mark.alone
def test_heads(stack: Stack, turns: Turns) -> None:
    """Requests with long heads that are refused, many at once, where many providers' keys are known."""
    for number in range(100):
        key = f"{number:032x}{number * 7919:032x}"
        stack.manage("POST", "/manage/projects", {"name": f"p{number}", "api_keys": {"openai": key}})
    turns.note("projects")
    head = b"GET /%b HTTP/1.1\r\nHost: x\r\nUser-Agent: %b\r\nX-A: %b\r\n\r\n" % (
        b"0f" * 8000,
        b"a1" * 4000,
        b"b" * 30_000,
    )
    for _ in range(5):
        assert exchanged(stack, head * 19 + last(head)).count(b"HTTP/1.1 ") == 20
        turns.note("heads")
    turns.check()


# What stands in the head of a request for a page that anybody may ask for, and for the metrics.
FIELDS = {
    "escaped quotes": b'Cookie: llmproxy_session="' + b'\\"' * 30_000 + b'"',
    "octal escapes": b'Cookie: llmproxy_session="' + b"\\101" * 15_000 + b'"',
    "many cookies": b"Cookie: " + b"a=1;" * 15_000,
    "many types": b"Accept: " + b"," * 60_000,
    "many weights": b"Accept: " + b"a;q=0.1," * 7_500,
}


@pytest.mark.alone
@pytest.mark.long("1 s: heads of requests show the same of the wire")
def test_heads_of_pages(stack: Stack, turns: Turns) -> None:
    """Nobody needs to be signed in to send these."""
    stack.ask("GET", "/admin/")  # whose modules are loaded when somebody comes first
    turns.note("the first visit")
    turns.longest.clear()

    def attempt(name: str) -> None:
        for path in (b"/admin/", b"/metrics"):
            head = b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n%b\r\n\r\n"
            assert exchanged(stack, last(head % (path, MANAGEMENT.encode(), FIELDS[name]))).startswith(b"HTTP/1.1 200 ")
        turns.note(name)

    for name in FIELDS:
        attempt(name)
    turns.again(attempt)
    turns.check()


@pytest.mark.alone
def test_management(stack: Stack, turns: Turns) -> None:
    """Bodies of a megabyte, from one who has the management token."""

    def attempt(name: str) -> None:
        body, headers = MANAGED[name], {"Content-Type": "application/json"}
        assert stack.ask("POST", "/manage/tokens", body, headers, token=MANAGEMENT).status in (400, 422), name
        turns.note(name)

    for name in MANAGED:
        attempt(name)
    turns.again(attempt)
    turns.check()


# One at least of each kind of response that is measured, and each coding.
SOME_RESPONSES = ("250 KB of objects with calls", "gzip of members", "short lines", "events of usage", "empty frames")


@pytest.mark.alone
@pytest.mark.long("3 s: as of requests, in the other direction")
def test_some_responses(tmp_path: Path) -> None:
    pass_responses(tmp_path, SOME_RESPONSES)


@pytest.mark.alone
@pytest.mark.long("12 s: no response of 23 kinds, up to 100 MB, holds the reactor for 25 ms")
def test_responses(tmp_path: Path) -> None:
    pass_responses(tmp_path, PROVIDED)


def pass_responses(tmp_path: Path, names: Iterable[str]) -> None:
    """What is measured as it passes."""
    with ScriptedProvider({}) as provider:

        class Behind(Stack):
            settings = SETTINGS.replace("{provider}", f"http://{HOST}:{provider.port}")

        env = {"PYTHONPATH": TURNS, "TURNS": str(tmp_path / "turns")}
        with Behind(tmp_path, env=env) as stack:
            turns = Turns(tmp_path / "turns")
            turns.note("the start")
            turns.longest.clear()

            def attempt(name: str) -> None:
                kind, coding, make = PROVIDED[name]
                body = make()
                encoded = b"Content-Encoding: " + coding + b"\r\n" if coding else b""
                head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n"
                provider.scripts["completions"] = [head % (kind, encoded, len(body)), body, CLOSE]
                reply = stack.ask("POST", "/v1/chat/completions", b'{"model":"gpt-4o"}')
                assert (reply.status, len(reply.body)) == (200, len(body)), name
                turns.note(name)

            for name in names:
                attempt(name)
            turns.again(attempt)
            turns.check()


def test_what_is_read_late_is_measured(tmp_path: Path) -> None:
    """A response of many small members that comes at once, with its usage at the end, is read after it was sent."""
    usage = b'"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}'
    body = b"{" + b'"":"",' * 60_000 + usage + b"}"
    with ScriptedProvider({}) as provider:

        class Behind(Stack):
            settings = SETTINGS.replace("{provider}", f"http://{HOST}:{provider.port}")

        with Behind(tmp_path) as stack:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            provider.scripts["completions"] = [head, body, CLOSE]
            assert stack.ask("POST", "/v1/chat/completions", b'{"model":"gpt-4o"}').body == body
            (line,) = entered(stack, 1)
            assert (line["basis"], line["input_tokens"], line["output_tokens"]) == ("exact", 7, 3), line


def test_others_are_served_meanwhile(stack: Stack) -> None:
    body = BOMBS["gzip of lists"][0]()
    with socket.create_connection(("127.0.0.1", stack.daemon.port), 10) as peer:
        peer.sendall(
            b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
            % (stack.new_token(budget_usd="1/day").encode(), len(body))
            + body
        )
        for _ in range(20):
            began = time.monotonic()
            assert stack.ask("GET", "/live").status == 200
            assert time.monotonic() - began < 2
        assert peer.recv(65_536).startswith(b"HTTP/1.1 4")
