"""All that is stored in one file, and back from it: into the same kind of database, and into another."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from llmproxy.store.engines import parse_store_url
from llmproxy.store.migrate import SCRIPTS, newest_revision
from tests.integration.test_key_rotation import CHAT, JSON, Load
from tests.support.databases import migrated_sqlite
from tests.support.postgres import PostgreSQL
from tests.support.processes import run_command
from tests.support.stack import Stack, eventually

LLMPROXY = str(Path(sys.executable).with_name("llmproxy"))


def cli(stack: Stack, *arguments: str, store: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **stack.env, **({"LLMPROXY_STORE_URL": store} if store else {})}
    return run_command(["llmproxy", *arguments, "--config", stack.home / "llmproxy.yaml"], env=env, timeout=180)


def rows(stack: Stack, database: str = "llmproxy.db") -> dict[str, int]:
    with sqlite3.connect(stack.home / database, timeout=20) as connection:
        names = ("projects", "provider_keys", "tokens", "ledger", "audit_log", "canaries")
        return {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in names}


@pytest.mark.long("1 s: under load, as at rest")
def test_while_it_runs(tmp_path: Path) -> None:
    """No request fails; what comes back serves the same tokens, and the audit log is as it was written."""
    file = tmp_path / "backup.tgz"
    with Stack(tmp_path) as stack:
        with Load(stack) as load:
            eventually(lambda: load.done > 100, 30)
            made = cli(stack, "backup", str(file))
            eventually(lambda: load.done > 150, 30)
        assert made.returncode == 0, made.stderr
        assert load.failures == []
        assert "The encryption key belongs with it" in made.stderr
        assert file.stat().st_mode & 0o777 == 0o600
        assert cli(stack, "backup", str(file)).returncode == 78, "it is not replaced"
    with tarfile.open(file) as archive:
        assert "encryption-key" not in archive.getnames()
        assert any(name.startswith("journals/") for name in archive.getnames())
    refused = cli(stack, "restore", str(file))
    assert refused.returncode == 78
    assert "in use already" in refused.stderr
    other = f"sqlite:///{tmp_path}/other.db"
    restored = cli(stack, "restore", str(file), store=other)
    assert restored.returncode == 0, restored.stderr
    assert "each as it was" in restored.stdout
    assert rows(stack, "other.db")["tokens"] == 1
    assert cli(stack, "restore", str(file), "--force", store=other).returncode == 0
    stack.env["LLMPROXY_STORE_URL"] = other
    with stack.simulator, stack.another("another") as daemon:
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, port=daemon.port).status == 200


def test_altered(tmp_path: Path) -> None:
    """A row that is not what was archived: nothing is changed."""
    stack = Stack(tmp_path)
    assert cli(stack, "migrate", "upgrade").returncode == 0
    assert cli(stack, "backup", str(tmp_path / "good.tgz")).returncode == 0
    with tarfile.open(tmp_path / "good.tgz") as archive:
        archive.extractall(tmp_path / "inside", filter="data")
    epochs = tmp_path / "inside" / "tables" / "epochs.jsonl"
    epochs.write_text(epochs.read_text().replace(",0]", ",7]"))
    with tarfile.open(tmp_path / "bad.tgz", "w:gz") as archive:
        for path in sorted((tmp_path / "inside").rglob("*")):
            if path.is_file():
                archive.add(path, str(path.relative_to(tmp_path / "inside")))
    refused = cli(stack, "restore", str(tmp_path / "bad.tgz"), "--force")
    assert refused.returncode == 78
    assert "Nothing was changed" in refused.stderr
    with sqlite3.connect(tmp_path / "llmproxy.db") as connection:
        assert 7 not in [number for (number,) in connection.execute("select number from epochs")]


def make_lines(stack: Stack, lines: int) -> None:
    """A database with a project, and a ledger of so many lines."""
    migrated_sqlite(stack.home / "llmproxy.db")
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {lines - 1})"
    values = "1, i, 1, 1.5e9 + i, 0.25, 'request ' || i, 10, 0, 0, 5, 0, 0.0001 * i, 900, 2000, '', 1, ''"
    with sqlite3.connect(stack.home / "llmproxy.db") as connection:
        connection.execute("INSERT INTO projects (id, name, active, created_at, updated_at) VALUES ('p', 'x', 1, 1, 1)")
        connection.execute(f"INSERT INTO ledger_lines {numbers} SELECT {values} FROM n")


def stored(url: str, table: str) -> int:
    engine = create_engine(parse_store_url(url))
    try:
        with engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
    finally:
        engine.dispose()


@pytest.mark.long("2 s: to PostgreSQL and back, each by a process of its own")
def test_move(tmp_path: Path, postgres: PostgreSQL) -> None:
    """Into PostgreSQL and back, by scripts: counts and checksums of each table, and how far it is, as JSON."""
    file, server = tmp_path / "move.tgz", postgres.url()
    with Stack(tmp_path) as stack:
        stack.new_token(name="Nº 1 😀", max_requests=10**6)
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
        eventually(lambda: rows(stack)["ledger"] >= 1, 30)
    exported = cli(stack, "export", str(file), "--output", "json")
    assert exported.returncode == 0, exported.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    imported = cli(stack, "import", str(file), "--store", server, "--output", "json")
    assert imported.returncode == 0, imported.stderr
    first, second = json.loads(exported.stdout), json.loads(imported.stdout)
    assert first["tables"] == second["tables"]
    assert {each["table"]: each["rows"] for each in first["tables"]}["tokens"] == stored(server, "tokens") == 2
    steps = [json.loads(line) for line in imported.stderr.splitlines()]
    assert [each["step"] for each in steps if each["rows"] == each["total"] == first["rows"]] == ["writing", "checking"]
    again = cli(stack, "import", str(file), "--store", server)
    assert again.returncode == 78
    assert again.stderr == "Error: The database is in use already (projects has rows): import needs an empty one.\n"
    back = f"sqlite:///{tmp_path}/back.db"
    assert cli(stack, "export", str(tmp_path / "back.tgz"), "--store", server).returncode == 0
    returned = cli(stack, "import", "--store", back, str(tmp_path / "back.tgz"))
    assert returned.returncode == 0, returned.stderr
    assert "Checking: " in returned.stderr
    assert dump(tmp_path / "back.db") == dump(tmp_path / "llmproxy.db")


@pytest.mark.long("1 s: a store that was moved is served, as one that was restored")
def test_served_from_the_new_store(tmp_path: Path, postgres: PostgreSQL) -> None:
    """The same tokens and provider keys, which stayed encrypted all the way."""
    with Stack(tmp_path) as stack:
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
    server = postgres.url()
    assert cli(stack, "export", str(tmp_path / "move.tgz")).returncode == 0
    with tarfile.open(tmp_path / "move.tgz") as archive:
        parts = [archive.extractfile(member) for member in archive.getmembers()]
        content = b"".join(part.read() for part in parts if part is not None)
    assert b'"tokens"' in content
    assert stack.token[8:].encode() not in content
    assert b"sk-sim-openai" not in content
    assert cli(stack, "import", str(tmp_path / "move.tgz"), store=server).returncode == 0
    stack.env["LLMPROXY_STORE_URL"] = server
    with stack.simulator, stack.another("another") as daemon:
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, port=daemon.port).status == 200


def dump(database: Path) -> list[object]:
    with sqlite3.connect(database) as connection:
        return [
            connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for name in ("ledger", "tokens", "provider_keys")
        ]


@pytest.mark.long("4 s: killed at five places of an import")
def test_an_import_that_is_killed(tmp_path: Path, postgres: PostgreSQL) -> None:
    """In the midst of the lines: nothing of them is there, and it can be run again."""
    stack, file, server = Stack(tmp_path), tmp_path / "move.tgz", postgres.migrated()
    make_lines(stack, 60_000)
    assert cli(stack, "export", str(file)).returncode == 0
    command = [LLMPROXY, "import", str(file), "--config", str(stack.home / "llmproxy.yaml"), "--store", server]
    engine = create_engine(parse_store_url(server), isolation_level="AUTOCOMMIT")
    copying = text("SELECT count(*) FROM pg_stat_progress_copy WHERE relid = 'ledger_lines'::regclass")
    with subprocess.Popen(command, env={**os.environ, **stack.env}, stderr=subprocess.DEVNULL) as importing:
        try:
            with engine.connect() as connection:
                end = time.monotonic() + 60
                while not connection.execute(copying).scalar_one() and importing.poll() is None:
                    assert time.monotonic() < end
                    time.sleep(0.001)
        finally:
            importing.kill()
    assert importing.returncode == -9
    engine.dispose()
    assert (stored(server, "projects"), stored(server, "ledger_lines")) == (0, 0)
    again = cli(stack, "import", str(file), store=server)
    assert again.returncode == 0, again.stderr
    assert stored(server, "ledger_lines") == 60_000


def test_of_another_revision(tmp_path: Path) -> None:
    """Refused in one sentence, and the database is not made."""
    stack, file = Stack(tmp_path), tmp_path / "move.tgz"
    (tmp_path / "manifest.json").write_text('{"format": 2, "revision": "0001", "tables": {}}')
    with tarfile.open(file, "w:gz") as archive:
        archive.add(tmp_path / "manifest.json", "manifest.json")
    refused = cli(stack, "import", str(file))
    assert refused.returncode == 78
    assert "is of revision 0001, this llmproxy is at" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "llmproxy.db").exists()


@pytest.mark.parametrize("name", ["../evil", "tables/other.jsonl", "journals/../../evil", "else"])
def test_no_backup(tmp_path: Path, name: str) -> None:
    """What no backup has is refused, before anything is written."""
    stack = Stack(tmp_path)
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "bad.tgz", "w:gz") as archive:
        archive.add(tmp_path / "x", name)
    refused = cli(stack, "restore", str(tmp_path / "bad.tgz"))
    assert refused.returncode == 78
    assert not (tmp_path / "llmproxy.db").exists()


@pytest.mark.parametrize(
    "manifest",
    [
        "no JSON",
        "[]",
        "{}",
        '{"revision": 30}',
        '{"format": 2, "revision": "HEAD"}',
        '{"format": 2, "revision": "HEAD", "tables": {"projects": {}}}',
        '{"format": 2, "revision": "HEAD", "tables": {"projects": {"rows": "1", "digest": "", "columns": []}}}',
        '{"format": 2, "revision": "HEAD", "tables": {}}',
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, manifest: str) -> None:
    """One sentence says so, and nothing is written."""
    stack, file = Stack(tmp_path), tmp_path / "bad.tgz"
    (tmp_path / "manifest.json").write_text(manifest.replace("HEAD", newest_revision(SCRIPTS)))
    with tarfile.open(file, "w:gz") as archive:
        archive.add(tmp_path / "manifest.json", "manifest.json")
    refused = cli(stack, "import", str(file))
    assert refused.returncode == 78
    (line,) = refused.stderr.splitlines()
    assert "is no backup" in line or "does not have the tables" in line
    assert not (tmp_path / "llmproxy.db").exists()


def test_migrate(tmp_path: Path) -> None:
    """Shows what a start would do, and does it before."""
    stack = Stack(tmp_path)
    status = cli(stack, "migrate", "status")
    assert (status.returncode, "database: new" in status.stdout) == (1, True)
    assert cli(stack, "migrate", "upgrade").returncode == 0
    assert cli(stack, "migrate", "status").returncode == 0
