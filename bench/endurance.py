#!/usr/bin/env python3
"""Puts one daemon under what wears daemons down, and prints what it cost: a line of JSON for each trial.

    crowd     10,000 idle connections and 200 slow senders: what others notice of them
    slow      slowhttptest -H, -B and -X: how many connections it holds, and when they are gone
    stalled   a reader of 200 MB, and a provider of a 400 MB upload, that take nothing: memory
    soak      20 requests a second for five minutes: how long the loop is ever blocked, memory, descriptors

Provider (llmproxy's simulator) and trial have one core, the daemon has another; everything is on loopback, bounded in
time, and ended by its process id.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from systems import ASK, HERE, HOST, OURS, THEIRS, Process, free_port

SIMULATED_KEY = "sk-sim-openai"
CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
STREAM = CHAT.replace(b"{", b'{"stream":true,', 1)
Figures = dict[str, Any]


class Daemon:
    """The running daemon, as those see it who put it to the test."""

    def __init__(self, process: Process, port: int, management: str, home: Path) -> None:
        self.process, self.port, self.management, self.home = process, port, management, home
        self.token = _token(port, management)

    @property
    def megabytes(self) -> float:
        return self.process.rss / 1024

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def pid(self) -> int:
        """The daemon's own id: C{taskset} becomes it."""
        return self.process.pid

    @property
    def connections(self) -> int:
        """Client connections that are open, the one that asks not counted."""
        bearer = {"Authorization": f"Bearer {self.management}"}
        with ASK(urllib.request.Request(f"http://{HOST}:{self.port}/metrics", headers=bearer), timeout=30) as answer:
            page = answer.read().decode()
        line = next(line for line in page.splitlines() if line.startswith("llmproxy_client_connections "))
        return int(float(line.split()[1])) - 1

    @property
    def tracebacks(self) -> int:
        return (self.home / "llmproxy.log").read_text(errors="replace").count("Traceback")

    def connect(self, source: str = HOST) -> socket.socket:
        return socket.create_connection((HOST, self.port), 30, (source, 0))

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """A request's head, with the token."""
        given = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {self.token}", *lines, "", ""]
        return "\r\n".join(given).encode()

    def latencies(self, times: int, path: str = "/openai/v1/models") -> Figures:
        """How long ordinary requests take, one after the other on one connection; in milliseconds."""
        taken = []
        connection = HTTPConnection(HOST, self.port, timeout=30)
        for _ in range(times):
            began = time.perf_counter()
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            answer.read()
            taken.append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"The answer is {answer.status}.")
        connection.close()
        return spread(taken)

    def until_alone(self, seconds: float) -> float | None:
        """After how many seconds nobody else was connected any more; C{None} where somebody still is."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if self.connections <= 0:
                return round(time.monotonic() - began, 1)
            time.sleep(0.2)
        return None


def spread(taken: list[float]) -> Figures:
    ordered = sorted(taken)
    return {
        "p50_ms": round(ordered[len(ordered) // 2], 2),
        "p99_ms": round(ordered[len(ordered) * 99 // 100], 2),
        "max_ms": round(ordered[-1], 2),
    }


@contextmanager
def daemon(home: Path) -> Iterator[Daemon]:
    """The simulator, and the daemon in front of it, with everything on that production has."""
    twistd = [sys.executable, str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile="]
    provider, port = free_port(), free_port()
    management, log = secrets.token_urlsafe(32), home / "llmproxy.log"
    api = {
        "base_url": f"http://{HOST}:{provider}", "query_key": True,
        "allowed_methods": ["GET", "POST"], "circuit_breaker": {"failures": 0},
    }  # fmt: skip
    settings = {
        "default_api": "openai",
        "state_dir": str(home),
        "apis": {
            "openai": {**api, "provider": "openai", "allowed_endpoints": ["/v1/chat/completions", "/v1/models"]},
            "anything": {**api, "allowed_endpoints": ["/**"]},
        },
        "server": {"listen": [f"tcp:{port}:interface={HOST}"], "max_request_bytes": "1GiB"},
        "store": {"url": f"sqlite:///{home}/llmproxy.db"},
        "events": {"sinks": [{"type": "file", "path": str(home / "events.jsonl")}]},
        "audit": {"file": str(home / "audit.jsonl")},
    }
    (home / "apis.yaml").write_text(json.dumps(settings))
    env = {
        "LLMPROXY_MANAGEMENT_TOKEN": management, "LLMPROXY_ENCRYPTION_KEY": secrets.token_urlsafe(32),
        "PYTHONPATH": str(HERE.parent),
    }  # fmt: skip
    with ExitStack() as running:
        simulator = [*twistd, "llmproxy-simulator", "--listen", f"tcp:{provider}:interface={HOST}:backlog=4096"]
        running.enter_context(Process(OURS, simulator, home / "simulator.log", env, home).await_port(provider))
        command = [*twistd, "llmproxy", "--config", str(home / "apis.yaml")]
        process = running.enter_context(Process(THEIRS, command, log, env, home).await_port(port, "/readyz"))
        yield Daemon(process, port, management, home)


def _token(port: int, management: str) -> str:
    def made(what: str, body: Figures) -> Figures:
        headers = {"Authorization": f"Bearer {management}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{HOST}:{port}/manage/{what}", json.dumps(body).encode(), headers)
        with ASK(request, timeout=10) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]

    project = made("projects", {"name": "bench", "api_keys": dict.fromkeys(("openai", "anything"), SIMULATED_KEY)})
    return str(made("tokens", {"project_id": project["id"], "name": "bench"})["token"])


# The trials


def crowd(target: Daemon, idle: int, slow: int) -> Iterator[Figures]:
    """So many that wait, from ten addresses, and so many that send a byte every two seconds."""
    target.latencies(200)
    alone, before = target.latencies(1000), target.megabytes
    with ExitStack() as held:
        for number in range(idle):
            connection = held.enter_context(target.connect(f"127.0.0.{2 + number % 10}"))
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: bench\r\n\r\n")
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("An idle connection was not answered.")
        senders = []
        for number in range(slow):
            sender = held.enter_context(target.connect(f"127.0.0.{20 + number % 10}"))
            upload = target.head("POST", "/anything/v1/echo", "Content-Length: 100000")
            sender.sendall(upload if number % 2 else b"GET /openai/v1/models HTTP/1.1\r\nHost: bench\r\nX-A: ")
            senders.append(sender)
        stop = threading.Event()
        dripping = threading.Thread(target=_drip, args=(senders, stop), daemon=True)
        dripping.start()
        time.sleep(1)
        open_now, others = target.connections, target.latencies(1000)
        weight = (target.megabytes - before) * 1024 / (idle + slow)
        stop.set()
        dripping.join()
    yield {
        "trial": "crowd", "idle": idle, "slow": slow, "open": open_now, "alone": alone, "with_the_crowd": others,
        "kb_each": round(weight, 1), "seconds_until_gone": target.until_alone(30), "tracebacks": target.tracebacks,
    }  # fmt: skip


def _drip(senders: list[socket.socket], stop: threading.Event) -> None:
    while not stop.wait(2):
        for sender in senders:
            with suppress(OSError):
                sender.send(b"a")


def slow(target: Daemon, seconds: int, connections: int) -> Iterator[Figures]:
    """slowhttptest, in each of its ways; in the last one every connection asks for 100 MB and reads a few bytes."""
    program = shutil.which("slowhttptest")
    if program is None:
        sys.exit("endurance: slowhttptest is missing (Debian: the package slowhttptest)")
    url = f"http://{HOST}:{target.port}"
    large = f"{url}/anything/-/bytes?size=100000000&seed=1&key={target.token}"
    ways = {
        "-H": ["-i", "5", "-x", "24", "-p", "5", "-u", f"{url}/openai/v1/models"],
        "-B": ["-i", "5", "-x", "24", "-s", "100000", "-p", "5", "-u", f"{url}/anything/v1/echo?key={target.token}"],
        "-X": ["-k", "1", "-n", "5", "-w", "512", "-y", "1024", "-z", "32", "-p", "5", "-u", large],
    }
    for way, options in ways.items():
        command = [program, way, "-c", str(connections), "-r", "200", "-l", str(seconds), *options]
        began = time.monotonic()
        attack = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        most, none_since, taken, held = 0, None, [], []
        try:
            while attack.poll() is None and time.monotonic() - began < seconds + 60:
                passed = round(time.monotonic() - began)
                count = target.connections
                most = max(most, count)
                held.append((passed, count))
                none_since = (none_since if none_since is not None else passed) if most and count <= 0 else None
                taken.append(target.latencies(1)["max_ms"])
                time.sleep(1)
        finally:
            attack.kill()
            attack.wait()
        yield {
            "trial": f"slowhttptest {way}", "connections": connections, "most_open": most,
            "open_by_second": dict(held[:: max(1, len(held) // 15)]), "none_open_since_s": none_since,
            "ended_after_s": round(time.monotonic() - began), "others": spread(taken),
            "seconds_until_gone": target.until_alone(150), "tracebacks": target.tracebacks,
        }  # fmt: skip


def stalled(target: Daemon, seconds: float) -> Iterator[Figures]:
    """Somebody who takes nothing, on either side."""
    target.latencies(50)
    with target.connect() as reader:
        reader.sendall(target.head("GET", "/anything/-/bytes?size=200000000&seed=1"))
        reader.recv(100)
        yield {"trial": "stalled reader of 200 MB", **_memory(target, seconds, lambda: None)}
    target.until_alone(30)
    with target.connect() as sender:
        head = target.head("POST", "/anything/v1/echo", "Content-Length: 400000000", "X-Sim-Fault: stall-upload")
        sender.sendall(head)
        sender.settimeout(0.2)
        sent = 0

        def push() -> None:
            nonlocal sent
            with suppress(TimeoutError):
                while True:
                    sent += sender.send(bytes(65536))

        figures = _memory(target, seconds, push)
        yield {"trial": "stalled provider of a 400 MB upload", "sent_mb": round(sent / 1e6, 1), **figures}


def _memory(target: Daemon, seconds: float, meanwhile: Callable[[], object]) -> Figures:
    before = most = target.megabytes
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        meanwhile()
        most = max(most, target.megabytes)
        time.sleep(0.2)
    return {"mb_before": round(before, 1), "mb_most": round(most, 1), "mb_added": round(most - before, 2)}


def soak(target: Daemon, seconds: float, rate: float) -> Iterator[Figures]:
    """A mixture of requests, at a fixed rate; a probe asks every 20 ms how long the loop lets it wait, and where that is
    long, whether the daemon was busy or had no core."""
    counts: dict[str, int] = {}
    stop = threading.Event()
    waits: list[float] = []
    slow: list[Figures] = []
    probe = threading.Thread(target=_probe, args=(target, stop, waits, slow), daemon=True)
    target.latencies(100)
    probe.start()
    trail, began, number = [], time.monotonic(), 0
    asking: list[threading.Thread] = []
    while (passed := time.monotonic() - began) < seconds:
        if passed >= len(trail) * seconds / 10:
            trail.append((round(passed), round(target.megabytes, 1), target.descriptors))
        asking = [thread for thread in asking if thread.is_alive()]
        if len(asking) < 200:
            asking.append(threading.Thread(target=_ask, args=(target, number, counts), daemon=True))
            asking[-1].start()
        number += 1
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
    for thread in asking:
        thread.join(30)
    stop.set()
    probe.join()
    gone = target.until_alone(100)
    trail.append((round(time.monotonic() - began), round(target.megabytes, 1), target.descriptors))
    yield {
        "trial": "soak", "seconds": seconds, "rate": rate, "answers": counts, "probe": spread(waits),
        "probes": len(waits), "over_50_ms": slow, "second_mb_descriptors": trail,
        "seconds_until_gone": gone, "tracebacks": target.tracebacks,
    }  # fmt: skip


def _probe(target: Daemon, stop: threading.Event, waits: list[float], slow: list[Figures]) -> None:
    with target.connect() as connection:
        while not stop.wait(0.02):
            began, before = time.perf_counter(), _core_time(target.pid)
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: bench\r\n\r\n")
            if not connection.recv(65536):
                return
            waited = (time.perf_counter() - began) * 1000
            waits.append(waited)
            if waited > 50:
                on_core, for_core = (after - then for after, then in zip(_core_time(target.pid), before, strict=True))
                slow.append({"waited_ms": round(waited), "ran_ms": round(on_core), "had_no_core_ms": round(for_core)})


def _core_time(pid: int) -> tuple[float, float]:
    """Milliseconds that the process has run, and that it would have run if it had had a core."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e6, int(waited) / 1e6


def _ask(target: Daemon, number: int, counts: dict[str, int]) -> None:
    """Every tenth request is wrong in some way, every fifth a stream, one in fifty is left in the middle."""
    authorization = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
    path, body, headers = "/openai/v1/chat/completions", CHAT, authorization
    if number % 10 == 9:
        headers = {**authorization, "Authorization": "Bearer sk-lp-" + "x" * 43}
    elif number % 10 in (3, 8):
        body, headers = STREAM, {**authorization, "X-Sim-Events": "20", "X-Sim-Delay": "0,0.05"}
    elif number % 10 == 5:
        path, body = "/anything/v1/echo", b"x" * 200_000
        headers = {**authorization, "X-Sim-Echo": "1"}
    connection = HTTPConnection(HOST, target.port, timeout=60)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        if number % 50 == 3:
            said = "left"
        else:
            answer.read()
            said = str(answer.status)
    except (OSError, HTTPException) as e:
        said = type(e).__name__
    finally:
        connection.close()
    counts[said] = counts.get(said, 0) + 1


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("trial", nargs="*", default=["crowd", "slow", "stalled", "soak"])
    options.add_argument("--idle", type=int, default=10_000, help="connections of crowd; default: %(default)s")
    options.add_argument("--slow", type=int, default=200, help="slow senders of crowd; default: %(default)s")
    options.add_argument("-c", type=int, default=500, help="connections of slowhttptest; default: %(default)s")
    options.add_argument("-l", type=int, default=80, help="seconds of each of its runs; default: %(default)s")
    options.add_argument("--seconds", type=float, default=300, help="of soak; default: %(default)s")
    options.add_argument("--rate", type=float, default=20, help="requests a second of soak; default: %(default)s")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    trials: dict[str, Callable[[Daemon], Iterator[Figures]]] = {
        "crowd": lambda target: crowd(target, given.idle, given.slow),
        "slow": lambda target: slow(target, given.l, given.c),
        "stalled": lambda target: stalled(target, 10),
        "soak": lambda target: soak(target, given.seconds, given.rate),
    }
    for name in given.trial:
        if name not in trials:
            options.error(f"{name}: there is no such trial")
    for name in given.trial:
        with tempfile.TemporaryDirectory(prefix="llmproxy-endurance-") as home, daemon(Path(home)) as target:
            for figures in trials[name](target):
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
