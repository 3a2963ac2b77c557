"""The benchmark measures what it says: it starts the daemon, and gets good answers through it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.threaded_server import ThreadedServer, received

RUN = Path(__file__).parents[2] / "bench" / "run.py"
WHERE, LOAD = RUN.with_name("where.py"), RUN.with_name("load.c")
MISSING = [tool for tool in ("gcc", "taskset") if shutil.which(tool) is None]


class Names(ThreadedServer):
    """Answers requests without a body, and keeps what they ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[bytes] = set()

    def serve(self, connection: socket.socket) -> None:
        data = b""
        while piece := received(connection):
            *heads, data = (data + piece).split(b"\r\n\r\n")
            for head in heads:
                self.names.add(head.split(b" ")[1])
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@unittest.skipIf(MISSING, f"not on this machine: {', '.join(MISSING)}")
class BenchTests(unittest.TestCase):
    """C{bench/run.py}, as C{make bench} runs it, for a moment."""

    def test_a_scenario_that_is_none(self) -> None:
        """Before anything is started."""
        done = subprocess.run([sys.executable, RUN, "-k", "j32,j33"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn("j33: there is no such scenario", done.stderr)
        self.assertEqual(done.stdout, "")

    @pytest.mark.long("3 s: the load is compiled")
    def test_requests_of_a_file(self) -> None:
        """Each is sent in its turn, and a file that has more than there is room for is refused."""
        with TemporaryDirectory() as home, Names() as server:
            load, file = Path(home) / "load", Path(home) / "requests"
            subprocess.run(["gcc", "-o", load, LOAD, "-lm"], check=True, timeout=60)

            def sent(count: int) -> int:
                requests = [
                    b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % each for each in range(count)
                ]
                file.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in requests))
                command = [load, "-p", str(server.port), "-c", "1", "-d", "0.5", "-w", "0", "-F", file]
                return subprocess.run(command, capture_output=True, timeout=60).returncode

            self.assertEqual(sent(200), 0)
            self.assertLessEqual({b"/%d" % each for each in range(200)}, server.names)
            self.assertEqual(sent(32769), 2)

    @pytest.mark.long("6 s: the daemon under a profiler, and under load")
    def test_where_the_time_goes(self) -> None:
        """By function, for each request: it is sent to the provider once, and its response to the client; of what the
        cache has, the response alone."""
        for scenario, least, most in (("j32", 1.8, 2.2), ("hit", 0.9, 1.1)):
            done = subprocess.run(
                [sys.executable, WHERE, "-k", scenario, "--seconds", "0.5"], capture_output=True, text=True, timeout=120
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            calls = re.search(r"^\| ~:0 <method 'send' of .*> \| ([\d.]+) \|", done.stdout, re.MULTILINE)
            assert calls is not None, done.stdout
            self.assertTrue(least <= float(calls[1]) <= most, done.stdout)

    @pytest.mark.long("5 s: a round of the daemon and of what it is compared with")
    def test_one_short_round(self) -> None:
        """Requests are answered, all of them well, and what they cost is told."""
        done = subprocess.run(
            [sys.executable, RUN, "--sut", "llmproxy", "--sut", "plain", "-k", "j32", "-r", "1", "--seconds", "0.5",
             "--settling", "0.1", "--json"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual((said["missing"], said["flaws"]), ({}, []), done.stderr)
        for system in ("llmproxy", "plain"):
            figures = said["medians"]["j32"][system]
            self.assertGreater(figures["requests"], 0)
            self.assertEqual(figures["bad"], 0)
            self.assertGreater(figures["cpu_us"], 0)
