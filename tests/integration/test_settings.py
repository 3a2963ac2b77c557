"""Settings whose difference only a started daemon shows: each with and without."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Daemon
from tests.redis_server import RedisServer
from tests.stack import MANAGEMENT, Stack, eventually

TWISTD = Path(sys.executable).with_name("twistd")
CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "a"}]}).encode()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("usual")) as stack:
        yield stack


def other(stack: Stack, name: str, **variables: str) -> Daemon:
    """A further daemon on the same database, with these settings."""
    found = stack.another(name)
    found._env |= {f"LLMPROXY_{key}": value for key, value in variables.items()}
    return found


def told(stack: Stack, name: str, port: int) -> float:
    text = stack.ask("GET", "/metrics", token=MANAGEMENT, port=port).body.decode()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"llmproxy_{name} "))


def rows(stack: Stack, question: str) -> list[Any]:
    with closing(sqlite3.connect(stack.home / "llmproxy.db", timeout=10)) as database, database:
        return database.execute(question).fetchall()


def test_how_many_tokens_are_remembered(usual: Stack) -> None:
    """One that the database has lost without a word is known by those who remember it."""
    token = usual.new_token()
    with (
        other(usual, "remembers", STORE_TOKEN_CACHE_TTL="60s") as remembers,
        other(usual, "forgets", STORE_TOKEN_CACHE_TTL="60s", STORE_TOKEN_CACHE_SIZE="0") as forgets,
    ):
        ports = (remembers.port, forgets.port)
        assert [usual.ask("GET", "/v1/models", token=token, port=port).status for port in ports] == [200, 200]
        time.sleep(1.5)  # whatever is to be written of it is
        rows(usual, f"DELETE FROM tokens WHERE prefix = '{token[:10]}'")
        assert [usual.ask("GET", "/v1/models", token=token, port=port).status for port in ports] == [200, 401]


def test_what_is_logged(usual: Stack) -> None:
    with other(usual, "quiet", LOGGING_LEVEL="error") as quiet:
        assert usual.ask("GET", "/v1/models", port=quiet.port).status == 200
    said = [json.loads(line) for line in quiet.output().splitlines() if line.startswith('{"ts"')]
    levels = {line["level"] for line in said if line["logger"] != "access"}
    assert not levels & {"info", "warn"}, quiet.output()
    assert '"level":"info"' in usual.daemon.output()


def test_events_that_may_wait(usual: Stack) -> None:
    def dropped(daemon: Daemon) -> float:
        for _ in range(30):
            assert usual.ask("GET", "/v1/models", port=daemon.port).status == 200
        return told(usual, "events_dropped_total", daemon.port)

    with other(usual, "short", EVENTS_QUEUE_SIZE="1") as short, other(usual, "long") as long:
        assert (dropped(short) > 0, dropped(long)) == (True, 0)


def test_the_size_of_a_journal_and_of_its_files(usual: Stack) -> None:
    """A segment is as large as is said at once; a journal that may get no larger loses lines while nobody takes them."""
    sizes = {"LEDGER_SEGMENT_BYTES": "64KiB", "LEDGER_MAX_BYTES": "128KiB", "LEDGER_DIRECTORY": "small"}
    small = other(usual, "small", **sizes)
    small._cwd = usual.home
    with small:
        assert usual.ask("GET", "/v1/models", port=small.port).status == 200
        (segment,) = (usual.home / "small").glob("*/00000001.segment")
        assert segment.stat().st_size == 64 * 1024
        with closing(sqlite3.connect(usual.home / "llmproxy.db", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # nobody else writes
            end = time.monotonic() + 30
            while told(usual, "ledger_lost_total", small.port) == 0 and time.monotonic() < end:
                for _ in range(50):
                    usual.ask("GET", "/v1/models", port=small.port)
            database.execute("ROLLBACK")
        assert told(usual, "ledger_lost_total", small.port) > 0
        assert told(usual, "ledger_journal_bytes", small.port) <= 128 * 1024


@pytest.mark.parametrize("variable", ["LEDGER_KEEP_LINES", "LEDGER_KEEP_DAYS"])
def test_how_long_lines_and_days_are_kept(usual: Stack, variable: str) -> None:
    assert usual.ask("POST", "/v1/chat/completions", CHAT).status == 200
    eventually(lambda: rows(usual, "SELECT 1 FROM ledger"))
    question = "SELECT count(*) FROM ledger" if variable.endswith("LINES") else "SELECT max(length(period)) FROM usage_by_period"
    if variable.endswith("DAYS"):
        rows(usual, "UPDATE usage_by_period SET period = '2020-01-02'")
    before = rows(usual, question)[0][0]
    time.sleep(1.1)
    with other(usual, variable, **{variable: "1s"}):
        eventually(lambda: rows(usual, question)[0][0] < before, 20.0)


def test_what_keys_in_redis_begin_with(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        env = {"LLMPROXY_CACHE_BACKEND": "redis", "LLMPROXY_REDIS_URL": redis.url, "LLMPROXY_REDIS_KEY_PREFIX": "mine-"}
        with Stack(tmp_path, env=env) as stack:
            stack.ask("GET", "/anything/v1/models", headers={"X-Sim-Header": "Cache-Control: public, max-age=600"})
            reply = eventually(lambda: (found := redis.command("KEYS", "*")) != b"*0\r\n" and found)
        keys = [word for word in reply.split(b"\r\n") if word and word[:1] not in b"*$"]
        assert keys and all(key.startswith(b"mine-") for key in keys), keys


@pytest.mark.parametrize(
    "wrong",
    [
        {"server": {"workers": 2}},
        {"events": {"bus": "redis"}},
        {"apis": {"a": {"retries": {"on": []}}}},
        {"apis": {"a": {"retries": {"on": ["timeout"]}}}},
        {"audit": {"store": True}},
    ],
)
def test_what_there_is_not_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    """A setting has an effect, or no other value than the one that is true."""
    api = {"base_url": "http://127.0.0.1:1", "allowed_endpoints": ["/v1/models"], **wrong.pop("apis", {}).get("a", {})}
    (tmp_path / "apis.yaml").write_text(json.dumps({"apis": {"a": api}, **wrong}))
    done = subprocess.run(
        [str(TWISTD), "-n", "llmproxy", "--config", "apis.yaml"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 78 and "apis.yaml:1:" in done.stderr
