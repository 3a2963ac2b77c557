"""Settings whose difference only a started daemon shows: each with and without."""

from __future__ import annotations

import json
import secrets
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST, Daemon, free_port, run_command
from tests.support.redis_server import RedisServer
from tests.support.stack import MANAGEMENT, Stack, eventually

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
        time.sleep(1.5)  # whatever is to be written of it is, and whatever of it was to be forgotten
        assert [usual.ask("GET", "/v1/models", token=token, port=port).status for port in ports] == [200, 200]
        rows(usual, f"DELETE FROM tokens WHERE prefix = '{token[:10]}'")
        assert [usual.ask("GET", "/v1/models", token=token, port=port).status for port in ports] == [200, 401]


def test_what_is_logged(usual: Stack) -> None:
    with other(usual, "quiet", LOGGING_LEVEL="error") as quiet:
        assert usual.ask("GET", "/v1/models", port=quiet.port).status == 200
    said = [json.loads(line) for line in quiet.output().splitlines() if line.startswith('{"ts"')]
    levels = {line["level"] for line in said if line["logger"] != "access"}
    assert not levels & {"info", "warn"}, quiet.output()
    assert '"level":"info"' in usual.daemon.output()


def test_how_it_is_logged(usual: Stack) -> None:
    """JSON or text; with a line for each request or without."""
    with (
        other(usual, "text", LOGGING_FORMAT="console") as text,
        other(usual, "silent", LOGGING_ACCESS="false") as silent,
    ):
        for daemon in (text, silent):
            assert usual.ask("GET", "/v1/models", port=daemon.port).status == 200
    assert "/v1/models" in text.output() and '{"ts"' not in text.output()
    assert '{"ts"' in silent.output() and "/v1/models" not in silent.output()


def test_without_a_ledger(usual: Stack) -> None:
    with other(usual, "unwritten", LEDGER_ENABLED="false") as unwritten:
        before = rows(usual, "SELECT count(*) FROM ledger")
        assert usual.ask("POST", "/v1/chat/completions", CHAT, port=unwritten.port).status == 200
    assert rows(usual, "SELECT count(*) FROM ledger") == before


def test_a_budget_and_a_model_without_a_price(usual: Stack) -> None:
    token, body = usual.new_token(budget_usd="5/day"), CHAT.replace(b"gpt-4o", b"nobody-knows-me")
    with other(usual, "lenient", LIMITS_UNKNOWN_PRICE="allow") as lenient:
        asked = [
            usual.ask("POST", "/v1/chat/completions", body, token=token, port=port).status
            for port in (usual.daemon.port, lenient.port)
        ]
    assert asked == [403, 200]


def test_how_long_redis_is_waited_for(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        env = {"LLMPROXY_CACHE_BACKEND": "redis", "LLMPROXY_REDIS_URL": redis.url}
        with Stack(tmp_path, env=env) as stack, other(stack, "patient", REDIS_TIMEOUT="2s") as patient:
            seconds = []
            for port in (stack.daemon.port, patient.port):
                headers = {"X-Sim-Header": "Cache-Control: public, max-age=600"}
                assert stack.ask("GET", "/anything/v1/models", headers=headers, port=port).status == 200
                redis.freeze()
                begun = time.monotonic()
                assert stack.ask("GET", f"/anything/v1/models?{port}", headers=headers, port=port).status == 200
                seconds.append(time.monotonic() - begun)
                redis.thaw()
    assert seconds[0] < 1.5 < seconds[1], seconds


def test_events_that_may_wait(usual: Stack) -> None:
    def dropped(daemon: Daemon) -> float:
        for _ in range(30):
            assert usual.ask("GET", "/v1/models", port=daemon.port).status == 200
        return told(usual, "events_dropped_total", daemon.port)

    with other(usual, "short", EVENTS_QUEUE_SIZE="1") as short, other(usual, "long") as long:
        assert (dropped(short) > 0, dropped(long)) == (True, 0)


def test_the_size_of_a_journal_and_of_its_files(usual: Stack) -> None:
    """A segment is as large as is said at once; a full journal loses lines while nobody takes them."""
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
                    long = {"X-Request-ID": secrets.token_hex(60)}  # so that it is full soon
                    usual.ask("GET", "/v1/models", headers=long, port=small.port)
            database.execute("ROLLBACK")
        assert told(usual, "ledger_lost_total", small.port) > 0
        assert told(usual, "ledger_journal_bytes", small.port) <= 128 * 1024


@pytest.mark.parametrize("variable", ["LEDGER_KEEP_LINES", "LEDGER_KEEP_DAYS"])
def test_how_long_lines_and_days_are_kept(usual: Stack, variable: str) -> None:
    assert usual.ask("POST", "/v1/chat/completions", CHAT).status == 200
    eventually(lambda: rows(usual, "SELECT 1 FROM ledger"))
    question = (
        "SELECT count(*) FROM ledger"
        if variable.endswith("LINES")
        else "SELECT max(length(period)) FROM usage_by_period"
    )
    if variable.endswith("DAYS"):
        for table in ("usage_by_period", "usage_of_projects"):
            rows(usual, f"UPDATE {table} SET period = date('now', '-10 days')")
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
        {"server": {"workers": 0}},
        {"events": {"bus": "redis"}},
        {"apis": {"a": {"retries": {"on": []}}}},
        {"apis": {"a": {"retries": {"on": ["timeout"]}}}},
    ],
)
def test_what_there_is_not_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    """A setting has an effect, or no other value than the one that is true."""
    api = {"base_url": "http://127.0.0.1:1", "allowed_endpoints": ["/v1/models"], **wrong.pop("apis", {}).get("a", {})}
    (tmp_path / "apis.yaml").write_text(json.dumps({"apis": {"a": api}, **wrong}))
    done = run_command([TWISTD, "-n", "llmproxy", "--config", "apis.yaml"], cwd=tmp_path)
    assert done.returncode == 78 and "apis.yaml:1:" in done.stderr


def test_where_acts_are_written(usual: Stack) -> None:
    acts = usual.home / "other-audit.jsonl"
    with other(usual, "audited", AUDIT_FILE=str(acts)) as audited:
        usual.manage("GET", "/manage/projects")
        assert not acts.exists()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{audited.url}/manage/projects/nobody", timeout=10)
        made = usual.ask("POST", "/manage/projects", b'{"name": "Other"}', token=MANAGEMENT, port=audited.port)
        assert made.status == 201
        eventually(lambda: acts.exists() and "project.create" in acts.read_text())


def test_endpoints_with_a_method(usual: Stack) -> None:
    """Of an API, all other methods are 405 with those that are allowed; of a token, 403."""
    only_get = other(usual, "methods")
    config = usual.home / "methods.yaml"
    config.write_text(config.read_text().replace("/v1/embeddings, /v1/models,", "/v1/embeddings, GET /v1/models,", 1))
    reader = usual.new_token(endpoints=["GET /v1/models", "GET /v1/embeddings"])

    def status(daemon: Daemon, method: str, path: str, token: str) -> int:
        return usual.ask(method, path, None if method == "GET" else CHAT, token=token, port=daemon.port).status

    with only_get:
        assert [status(only_get, method, "/v1/models", usual.token) for method in ("GET", "POST")] == [200, 405]
        rejected = usual.ask("POST", "/v1/models", CHAT, port=only_get.port)
        assert rejected.header("Allow") == "GET, HEAD" and b"method_not_allowed" in rejected.body
        assert [status(only_get, "GET", path, reader) for path in ("/v1/models", "/v1/chat/completions")] == [200, 403]
        assert status(only_get, "POST", "/v1/embeddings", reader) == 403
    assert status(usual.daemon, "POST", "/v1/models", usual.token) != 405


def test_where_secrets_are_made(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "apis.yaml"
    api = {"base_url": "http://127.0.0.1:1", "allowed_endpoints": ["/v1/models"]}
    listen = [f"tcp:{port}:interface={HOST}"]
    config.write_text(json.dumps({"apis": {"a": api}, "state_dir": "elsewhere", "server": {"listen": listen}}))
    with Daemon("llmproxy", "--config", str(config), port=port, log=tmp_path / "log", cwd=tmp_path):
        assert (tmp_path / "elsewhere" / "encryption-key").exists()


def test_the_longest_head(usual: Stack) -> None:
    with other(usual, "terse", SERVER_MAX_HEAD_BYTES="1KiB") as terse:
        asked = [
            usual.ask("GET", "/v1/models", headers={"X-A": "a" * 2000}, port=port).status
            for port in (usual.daemon.port, terse.port)
        ]
    assert asked == [200, 431]


def test_limits_while_redis_is_lost(tmp_path: Path) -> None:
    """Each kind of limit lets all pass or none, as it is told."""
    kinds: dict[str, Any] = {
        "requests_per_minute": 1000,
        "tokens_per_minute": 1_000_000,
        "concurrency": 100,
        "budget_usd": "100/day",
        "budget_tokens": "100000000/day",
    }
    with RedisServer(tmp_path) as redis:
        env = {"LLMPROXY_LIMITS_BACKEND": "redis", "LLMPROXY_REDIS_URL": redis.url}
        policies = {
            policy: {f"LIMITS_ON_LOSS_{kind.upper()}": policy for kind in kinds} for policy in ("open", "closed")
        }
        with (
            Stack(tmp_path, env=env) as stack,
            other(stack, "open", **policies["open"]) as open_,
            other(stack, "closed", **policies["closed"]) as closed,
        ):
            tokens = {kind: stack.new_token(**{kind: limit}) for kind, limit in kinds.items()}
            redis.kill()
            for kind, token in tokens.items():
                asked = [
                    stack.ask("POST", "/v1/chat/completions", CHAT, token=token, port=daemon.port).status
                    for daemon in (open_, closed)
                ]
                assert asked == [200, 503], kind


def test_what_takes_long_to_refuse(tmp_path: Path) -> None:
    """Is refused before the command is given up: by its place, and not by all of it."""
    config = tmp_path / "apis.yaml"
    for text, said in (
        ("[" * 100_000, "apis.yaml:1:42: is nested deeper than 40 levels"),
        (f"logging: {{level: '{'/' * 100_000}'}}", "apis.yaml:1:11: logging.level: "),
    ):
        config.write_text(text)
        done = run_command(["llmproxy", "check-config", config], cwd=tmp_path, timeout=10)
        assert done.returncode == 78 and said in done.stdout + done.stderr, done
        assert len(done.stdout + done.stderr) < 2000
