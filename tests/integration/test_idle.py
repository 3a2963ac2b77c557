"""What a started daemon that nobody asks for anything has read, and how much it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_memory import resident
from tests.support.processes import Daemon, free_port
from tests.support.stack import ENCRYPTION, MANAGEMENT, eventually, urllib

# Each is read when something needs it: a database to be upgraded, a call to the management API, a page, a sign-in,
# Redis, PostgreSQL, several workers, a price, somebody who reads the metrics.
LATE = (
    *("alembic", "llmproxy.web.manage.projects", "llmproxy.web.manage.openapi", "llmproxy.web.manage.bodies"),
    *("llmproxy.web.admin.visit", "llmproxy.web.admin.rendering", "jinja2", "joserfc", "llmproxy.web.admin.identity"),
    *("llmproxy.redis", "llmproxy.limits.counters.redis", "llmproxy.caching.backends.redis", "genai_prices.data"),
    *("sqlalchemy.dialects.postgresql", "prometheus_client", "llmproxy.observability.exposition"),
    *("llmproxy.process.supervisor", "llmproxy.composition.supervision", "llmproxy.limits.counters.supervised"),
    *("httpx2", "httpx", "txredisapi", "psycopg", "pymysql", "click", "llmproxy.cli", "llmproxy.simulator"),
)
MOST_MB = 102  # 93 where this was written; with all of the above it was 24 more
SETTINGS = """\
state_dir: {home}/state
apis:
  openai:
    provider: openai
    base_url: http://127.0.0.1:9
    allowed_endpoints: [/v1/chat/completions]
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
"""


ONE_THAT_IS_THERE = pytest.param(
    "one that is there", marks=pytest.mark.long("2 s: on a database that an earlier start has made, as on a new one")
)


@pytest.fixture(scope="module", params=["a new database", ONE_THAT_IS_THERE])
def daemon(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """One that reports what it imports, on a database that it has to make, or that an earlier start has made."""
    home, port = tmp_path_factory.mktemp("idle"), free_port()
    (home / "apis.yaml").write_text(SETTINGS.format(home=home, port=port))
    env = {"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION}
    arguments = ("llmproxy", "--config", str(home / "apis.yaml"))
    if request.param != "a new database":
        with Daemon(*arguments, port=port, log=home / "first.log", env=env):
            pass
    env |= {"PYTHONPROFILEIMPORTTIME": "1"}
    with Daemon(*arguments, port=port, log=home / "second.log", env=env, fresh=True) as running:
        eventually(lambda: '"Ready: ' in running.output())
        yield running


def imported(daemon: Daemon) -> set[str]:
    """The modules that statements have imported in a process, by what the interpreter says of each (-X importtime)."""
    return set(re.findall(r"^import time: .*\| +([\w.]+)$", daemon.output(), re.MULTILINE))


def get(daemon: Daemon, path: str) -> bytes:
    call = urllib.request.Request(daemon.url + path, headers={"Authorization": f"Bearer {MANAGEMENT}"})
    with urllib.request.urlopen(call, timeout=30) as answer:
        return bytes(answer.read())


def test_what_is_not_read(daemon: Daemon) -> None:
    get(daemon, "/ready")
    known = imported(daemon)
    assert {"llmproxy.app", "llmproxy.web.manage.auth", "sqlalchemy"} <= known
    assert [name for name in LATE if name in known] == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the figures come from Linux's /proc")
def test_memory(daemon: Daemon) -> None:
    assert resident(daemon.pid) / 1e6 < MOST_MB


def test_read_when_asked_for(daemon: Daemon) -> None:
    """The management API, then its description, then a page: each brings no more than it needs."""
    assert "llmproxy.web.manage.projects" not in imported(daemon)
    assert b'"data"' in get(daemon, "/manage/projects")
    assert "llmproxy.web.manage.projects" in imported(daemon)
    assert not imported(daemon) & {"llmproxy.web.admin.visit", "jinja2"}
    assert b'"3.1.0"' in get(daemon, "/manage/openapi.json")
    assert b"Sign in" in get(daemon, "/admin/")
    assert {"llmproxy.web.admin.visit", "jinja2"} <= imported(daemon)
