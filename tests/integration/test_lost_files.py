"""Files that are removed, replaced or cut behind the daemon's back: the database, the encryption key, JSON lines."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.test_ledger_files import ask, metric
from tests.support.stack import MANAGEMENT, Stack, eventually


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        yield stack


def store(stack: Stack) -> tuple[int, str]:
    answer = stack.ask("GET", "/ready")
    return answer.status, answer.json["checks"]["store"]


def _remove(path: Path) -> None:
    path.rename(path.with_name("aside"))


def _replace(path: Path) -> None:
    shutil.copy(path, path.with_name("other"))
    path.rename(path.with_name("aside"))
    path.with_name("other").rename(path)


@pytest.mark.parametrize(("lose", "reason"), [(_remove, "file_was_removed"), (_replace, "file_was_replaced")])
def test_the_database(own: Stack, lose: Callable[[Path], None], reason: str) -> None:
    """Noticed within seconds, said, and nothing is written into a file that nobody will find; all is well when it is
    back, and no line is lost."""
    path = own.home / "llmproxy.db"
    ask(own, 3)
    lose(path)  # before the ledger's second is over, or after it
    eventually(lambda: store(own) == (503, reason), 5)
    eventually(lambda: reason.replace("_", " ") in own.daemon.output(), 5)
    body = json.dumps({"name": "lost", "api_keys": {}}).encode()
    manager = {"Authorization": f"Bearer {MANAGEMENT}"}
    assert own.ask("POST", "/manage/projects", body, manager).status == 503
    kept = path.with_name("aside")
    kept.rename(path)
    eventually(lambda: store(own) == (200, "ok"), 5)
    assert len(own.manage("GET", "/manage/projects")["data"]) == 1
    eventually(lambda: own.ask("GET", "/v1/models").status == 200, 5)
    eventually(lambda: _lines(path) >= 4, 5)


def test_another_database_in_its_place(own: Stack) -> None:
    """One that was copied over it, into the same file, is told by the id in its header."""
    own.daemon.stop()
    with closing(sqlite3.connect(own.home / "llmproxy.db")) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (0x4C4C4D50,)
        database.execute("PRAGMA application_id = 7")
    own.daemon = own.another("second")
    with pytest.raises(AssertionError, match="a database of another program"):
        own.daemon.start()


def test_overwritten_while_it_runs(own: Stack) -> None:
    """The same, under a daemon that runs."""
    with closing(sqlite3.connect(own.home / "llmproxy.db")) as database:
        database.execute("PRAGMA application_id = 7")
    eventually(lambda: "file is another database" in own.daemon.output(), 5)


def test_a_database_of_another_program(tmp_path: Path) -> None:
    """It need not be marked as that: it has tables, and none of ours."""
    file = tmp_path / "llmproxy.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE customers (name)")
    before = file.read_bytes()
    with pytest.raises(AssertionError, match="a database of another program"), Stack(tmp_path):
        pass
    assert file.read_bytes() == before


def _lines(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM ledger").fetchone()[0])


def test_the_encryption_key(tmp_path: Path) -> None:
    """A start without it refuses before it makes another, which would make the loss final."""
    stack = Stack(tmp_path)
    del stack.env["LLMPROXY_ENCRYPTION_KEY"]
    stack.daemon = stack.another()
    with stack:
        key = tmp_path / "state" / "encryption-key"
        secret = key.read_text()
        stack.daemon.stop()
        key.unlink()
        stack.daemon = stack.another("second")
        with pytest.raises(AssertionError, match="is not there, and the database has keys that were sealed with it"):
            stack.daemon.start()
        assert not key.exists()
        key.write_text(secret)
        key.chmod(0o600)
        stack.daemon = stack.another("third")
        stack.daemon.start()
        ask(stack, 1)
        stack.daemon.stop()


def test_half_lines(own: Stack) -> None:
    """What a crash or a full disk has left unfinished stays a line of its own, and is counted."""
    events = own.home / "events.jsonl"
    ask(own, 1)
    eventually(lambda: events.exists() and events.read_bytes().endswith(b"}\n"))
    own.daemon.kill()
    for path in (events, own.home / "audit.jsonl"):
        os.truncate(path, path.stat().st_size - 10)
    own.daemon = own.another("second")
    with own.daemon:
        ask(own, 1)
        own.new_token()
        eventually(lambda: metric(own, 'half_lines_total{file="audit"}') == 1)
        eventually(lambda: metric(own, 'half_lines_total{file="file-0"}') == 1)
    for path in (events, own.home / "audit.jsonl"):
        broken = [line for line in path.read_text().splitlines() if not _is_json(line)]
        assert len(broken) == 1, path


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
