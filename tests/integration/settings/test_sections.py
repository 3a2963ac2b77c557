"""What the settings of the server, the cache and the like change: daemons with and without, on one database."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST, RUN_FIRST, Daemon
from tests.support.proxy_case import FAST_PATH
from tests.support.redis_server import RedisServer
from tests.support.settings_stack import Response, SettingsStack
from tests.support.stack import MANAGEMENT, eventually
from tests.support.tls import TLSInFront
from tests.support.workers import workers_of
from tests.unit.wire.authority import Authority

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}
PUBLIC = {"Cache-Control": "public, max-age=600", "Content-Type": "application/json"}
OTHERS: dict[str, dict[str, Any]] = {
    "bare": {"server": {"debug_headers": False, "fast_path": False, "enforce_project_active": False}},
    "small": {"server": {"max_request_bytes": "1KiB"}, "cache": {"max_bytes": "50KiB"}},
    "trusting": {
        "server": {"trusted_proxies": ["127.0.0.1"], "underscores_in_headers": ["My_Field"]},
        "cache": {"default_ttl": "600s"},
    },
    "sharing": {"cache": {"coalesce": False, "scope": "shared"}},
    "guessing": {"cache": {"heuristics": True, "streams": True, "replay": "timed", "scope": "token"}},
}
# Of a process that runs this first: which files it has synced, a line each.
COUNTING = """\
import os
original = os.fsync
def fsync(fd):
    with open(os.environ["SYNCED"], "a") as counted:
        print(os.readlink(f"/proc/self/fd/{fd}"), file=counted)
    return original(fd)
os.fsync = fsync
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SettingsStack]:
    with SettingsStack(tmp_path_factory.mktemp("sections")) as running:
        yield running


@pytest.fixture(scope="module")
def others(stack: SettingsStack) -> Iterator[dict[str, Daemon]]:
    """Further daemons, each with some settings, by their names in L{OTHERS}."""
    with ExitStack() as running:
        yield {name: running.enter_context(stack.another(name, **sections)) for name, sections in OTHERS.items()}


def models(stack: SettingsStack, daemon: Daemon, query: str = "", **kw: Any) -> Response:
    return stack.ask("GET", f"/v1/models{query and '?' + query}", port=daemon.port, **kw)


def chat(stack: SettingsStack, daemon: Daemon, content: str, headers: dict[str, str] | None = None, **kw: Any) -> Any:
    body = {**CHAT, "messages": [{"role": "user", "content": content}], "stream": kw.pop("stream", False)}
    sent = json.dumps(body).encode()
    return stack.ask("POST", "/v1/chat/completions", sent, {**PUBLIC, **(headers or {})}, port=daemon.port, **kw)


def cache(response: Response) -> str | None:
    return response.header("X-Cache-Status")


def rows(stack: SettingsStack, statement: str) -> list[Any]:
    with closing(sqlite3.connect(stack.home / "llmproxy.db", timeout=10)) as database, database:
        return database.execute(statement).fetchall()


def test_debug_headers(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    shown = {"X-Cache-Status", "X-Upstream-Response-Time", "Server-Timing"}
    for daemon, expected in ((others["bare"], set()), (stack.daemon, shown)):
        response = models(stack, daemon)
        assert {name for name in shown if response.header(name)} == expected


def test_fast_path(stack: SettingsStack, others: dict[str, Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAST_PATH, raising=False)  # which stands above the file
    with stack.another("fast") as fast:
        for daemon, expected in ((others["bare"], False), (fast, True)):
            with closing(HTTPConnection(HOST, daemon.port, timeout=30)) as connection:
                for _ in range(6):
                    body = json.dumps(CHAT).encode()
                    fields = {"Authorization": f"Bearer {stack.token}", "Content-Type": "application/json"}
                    connection.request("POST", "/v1/chat/completions", body, fields)
                    assert connection.getresponse().read()
            assert bool(stack.metric("fast_path_requests_total", daemon.port)) is expected


def test_enforce_project_active(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    project = stack.manage("POST", "/manage/projects", {"name": "Idle", "api_keys": dict(stack.keys)})["id"]
    token = stack.manage("POST", "/manage/tokens", {"project_id": project, "name": "idle"})["token"]
    stack.manage("PATCH", f"/manage/projects/{project}", {"active": False})
    assert [models(stack, daemon, token=token).status for daemon in (others["bare"], stack.daemon)] == [200, 403]


def test_max_request_bytes(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    asked = [chat(stack, daemon, "x" * 5000).status for daemon in (others["small"], stack.daemon)]
    assert asked == [413, 200]


def test_underscores_in_headers(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    """Which fields with an underscore a request may have."""
    for name, usual, trusting in (("my_field", 400, 200), ("session_id", 200, 400), ("Content_Length", 400, 400)):
        assert models(stack, stack.daemon, headers={name: "5"}).status == usual
        assert models(stack, others["trusting"], headers={name: "5"}).status == trusting


def test_trusted_proxies(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    """The client's address is the one that is told, or that of the connection."""
    for daemon, expected in ((others["trusting"], "192.0.2.7"), (stack.daemon, HOST)):
        number = f"from-{daemon.port}"
        headers = {"X-Forwarded-For": "192.0.2.7", "X-Request-ID": number}
        assert models(stack, daemon, headers=headers).status == 200
        (event,) = eventually(
            lambda number=number: [each for each in stack.request_events() if each["request_id"] == number]
        )
        assert event["client"] == expected


def test_workers(stack: SettingsStack) -> None:
    with stack.another("workers", server={"workers": 2}) as daemon:
        eventually(lambda: "2 of 2 workers" in daemon.output(), 60)
        assert len(workers_of(daemon.pid)) == 2
    assert workers_of(stack.daemon.pid) == []


def test_where_it_listens_and_stores(stack: SettingsStack) -> None:
    """What was made where it is told to C{listen} is in the database of its C{url}, events are in the file of a sink of
    that C{type}."""
    assert (stack.project,) in rows(stack, "SELECT id FROM projects")
    assert models(stack, stack.daemon).status == 200
    eventually(lambda: stack.request_events())


def test_token_cache_ttl(stack: SettingsStack) -> None:
    """A token that the database has lost is used for as long as it is cached: by default, for minutes."""
    token = stack.new_token()
    brief, long = {"token_cache_ttl": "0.5s"}, {"token_cache_ttl": "600s"}
    url = {"url": f"sqlite:///{stack.home}/llmproxy.db"}
    with (
        stack.another("brief", store={**url, **brief}) as forgets,
        stack.another("long", store={**url, **long}) as remembers,
    ):
        time.sleep(1.5)  # its making is no news any more, for which it would be read anew
        lasting = (remembers, stack.daemon)
        for daemon in (forgets, *lasting):
            assert models(stack, daemon, token=token).status == 200
        time.sleep(1.5)  # its use is written
        assert [models(stack, daemon, token=token).status for daemon in lasting] == [200, 200]
        rows(stack, f"DELETE FROM tokens WHERE prefix = '{token[:10]}'")
        eventually(lambda: models(stack, forgets, token=token).status == 401)
        begun = time.monotonic()
        while time.monotonic() < begun + 7:
            assert [models(stack, daemon, token=token).status for daemon in lasting] == [200, 200]
            time.sleep(0.5)


def test_max_bytes(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    """What does not fit any more goes."""
    for daemon, expected in ((others["small"], "stored"), (stack.daemon, "hit")):
        for number in range(3):
            assert cache(chat(stack, daemon, f"large {number}", {"X-Sim-Size": "30000"})) == "stored"
        assert cache(chat(stack, daemon, "large 0", {"X-Sim-Size": "30000"})) == expected


def test_default_ttl(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    for daemon, expected in ((others["trusting"], "hit"), (stack.daemon, "miss")):
        responses = [models(stack, daemon, "default") for _ in range(2)]
        assert cache(responses[-1]) == expected


def test_heuristics(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    old = {"X-Sim-Header": "Last-Modified: Mon, 12 Jan 2015 13:46:40 GMT"}
    for daemon, expected in ((others["guessing"], "hit"), (stack.daemon, "stored")):
        responses = [models(stack, daemon, "modified", headers=old) for _ in range(2)]
        assert cache(responses[-1]) == expected


def test_streams_and_replay(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    """A stored stream takes as long as it did, if that is wanted."""
    steered = {"X-Sim-Events": "4", "X-Sim-Delay": "0,0.5"}
    for daemon, expected in ((others["guessing"], "hit"), (stack.daemon, "miss")):
        chat(stack, daemon, "streamed", steered, stream=True)
        begun = time.monotonic()
        assert cache(chat(stack, daemon, "streamed", steered, stream=True)) == expected
        assert time.monotonic() - begun > 1.5


def test_coalesce(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    """Two that are the same at the same time are two requests to the provider, or one."""
    for daemon, expected in ((others["sharing"], 2), (stack.daemon, 1)):
        content = f"twins at {daemon.port}"
        before = len(stack.recorded())

        def twin(_: int, daemon: Daemon = daemon, content: str = content) -> int:
            return int(chat(stack, daemon, content, {"X-Sim-Delay": "3"}).status)

        with ThreadPoolExecutor(2) as clients:
            assert [*clients.map(twin, range(2))] == [200, 200]
        assert len(stack.recorded()) - before == expected


def test_scope(stack: SettingsStack, others: dict[str, Daemon]) -> None:
    """Who else gets what one has fetched: another project, another token of the same project, none of them."""
    other = stack.manage("POST", "/manage/projects", {"name": "Others", "api_keys": dict(stack.keys)})["id"]
    foreign = stack.manage("POST", "/manage/tokens", {"project_id": other, "name": "other"})["token"]
    fellow = stack.new_token()
    for daemon, expected in (
        (others["sharing"], ["hit", "hit"]),
        (stack.daemon, ["hit", "stored"]),
        (others["guessing"], ["stored", "stored"]),
    ):
        public = {"X-Sim-Header": "Cache-Control: public, max-age=600"}
        asked = [
            cache(models(stack, daemon, f"shared-at-{daemon.port}", headers=public, token=token))
            for token in (stack.token, fellow, foreign)
        ]
        assert asked == ["stored", *expected]


def test_ledger_interval(stack: SettingsStack) -> None:
    """Lines that are written every hour are not there when those of others are, which came later, and later again."""

    def lines(project: str) -> int:
        (row,) = rows(stack, f"SELECT count(*) FROM ledger WHERE project_id = '{project}'")
        return int(row[0])

    made = []
    for name in ("hourly", "usual"):
        project = stack.manage("POST", "/manage/projects", {"name": name, "api_keys": dict(stack.keys)})["id"]
        made.append((project, stack.manage("POST", "/manage/tokens", {"project_id": project, "name": name})["token"]))
    (late, late_token), (soon, soon_token) = made
    with stack.another("hourly", ledger={"interval": "1h"}) as hourly:
        assert models(stack, hourly, token=late_token).status == 200
        for number in (1, 2, 3):
            assert models(stack, stack.daemon, token=soon_token).status == 200
            eventually(lambda number=number: lines(soon) == number)
        assert lines(late) == 0
    eventually(lambda: lines(late) == 1)


def test_audit_keep(stack: SettingsStack) -> None:
    """What is older goes out of the store."""
    rows(stack, "UPDATE audit_log SET at = at - 10 WHERE seq = 1")
    with stack.another("forgetful", audit={"file": "", "keep": "1s"}):
        eventually(lambda: not rows(stack, "SELECT 1 FROM audit_log WHERE seq = 1"))


def test_audit_fsync(stack: SettingsStack, tmp_path: Path) -> None:
    """How often the file was synced, as the process itself sees it who is asked to."""
    (tmp_path / "counting.py").write_text(COUNTING)
    for policy, expected in (("always", True), ("never", False)):
        file, counted = tmp_path / f"{policy}.jsonl", tmp_path / f"{policy}.synced"
        daemon = stack.another(policy, audit={"file": str(file), "fsync": policy})
        daemon._env |= {RUN_FIRST: str(tmp_path / "counting.py"), "SYNCED": str(counted)}
        counted.touch()
        with daemon:
            made = stack.ask("POST", "/manage/projects", b'{"name": "Synced"}', token=MANAGEMENT, port=daemon.port)
            assert made.status == 201 and "project.create" in file.read_text()
        assert (str(file) in counted.read_text()) is expected


def test_redis_ca_file(stack: SettingsStack, tmp_path: Path) -> None:
    """A Redis with a certificate of one's own is used only where that is trusted."""
    authority = Authority(tmp_path)
    authority.server("localhost")
    pem = tmp_path / "server.pem"
    queries = itertools.count()
    with RedisServer(tmp_path) as redis, TLSInFront(pem, redis.port) as port:

        def is_used(daemon: Daemon, prefix: str) -> bool:
            assert models(stack, daemon, f"in-redis-{next(queries)}").status == 200
            return prefix.encode() in redis.command("KEYS", "*")

        settings = {"url": f"rediss://localhost:{port}", "timeout": "5s"}
        caching = {"backend": "redis", "default_ttl": "60s"}
        for prefix, ca_file in (("trusted:", authority.ca_file), ("strange:", "")):
            own = {**settings, "key_prefix": prefix, "ca_file": ca_file}
            with stack.another(prefix[:-1], redis=own, cache=caching) as daemon:
                if ca_file:
                    eventually(lambda daemon=daemon, prefix=prefix: is_used(daemon, prefix))
                else:
                    eventually(lambda daemon=daemon: "certificate" in daemon.output().lower())
                    assert not is_used(daemon, prefix)
