"""Whatever requests and providers do, nobody notices which way a request went: through real sockets and two daemons,
one of them without the short way."""

from __future__ import annotations

import gzip
import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, product
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.processes import HOST
from tests.support.proxy_case import FAST_PATH
from tests.support.stack import KEYS, MANAGEMENT, Stack, eventually
from tests.support.suspending import suspended
from tests.support.threaded_server import ThreadedServer, received

SETTINGS = """\
state_dir: {home}/state
default_api: openai
apis:
  openai:
    provider: openai
    base_url: %s
    allowed_endpoints: [/v1/chat/completions, /v1/responses]
    circuit_breaker: {{failures: 0}}
  pages:
    provider: openai
    base_url: %s
    allowed_endpoints: [/v1/chat/completions, /v1/responses]
    circuit_breaker: {{failures: 0}}
    allowed_origins: ["https://app.test"]
    forward_client_ip: true
  asking:
    provider: openai
    base_url: %s
    allowed_endpoints: [/v1/chat/completions, /v1/responses]
    circuit_breaker: {{failures: 0}}
    metering: {{include_usage: inject}}
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
events: {{sinks: [{{type: file, path: {home}/events.jsonl}}]}}
"""
APIS = ("openai", "pages", "asking")
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
DONE = json.dumps({"model": "gpt-4o-2024-08-06", "usage": USAGE, "choices": []}).encode()
EVENTS = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n' + b"data: %b\n\ndata: [DONE]\n\n" % DONE
MADE = {
    "id": "resp_1",
    "object": "response",
    "background": False,
    "model": "gpt-4o",
    "status": "completed",
    "output": [],
}
MADE_USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
QUEUED = json.dumps({**MADE, "background": True, "status": "queued", "usage": None}).encode()
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE, SILENT = None, ...
LOADED = str(Path(__file__).parent.parent / "load")


def whole(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    head = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"x-request-id: req-1", *lines]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", b""]) + body


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


STREAM = CHUNKED % b"text/event-stream"
SCRIPTS: dict[str, tuple[Any, ...]] = {
    "whole": (whole(DONE, b"Set-Cookie: a=b", b"x-ratelimit-remaining-requests: 5"),),
    "for pages": (whole(DONE, b"Access-Control-Allow-Origin: *", b"Vary: Accept"),),
    "in pieces": (whole(DONE)[:40], whole(DONE)[40:]),
    "chunked": (CHUNKED % b"application/json" + chunks(DONE[:10], DONE[10:]),),
    "gzip": (whole(gzip.compress(DONE, mtime=0), b"Content-Encoding: gzip"),),
    "stream": (STREAM + chunks(EVENTS),),
    "stream of known length": (whole(EVENTS).replace(b"application/json", b"text/event-stream"),),
    "stream of one text": (STREAM + chunks(EVENTS[:20], EVENTS[20:60], EVENTS[60:]),),
    "stream in gzip": (STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n" + chunks(gzip.compress(EVENTS, mtime=0)),),
    "stream in pieces": (STREAM, chunks(EVENTS)[:30], chunks(EVENTS)[30:]),
    "large": (whole(DONE + b" " * 300_000),),
    "no usage": (whole(b'{"choices":[]}'),),
    "refused": (whole(b'{"error":{"message":"no"}}', status=b"400 Bad Request"),),
    "throttled": (whole(b"{}", b"Retry-After: 1", status=b"429 Too Many Requests"),),
    "closes": (whole(DONE, b"Connection: close"), CLOSE),
    "cut": (whole(DONE)[:-5], CLOSE),
    "stream cut": (STREAM + b"8\r\ndata: {}\r\n", CLOSE),
    "no answer": (CLOSE,),
    "garbage": (b"HELLO\r\n\r\n", CLOSE),
    "silent": (SILENT,),
    "a response": (whole(json.dumps({**MADE, "usage": MADE_USAGE}).encode()),),
    "a response stream": (
        STREAM
        + chunks(
            b"event: response.created\ndata: %b\n\n"
            % json.dumps({"type": "response.created", "response": {**MADE, "status": "in_progress"}}).encode(),
            b"event: response.completed\ndata: %b\n\n"
            % json.dumps({"type": "response.completed", "response": {**MADE, "usage": MADE_USAGE}}).encode(),
        ),
    ),
    "queued": (whole(QUEUED),),
}
BODIES = {
    "usual": b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"max_tokens":20}',
    "a stream": b'{"model":"gpt-4o","stream":true,"messages":[]}',
    "a stream that asks": b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[]}',
    "a stream that does not": b' {"stream_options": {"include_usage": false}, "model": "gpt-4o", "stream": true}',
    "long": b'{"model":"gpt-4o","messages":[{"content":"%b"}]}' % (b"a prompt that is long. " * 5000),
    "two models": b'{"messages":[{"content":"\\u0041"}],"model":"gpt-4o-mini","model":"other"}',
    "no JSON": b"no JSON",
    "a response": b'{"model":"gpt-4o","input":"hi"}',
    "a response stream": b'{"model":"gpt-4o","input":"hi","background":false,"stream":true}',
    "in the background": b'{"model":"gpt-4o","input":"hi","back\\u0067round":true}',
    "its own": b'{"model":"gpt-4o","messages":[{"role":"user","content":"I am @ID@."}]}',
}
RESPONSES = ("a response", "a response stream", "in the background")
PAGE = ("Origin: https://app.test", "Accept-Encoding: br")
FIELDS: tuple[tuple[str, ...], ...] = (
    (),
    ("Content-Type: application/json", "traceparent: 00-{n}-45-01", "X-Stainless-Retry-Count: 1"),
    ("Accept-Encoding: gzip, deflate", "Idempotency-Key: key-{n}", "Connection: keep-alive"),
    ("Cookie: session=1", "X-Forwarded-For: 1.2.3.4", "OpenAI-Organization: org"),
    ("Accept: text/event-stream",),
    PAGE,
    ("Connection: close",),
)
MAY_BE_KEPT = (
    ("Cache-Control: public, max-age=300", "traceparent: 00-{n}-45-01"),
    ("Cache-Control: public, max-age=300", *PAGE),
)
STEP = st.tuples(
    st.sampled_from(sorted(BODIES)),
    st.sampled_from(FIELDS),
    st.one_of(st.sampled_from(("whole", "stream")), st.sampled_from(sorted(SCRIPTS))),
    st.sampled_from(("one read", "two reads", "many reads")),
    st.sampled_from(APIS),
)
KEPT = st.tuples(
    st.sampled_from(("its own", "usual", "a stream")),
    st.sampled_from(MAY_BE_KEPT),
    st.sampled_from(sorted(SCRIPTS.keys() - {"silent"})),
    st.sampled_from(("one read", "two reads")),
    st.sampled_from(APIS),
)
# Of those that come together, what one does must not change what becomes of another: a key that rests after 429 would.
TOGETHER = st.tuples(
    st.sampled_from(sorted(BODIES.keys() - {"long"})),  # which a socket may not hold while nobody reads it
    st.sampled_from(FIELDS),
    st.one_of(st.sampled_from(("whole", "stream")), st.sampled_from(sorted(SCRIPTS.keys() - {"large", "throttled"}))),
    st.sampled_from(("one read", "two reads")),
    st.sampled_from(APIS),
)
KEPT_TOGETHER = st.tuples(
    st.just("its own"),
    st.sampled_from(MAY_BE_KEPT),
    st.sampled_from(sorted(SCRIPTS.keys() - {"large", "throttled", "silent"})),
    st.sampled_from(("one read", "two reads")),
    st.sampled_from(APIS),
)
# What is said of a response that was cut, by whether its head was sent before that was known.
CUT_OR_STORED = (b"X-Cache-Status: miss\r\nX-Cache-Debug: cut", b"X-Cache-Status: stored\r\nX-Cache-Debug: uri-miss")
VARYING = re.compile(
    rb"^((?:Date|Age|Cache-Status|Server-Timing|X-Upstream-Response-Time|Retry-After"
    rb"|x-ratelimit-(?:remaining|reset)-[a-z]+): )[^\r]*",
    re.IGNORECASE | re.MULTILINE,
)


class Provider(ThreadedServer):
    """Plays the script that a request names in C{X-Script}, and keeps what it was sent.

    @ivar goes_on: Whether it answers; until then requests wait. C{answered}: how many it has answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[bytes] = []
        self.answered: list[str] = []
        self.goes_on = Event()
        self.goes_on.set()
        self.url = f"http://{HOST}:{self.port}"

    def serve(self, connection: socket.socket) -> None:
        data = b""
        while True:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                piece = received(connection)
                if not piece:
                    return
                data = head + piece
                continue
            length = int((re.search(rb"(?i)\r\ncontent-length: (\d+)", head) or [b"", b"0"])[1])
            while len(data) < length:
                data += connection.recv(65536) or b"?" * length
            self.requests.append(head + end + data[:length])
            data = data[length:]
            name = (re.search(rb"\r\nX-Script: ([^\r]*)", head) or [b"", b"silent"])[1].decode()
            self.goes_on.wait(30)
            for act in SCRIPTS[name]:
                if act is CLOSE:
                    connection.shutdown(socket.SHUT_RDWR)
                    self.answered.append(name)
                    return
                if act is SILENT:
                    self.answered.append(name)
                    connection.recv(1)
                    return
                connection.sendall(act)
            self.answered.append(name)


class Lane:
    """A client of a daemon, which sends one request after the other, on one connection where it can."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.connection: socket.socket | None = None

    def send(self, kind: str, fields: tuple[str, ...], script: str, manner: str, api: str, request_id: str) -> None:
        body = BODIES[kind].replace(b"@ID@", request_id.encode())
        if self.connection is None:
            self.connection = socket.create_connection((HOST, self.way.daemon.port), 30)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        path = "/v1/responses" if kind in RESPONSES else "/v1/chat/completions"
        lines = [f"POST /{api}{path} HTTP/1.1", "Host: proxy.test", f"Authorization: Bearer {self.way.token}"]
        lines += [f"X-Script: {script}", f"X-Request-ID: {request_id}", *(f.format(n=request_id) for f in fields)]
        sent = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
        cut = {"one read": len(sent), "two reads": len(sent) - len(body), "many reads": 30_000}[manner]
        for at in range(0, len(sent), max(cut, 1)):
            self.connection.sendall(sent[at : at + max(cut, 1)])

    def receive(self, script: str, manner: str, api: str) -> Any:
        """What the client sees of the response; where there will be none, it leaves."""
        assert self.connection is not None
        if script == "silent":
            self.hang_up()
            return "left"
        response, ended = whole_response(self.connection)
        if ended:
            self.hang_up()
        return VARYING.sub(rb"\1-", joined(response, is_framed=api != "asking")).replace(*CUT_OR_STORED), ended

    def hang_up(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


class Way(Stack):
    """A daemon, and its clients."""

    keys = dict.fromkeys(APIS, KEYS["openai"])

    def __init__(self, home: Path, provider: Provider, fast: bool, **env: str) -> None:
        home.mkdir()
        self.settings = SETTINGS % ((provider.url,) * len(APIS))
        super().__init__(home, env={FAST_PATH: "true" if fast else "false", **env})
        self.provider = provider

    def play(self, steps: list[Any], ids: list[str]) -> list[Any]:
        """What client and provider see of these requests, one after the other."""
        self.provider.requests.clear()
        lane, noticed = Lane(self), []
        for step, each in zip(steps, ids, strict=True):
            before = len(self.provider.requests)
            lane.send(*step, request_id=each)
            if step[2] == "silent":  # the client leaves once the provider has the request
                eventually(lambda before=before: len(self.provider.requests) > before)  # type: ignore[misc]
            noticed.append(lane.receive(*step[2:]))
        lane.hang_up()
        return [noticed, list(self.provider.requests)]

    def play_together(self, steps: list[Any], rounds: list[list[str]]) -> list[Any]:
        """Likewise, where as many clients as there are steps send theirs in each round so that all come in one turn of
        the reactor, and so do the responses."""
        provider, lanes, noticed = self.provider, [Lane(self) for _ in steps], []
        provider.requests.clear()
        for ids in rounds:
            before = len(provider.requests)
            provider.answered.clear()
            provider.goes_on.clear()
            with suspended(self.daemon.pid):
                for lane, step, each in zip(lanes, steps, ids, strict=True):
                    lane.send(*step, request_id=each)
            eventually(lambda before=before: len(provider.requests) >= before + len(steps))  # type: ignore[misc]
            with suspended(self.daemon.pid):
                provider.goes_on.set()
                eventually(lambda: len(provider.answered) >= len(steps))
            noticed.append([lane.receive(*step[2:]) for lane, step in zip(lanes, steps, strict=True)])
        for lane in lanes:
            lane.hang_up()
        return [noticed, sorted(provider.requests)]

    # What is recorded

    def events(self) -> dict[str, Any]:
        return by_id(self.home / "events.jsonl")

    def access_lines(self) -> dict[str, Any]:
        return by_id(self.home / "llmproxy.log")

    def ledger(self) -> dict[str, Any]:
        with sqlite3.connect(f"file:{self.home}/llmproxy.db?mode=ro", uri=True, timeout=10) as opened:
            opened.row_factory = sqlite3.Row
            return {row["request_id"]: same(dict(row)) for row in opened.execute("SELECT * FROM ledger")}

    def token_uses(self) -> list[int]:
        """How often each token was used."""
        return sorted(each["request_count"] for each in self.manage("GET", "/manage/tokens")["data"])

    def direct(self) -> int:
        """How many requests went the short way."""
        return int(self.metric("fast_path_requests_total"))

    def figures(self) -> dict[str, Any]:
        """What was counted, without times and without which way it went."""
        text = self.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
        names = (
            "requests|errors|refusals|streams|request_bytes|response_bytes|upstream_errors|input_tokens|output_tokens"
        )
        wanted = rf"^(llmproxy_(?:{names}|cost_usd|usage_estimated|sdk_retries)_total\{{.*\}}) (.*)$"
        return {name: round(float(value), 9) for name, value in re.findall(wanted, text, re.MULTILINE)}


def whole_response(connection: socket.socket) -> tuple[bytes, bool]:
    """One response, and whether the connection ended with it."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            closes = re.search(rb"(?i)\r\nconnection: close", head) is not None
            if not closes and (body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])):
                return data, False
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return data, True
        data += piece


def joined(response: bytes, *, is_framed: bool) -> bytes:
    """With its chunks as one: how they are cut depends on how the provider's bytes arrived.

    @param is_framed: Whether not even that it comes in chunks does.
    """
    head, end, body = response.partition(b"\r\n\r\n")
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: chunked", head)
    if not is_framed:
        head = re.sub(rb"(?i)\r\n(transfer-encoding: chunked|content-length: \d+)", b"", head)
    if not chunked:
        return response if is_framed else head + end + body + b" (all of it)"
    pieces = [head, end]
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        pieces.append(body[:count] if count else b" (all of it)")
        body = body[count + 2 :]
    return b"".join(pieces)


def by_id(path: Path) -> dict[str, Any]:
    """The records of requests in a file of JSON lines."""
    found = {}
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            record = json.loads(line)
            if str(record.get("request_id", "")).startswith("way-"):
                found[record["request_id"]] = same(record)
    return found


def same(record: dict[str, Any]) -> dict[str, Any]:
    """Of a record, what does not depend on when it was made, by whom, or which way it went."""
    own = ("id", "number", "ts", "at", "run", "project_id", "token_id", "steps", "project", "token", "client")
    kept = {k: v for k, v in record.items() if k not in own and (k == "cost_usd" or not isinstance(v, float))}
    return {k: v for k, v in kept.items() if not k.endswith(("_ms", "_at", "_seconds", "duration"))}


def unlike(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Where two records differ."""
    return {key: (one.get(key), other.get(key)) for key in one | other if one.get(key) != other.get(key)}


@contextmanager
def both_ways(home: Path, **env: str) -> Iterator[tuple[Way, Way]]:
    with (
        Provider() as provider,
        Way(home / "short", provider, True, **env) as short,
        Way(home / "long", provider, False, **env) as long,
    ):
        for way in (short, long):
            way.token = way.new_token(requests_per_minute=1_000_000, tokens_per_minute=10**9)
        yield short, long


def test_nobody_notices(tmp_path: Path) -> None:
    """The same bytes to provider and client, the same events, access lines, ledger lines, figures, and uses."""
    ids, number = set[str](), count()

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(STEP, STEP, KEPT), min_size=1, max_size=5), st.booleans())
    def compare(steps: list[Any], again: bool) -> None:
        steps = [step for step in steps for _ in range(4 if again else 1)]  # a head is known from the third time on
        names = [f"way-{next(number):06}" for _ in steps]
        ids.update(names)
        assert short.play(steps, names) == long.play(steps, names)

    with both_ways(tmp_path) as (short, long):
        compare()
        check_records(short, long, ids)


def test_nobody_notices_in_a_crowd(tmp_path: Path) -> None:
    """Likewise, under load, where many come in one turn, and are served together."""
    ids, number = set[str](), count()

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(TOGETHER, TOGETHER, KEPT_TOGETHER), min_size=2, max_size=12))
    def compare(steps: list[Any]) -> None:
        rounds = [[f"way-crowd-{next(number):06}" for _ in steps] for _ in range(4)]
        ids.update(*rounds)
        assert short.play_together(steps, rounds) == long.play_together(steps, rounds)

    with both_ways(tmp_path, PYTHONPATH=LOADED) as (short, long):
        compare()
        check_records(short, long, ids)


@pytest.mark.parametrize("api", APIS)
def test_nobody_notices_what_an_api_changes(tmp_path: Path, api: str) -> None:
    """What is added to requests and responses, and taken out of them, is the same as well."""
    ids, number = set[str](), count()
    kinds = [kind for kind in BODIES if kind in ("usual", "a response") or "a stream" in kind]
    scripts = [script for script in SCRIPTS if script in ("whole", "for pages") or "stream" in script]
    with both_ways(tmp_path) as (short, long):
        for kind, fields, script in product(kinds, ((), PAGE), scripts):
            steps = [(kind, fields, script, manner, api) for manner in ("one read", "two reads") for _ in range(3)]
            names = [f"way-{api}-{next(number):06}" for _ in steps]
            ids.update(names)
            assert short.play(steps, names) == long.play(steps, names), steps[0]
        check_records(short, long, ids)
        assert short.direct() > len(ids) / 2


def test_nobody_notices_after_a_reload(tmp_path: Path) -> None:
    """On a connection that is kept, the first request after it is what the settings make of it."""
    changes = (
        ("include_usage: inject", "include_usage: leave"),
        ("include_usage: leave", "include_usage: inject"),
        ("forward_client_ip: true", "forward_client_ip: false"),
        ("https://app.test", "https://elsewhere.test"),
        ("https://elsewhere.test", "https://app.test"),
    )
    number, seen = count(), []
    with both_ways(tmp_path) as (short, long):
        lanes = [Lane(short), Lane(long)]
        for old, new in (("", ""), *changes):
            for lane in lanes:
                file = lane.way.home / "llmproxy.yaml"
                file.write_text(file.read_text().replace(old, new) if old else file.read_text())
                lane.way.manage("POST", "/manage/reload")
            for api, _ in product(("asking", "pages"), range(4)):
                name, noticed = f"way-reload-{next(number):04}", []
                for lane in lanes:
                    short.provider.requests.clear()
                    lane.send("a stream", PAGE, "stream", "one read", api, name)
                    noticed.append((lane.receive("stream", "one read", api), list(short.provider.requests)))
                assert noticed[0] == noticed[1], (old, new, api)
                seen.append(noticed[0])
        for lane in lanes:
            lane.hang_up()
        assert short.direct() > len(changes)
    assert len({b"include_usage" in b"".join(sent) for _, sent in seen}) == 2
    assert len({b"X-Forwarded-For" in b"".join(sent) for _, sent in seen}) == 2
    assert {response[9:12] for (response, _), _ in seen} == {b"200", b"403"}


def check_records(short: Way, long: Way, ids: set[str]) -> None:
    """What is recorded of these requests, and of all so far, is the same; some went the short way."""
    for what in (Way.events, Way.access_lines, Way.ledger):
        for way in (short, long):
            eventually(lambda what=what, way=way: ids <= what(way).keys(), 30)  # type: ignore[misc]
        one, other = what(short), what(long)
        assert [(each, unlike(one[each], other[each])) for each in sorted(ids) if one[each] != other[each]][:3] == []
    assert short.figures() == long.figures()
    assert short.token_uses() == long.token_uses()
    assert short.direct() > 0 and not long.direct()
