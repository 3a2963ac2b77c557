"""What the ready page says while something is wrong, and that it says so no more once that is mended."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.test_background import lines, metric, ready
from tests.integration.test_unwritable_store import locked
from tests.support.processes import HOST
from tests.support.small_disk import small_disk
from tests.support.stack import Stack, eventually

BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("readiness")) as running:
        yield running


def ask(stack: Stack, many: int = 1, request_id: str = "") -> None:
    with closing(HTTPConnection(HOST, stack.daemon.port, timeout=30)) as connection:
        for number in range(many):
            fields = {"X-Request-ID": f"{request_id}{number}"} if request_id else {}
            connection.request("POST", "/v1/chat/completions", BODY, {**JSON, **fields, "X-API-Key": stack.token})
            response = connection.getresponse()
            response.read()
            assert response.status == 200


def check(stack: Stack, name: str) -> tuple[int, str]:
    status, page = ready(stack)
    return status, page["checks"][name]


def figure(stack: Stack, name: str) -> float:
    return metric(stack, f'llmproxy_check_ok{{check="{name}"}}')


def written(stack: Stack, text: str) -> int:
    return stack.daemon.output().count(text)


def test_every_check_is_a_metric(stack: Stack) -> None:
    status, page = ready(stack)
    assert (status, page["status"]) == (200, "ok")
    for name in page["checks"]:
        assert figure(stack, name) == 1, name


def test_a_journal_that_is_gone(stack: Stack) -> None:
    """Where its directory was removed it is made anew, which is counted and said; where that cannot be, no requests are
    to come until somebody has seen to it. Those that come all the same are served, and entered."""
    journals, before = stack.home / "state" / "ledger", lines(stack)
    ask(stack)
    shutil.rmtree(journals)
    eventually(lambda: metric(stack, "llmproxy_ledger_damaged_total") >= 1)
    eventually(lambda: any(journals.glob("*/*.segment")))
    assert written(stack, "goes on in another file") == 1
    eventually(lambda: check(stack, "ledger") == (200, "ok"))
    shutil.rmtree(journals)
    journals.write_text("in its place")
    try:
        eventually(lambda: check(stack, "ledger") == (503, "journal_gone"))
        assert figure(stack, "ledger") == 0
        ask(stack, 2)
        eventually(lambda: lines(stack) == before + 3)
        assert check(stack, "ledger") == (503, "journal_gone")
    finally:
        journals.unlink(missing_ok=True)
    eventually(lambda: check(stack, "ledger") == (200, "ok"))
    assert figure(stack, "ledger") == 1
    assert written(stack, "is gone and cannot be made anew") == 1
    assert "Traceback" not in stack.daemon.output()
    ask(stack)
    eventually(lambda: lines(stack) == before + 4)


def test_a_revocation_feed_that_is_silent(stack: Stack) -> None:
    """Tokens are looked up all the same, each time; the ready page, metrics and log say so until it is back."""

    def rename(table: str, to: str) -> None:
        with closing(sqlite3.connect(stack.home / "llmproxy.db", timeout=30)) as database:
            database.execute(f"ALTER TABLE {table} RENAME TO {to}")
            database.commit()

    rename("changes", "changes_away")
    try:
        eventually(lambda: check(stack, "revocation_feed") == (200, "silent"))
        assert ready(stack)[1]["status"] == "degraded"
        assert figure(stack, "revocation_feed") == 0
        ask(stack)
    finally:
        rename("changes_away", "changes")
    eventually(lambda: check(stack, "revocation_feed") == (200, "ok"))
    assert figure(stack, "revocation_feed") == 1
    assert written(stack, "The store has not said for 5 s what has changed") == 1
    assert written(stack, "The store says again what has changed") == 1


def test_a_store_that_takes_no_writes(stack: Stack) -> None:
    """Seen and said while nobody asks for it; the metric is at once what the ready page says, and the log does not say
    it again each time that somebody asks."""
    said, ended = written(stack, "The store takes no writes: "), written(stack, "The store takes writes again.")
    with locked(stack):
        eventually(lambda: written(stack, "The store takes no writes: ") > said)
        assert figure(stack, "store") == 0
        assert check(stack, "store")[0] == 503
        assert figure(stack, "store") == 0
        assert written(stack, "The store takes no writes: ") <= said + 2  # once, and once if the reason is another
    eventually(lambda: written(stack, "The store takes writes again.") > ended)
    eventually(lambda: (figure(stack, "store"), check(stack, "store")) == (1, (200, "ok")))
    assert written(stack, "Nothing can be stored") == 0


def test_a_full_disk_under_the_journal(tmp_path: Path) -> None:
    """A warning while what is written has its place already; no requests are to come once there is none for what comes
    next, and again as soon as somebody has made room. No line is lost."""
    disk = tmp_path / "disk"
    further = f"ledger: {{directory: {disk}/ledger, segment_bytes: 64KiB, max_bytes: 8MiB}}\n"
    with small_disk(disk, "1m"), Stack(tmp_path, further=further) as stack:
        ask(stack)
        assert check(stack, "ledger_disk") == (200, "ok")
        filler = disk / "filler"
        with locked(stack):  # the store takes nothing, so that the journal must keep all
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(16 * 1024))
            # By the metrics: the ready page waits for the store.
            eventually(lambda: figure(stack, "ledger_disk") == 0)
            assert figure(stack, "ledger") == 1
            sent = lines(stack)
            while figure(stack, "ledger") == 1:
                ask(stack, 50, f"{sent}{'x' * 100}-")
                sent += 50
                assert sent < 2000
            status, page = ready(stack)
            assert (status, page["checks"]["ledger"], page["checks"]["ledger_disk"]) == (503, "disk_full", "disk_full")
            filler.unlink()
            eventually(lambda: figure(stack, "ledger") == figure(stack, "ledger_disk") == 1)
        eventually(lambda: ready(stack)[1]["status"] == "ok")
        assert eventually(lambda: lines(stack) >= sent + 1 and lines(stack)) == sent + 1
        assert metric(stack, "llmproxy_ledger_lost_total") == 0
        assert written(stack, "The ledger may lose lines: disk_full.") == 1
        assert written(stack, "is full: what is written now still has its place") == 1
