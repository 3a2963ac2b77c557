"""Lists and reports of a store that has grown, through the daemon.

With C{LLMPROXY_TEST_TOKENS=100000} there are a million sums of usage, and it takes some minutes.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST
from tests.support.stack import MANAGEMENT, Stack, eventually

TOKENS = int(os.environ.get("LLMPROXY_TEST_TOKENS", "10000"))
ROWS = 10 * TOKENS
FIELDS = {"Authorization": f"Bearer {MANAGEMENT}"}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("grown")) as stack:
        fill(stack.home / "llmproxy.db", stack.project)
        stack.ask("GET", "/v1/models")
        yield stack


def fill(path: Path, project: str) -> None:
    """Tokens t0000000 and on, each used on ten days; as fast as SQLite takes them."""
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {TOKENS - 1})"
        connection.execute(
            f"{numbers} INSERT INTO tokens (id, project_id, hash, prefix, name, active, request_count, apis, endpoints,"
            " models, ips, created_at) SELECT printf('t%07d', i), ?, printf('%064d', i), 'sk-lp-', '', 1, 0,"
            " '[]', '[]', '[]', '[]', 1700000000.0 + i FROM n",
            (project,),
        )
        connection.execute(
            f"{numbers}, days(d) AS (SELECT 10 UNION ALL SELECT d + 1 FROM days WHERE d < 19) INSERT INTO"
            " usage_by_period SELECT printf('2026-10-%02d', d), ?, printf('t%07d', i), 'openai', 'gpt-4o',"
            " 1, 0, 0, 0, 10, 0, 0, 5, 0, 0.000125 FROM days, n",
            (project,),
        )
        connection.execute(
            "INSERT OR REPLACE INTO usage_of_projects SELECT period, project_id, api, model, sum(requests), 0, 0, 0,"
            " sum(input_tokens), 0, 0, sum(output_tokens), 0, sum(cost_usd) FROM usage_by_period GROUP BY 1, 2, 3, 4"
        )


class Memory:
    """How much more memory a process takes at most, in MB, while this runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.more = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._before = self._now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _now(self) -> float:
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * 4096 / 1e6

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.more = max(self.more, self._now() - self._before)


def read(stack: Stack, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(stack.url + path, headers=FIELDS), timeout=60) as answer:
        return dict(json.loads(answer.read()))


def test_a_page_of_many_tokens(grown: Stack) -> None:
    """Ten of many take as long as ten of few, wherever they are, and no memory."""
    with Memory(grown.daemon.pid) as memory:
        for query in ("limit=10", f"limit=10&offset={TOKENS - 9}", f"limit=10&project_id={grown.project}"):
            begun = time.monotonic()
            page = read(grown, f"/manage/tokens?{query}")
            seconds = time.monotonic() - begun
            print(f"tokens?{query}: {seconds:.3f} s")
            assert (len(page["data"]), page["total"]) == (10, TOKENS + 1)
            assert seconds < 2.0
    print(f"{memory.more:.1f} MB more")
    assert memory.more < 30


@pytest.mark.long("1 s: each page of a list, of which others ask for one")
def test_all_of_many_tokens(grown: Stack) -> None:
    """Page by page each of them comes once; the last page takes no longer than the first."""
    seen: list[str] = []
    query, times = "limit=1000", []
    with Memory(grown.daemon.pid) as memory:
        while True:
            begun = time.monotonic()
            page = read(grown, f"/manage/tokens?{query}")
            times.append(time.monotonic() - begun)
            seen += [token["id"] for token in page["data"]]
            if not page["next_cursor"]:
                break
            query = f"limit=1000&cursor={page['next_cursor']}"
    print(f"{len(times)} pages: {sum(times):.1f} s, the slowest {max(times):.2f} s, {memory.more:.1f} MB more")
    assert len(seen) == len(set(seen)) == TOKENS + 1
    assert memory.more < 60


def test_a_report_of_many_rows(grown: Stack) -> None:
    """A sum over all of them, and a page of as many groups, which are too many to be counted."""
    with Memory(grown.daemon.pid) as memory:
        for query, total in (("group_by=project", 1), ("group_by=day,token&limit=10&to=2026-11-01", None)):
            begun = time.monotonic()
            page = read(grown, f"/manage/usage?{query}")
            print(f"usage?{query}: {time.monotonic() - begun:.2f} s")
            assert page["total"] == total
        begun = time.monotonic()
        page = read(grown, f"/manage/usage?group_by=day,token&limit=10&to=2026-11-01&cursor={page['next_cursor']}")
        print(f"the next page: {time.monotonic() - begun:.2f} s")
        assert [row["token_id"] for row in page["data"]] == [f"t{n:07d}" for n in range(10, 20)]
    print(f"{memory.more:.1f} MB more")
    assert memory.more < 60


def export(stack: Stack, query: str) -> tuple[HTTPConnection, HTTPResponse]:
    connection = HTTPConnection(HOST, stack.daemon.port, timeout=120)
    connection.request("GET", f"/manage/usage?{query}", headers=FIELDS)
    return connection, connection.getresponse()


def small_export(stack: Stack) -> None:
    """One row comes; the place of the export before may take a moment to be free once its last byte has come."""

    def comes() -> bool:
        connection, answer = export(stack, "group_by=project&format=csv")
        rows = answer.read().count(b"\n")
        connection.close()
        assert (answer.status, rows) in ((200, 2), (503, 0))
        return answer.status == 200

    eventually(comes)


@pytest.mark.long("1 s: as a report of many rows")
def test_all_of_a_csv_of_many_rows(grown: Stack) -> None:
    """All rows come, in bounded memory, while others are served."""
    begun = time.monotonic()
    with Memory(grown.daemon.pid) as memory:
        connection, answer = export(grown, "group_by=day,token&format=csv&to=2026-11-01")
        assert answer.status == 200
        first, last, count, slowest, size = answer.readline(), b"", 0, 0.0, 0
        while piece := answer.read(1 << 20):
            last, count, size = (last + piece)[-1000:], count + piece.count(b"\n"), size + len(piece)
            asked = time.monotonic()
            assert grown.ask("GET", "/v1/models").status == 200
            slowest = max(slowest, time.monotonic() - asked)
        connection.close()
    seconds = time.monotonic() - begun
    print(f"{count} rows, {size / 1e6:.0f} MB: {seconds:.1f} s, {memory.more:.1f} MB more; a request {slowest:.2f} s")
    assert first.startswith(b"day,token_id,requests,") and last.splitlines()[-1].startswith(
        f"2026-10-19,t{TOKENS - 1:07d},1,".encode()
    )
    assert count == ROWS
    assert memory.more < 60


@pytest.mark.long("1 s: beside an export that is read")
def test_a_client_that_does_not_read_its_csv(grown: Stack) -> None:
    """It holds nothing but its place: one part is read ahead, others' exports come through, and it leaves no trace."""
    with Memory(grown.daemon.pid) as memory:
        sleeper, answer = export(grown, "group_by=day,token&format=csv")
        assert answer.readline()
        other, whole = export(grown, "group_by=token&format=csv&to=2026-11-01")
        assert whole.read().count(b"\n") == TOKENS + 1
        other.close()
        small_export(grown)
        sleeper.close()
        answer.close()
    assert memory.more < 60
    eventually(lambda: grown.manage("GET", "/manage/projects")["total"] == 1)
    for _ in range(5):  # had the sleeper kept its place, the second of these would be refused
        small_export(grown)
