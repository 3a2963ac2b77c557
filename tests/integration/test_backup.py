"""All that is stored in one file, and back from it: into the same kind of database, and into another."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.integration.test_key_rotation import CHAT, JSON, Load
from tests.support.postgres import PostgreSQL
from tests.support.stack import Stack, eventually

LLMPROXY = str(Path(sys.executable).with_name("llmproxy"))


def cli(stack: Stack, *arguments: str, store: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **stack.env, **({"LLMPROXY_STORE_URL": store} if store else {})}
    command = [LLMPROXY, *arguments, "--config", str(stack.home / "llmproxy.yaml")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)


def rows(stack: Stack, database: str = "llmproxy.db") -> dict[str, int]:
    with sqlite3.connect(stack.home / database, timeout=20) as connection:
        names = ("projects", "provider_keys", "tokens", "ledger", "audit_log", "canaries")
        return {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in names}


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


def test_into_postgres_and_back(tmp_path: Path, postgres: PostgreSQL) -> None:
    """Counts and checksums are the same in each of them."""
    with Stack(tmp_path) as stack:
        for number in range(20):
            stack.new_token(name=f"Nº {number} 😀", max_requests=10**6)
            stack.ask("POST", "/v1/chat/completions", CHAT, JSON)
        eventually(lambda: rows(stack)["ledger"] >= 20, 30)
    before = rows(stack)
    assert cli(stack, "backup", str(tmp_path / "one.tgz"), "--with-key").returncode == 0
    server = postgres.url()
    moved = cli(stack, "restore", str(tmp_path / "one.tgz"), store=server)
    assert moved.returncode == 0, moved.stderr
    assert cli(stack, "migrate", "status", store=server).returncode == 0
    assert cli(stack, "backup", str(tmp_path / "two.tgz"), store=server).returncode == 0
    assert manifest(tmp_path / "one.tgz") == manifest(tmp_path / "two.tgz")
    back = f"sqlite:///{tmp_path}/back.db"
    assert cli(stack, "restore", str(tmp_path / "two.tgz"), store=back).returncode == 0
    assert rows(stack, "back.db") == before


def manifest(file: Path) -> object:
    with tarfile.open(file) as archive:
        source = archive.extractfile("manifest.json")
        assert source is not None
        return json.load(source)


def test_altered(tmp_path: Path) -> None:
    """A row that is not what was archived: nothing is changed."""
    stack = Stack(tmp_path)
    assert cli(stack, "migrate", "upgrade").returncode == 0
    assert cli(stack, "backup", str(tmp_path / "good.tgz")).returncode == 0
    with tarfile.open(tmp_path / "good.tgz") as archive:
        archive.extractall(tmp_path / "inside", filter="data")
    epochs = tmp_path / "inside" / "tables" / "epochs.jsonl"
    epochs.write_text(epochs.read_text().replace('"number":0', '"number":7'))
    with tarfile.open(tmp_path / "bad.tgz", "w:gz") as archive:
        for path in sorted((tmp_path / "inside").rglob("*")):
            if path.is_file():
                archive.add(path, str(path.relative_to(tmp_path / "inside")))
    refused = cli(stack, "restore", str(tmp_path / "bad.tgz"), "--force")
    assert refused.returncode == 78
    assert "Nothing was changed" in refused.stderr
    with sqlite3.connect(tmp_path / "llmproxy.db") as connection:
        assert 7 not in [number for (number,) in connection.execute("select number from epochs")]


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


def test_migrate(tmp_path: Path) -> None:
    """Shows what a start would do, and does it before."""
    stack = Stack(tmp_path)
    status = cli(stack, "migrate", "status")
    assert (status.returncode, "database: new" in status.stdout) == (1, True)
    assert cli(stack, "migrate", "upgrade").returncode == 0
    assert cli(stack, "migrate", "status").returncode == 0
