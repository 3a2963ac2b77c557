#!/usr/bin/env python3
"""How long the admin pages and usage reports take before a store that has grown.

    python bench/pages.py [--tokens 10000] [--lines 1000000] [--projects 200] [--alerts 100000] [--postgres] [--rounds 7]

It makes tokens, their ledger lines of the last 28 days, the sums of these, activity, alerts and audit entries, starts
the daemon on them, and prints for every page, and for reports by every one and two dimensions, the least and the middle of
the times, first page and second, and how long the daemon had the processor. Nothing else should run meanwhile. It ends
what it has started.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlalchemy import Boolean, Connection, Double, String, Table, Text, create_engine, text
from sqlalchemy.types import JSON, BigInteger, Integer

from llmproxy.store import tables
from llmproxy.store.engines import parse_store_url
from tests.support.databases import migrated_sqlite
from tests.support.postgres import PostgreSQL
from tests.support.processes import HOST
from tests.support.stack import DATABASE, MANAGEMENT, Stack

DAYS = 28
FURTHER = "cache: {enabled: true}\nattribution: {user: X-User}\n"
DIMENSIONS = ("project", "group", "token", "api", "model", "day", "month", "user")
SUMS = {"requests": "2", "failed": "0", "input_tokens": "20", "output_tokens": "10", "cost_usd": "0.00025"}
MODELS = ("gpt-4o", "gpt-4o-mini")
LIMIT_MS = 100.0


def copied(connection: Connection, table: Table, query: str, **columns: str) -> None:
    """A row for each of the source's; of the columns that are not named, those that must not be null are empty."""
    values = dict(columns)
    for column in table.columns:
        if column.name not in values and not column.nullable and column.server_default is None:
            values[column.name] = _empty(column.type)
    names, shown = ", ".join(f'"{name}"' for name in values), ", ".join(values.values())
    connection.execute(text(f"INSERT INTO {table.name} ({names}) {query.replace('VALUES_OF', shown)}"))


def _empty(kind: object) -> str:
    if isinstance(kind, Boolean):
        return "TRUE"
    if isinstance(kind, JSON):
        return "'[]'"
    if isinstance(kind, BigInteger | Integer | Double):
        return "0"
    assert isinstance(kind, String | Text), kind
    return "''"


def numbers(count: int) -> str:
    return f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1})"


def name_of(kind: str, expression: str) -> str:
    """Such as C{p1000017}: names of one length, in the order of their numbers."""
    return f"'{kind}' || CAST(1000000 + {expression} AS VARCHAR(8))"


def fill(connection: Connection, tokens: int, projects: int, lines: int, alerts: int = 0) -> None:
    now = time.time()
    groups, per_sum = 20, max(lines // (tokens * DAYS * len(MODELS)), 1)
    days = [(datetime.fromtimestamp(now, UTC).date() - timedelta(days=back)).isoformat() for back in range(DAYS)]
    day_rows = ", ".join(f"('{day}')" for day in days)
    model_rows = ", ".join(f"('{model}')" for model in MODELS)
    each_day = f"days(d) AS (VALUES {day_rows}), models(m) AS (VALUES {model_rows})"
    project, token = name_of("p", f"(i % {projects})"), name_of("t", "i")
    born = f"{now - 90 * 86400} + i"
    copied(
        connection, tables.project_groups, f"{numbers(groups)} SELECT VALUES_OF FROM n", id=name_of("g", "i"),
        name=name_of("Group ", "i"), created_at=born, updated_at=born,
        parent_id=f"CASE WHEN i < 4 THEN NULL ELSE {name_of('g', '(i % 4)')} END",
    )  # fmt: skip
    copied(
        connection, tables.projects, f"{numbers(projects)} SELECT VALUES_OF FROM n", id=name_of("p", "i"),
        name=name_of("Project ", "i"), created_at=born, updated_at=born, group_id=name_of("g", f"(i % {groups})"),
    )  # fmt: skip
    copied(
        connection, tables.tokens, f"{numbers(tokens)} SELECT VALUES_OF FROM n", id=token, project_id=project,
        hash=name_of("h", "i"), prefix="'sk-lp-abcd'", name=name_of("Token ", "i"), created_at=born,
    )  # fmt: skip
    copied(
        connection, tables.usage, f"{numbers(tokens)}, {each_day} SELECT VALUES_OF FROM days, n, models", period="d",
        project_id=project, token_id=token, api="'openai'", model="m", **SUMS,
    )  # fmt: skip
    added = {name: f"sum({name})" for name in (*SUMS, "estimated")}
    copied(
        connection, tables.project_usage,
        f"SELECT VALUES_OF FROM {tables.usage.name} GROUP BY period, project_id, api, model", period="period",
        project_id="project_id", api="api", model="model", **added,
    )  # fmt: skip
    copied(
        connection, tables.attributed_usage,
        f"{numbers(tokens)}, {each_day} SELECT VALUES_OF FROM days, n, models WHERE i % 4 = 0", period="d",
        project_id=project, name="'user'", source="'claimed'", value=name_of("user", "i"), api="'openai'", model="m",
        **SUMS,
    )  # fmt: skip
    copied(connection, tables.ledger_runs, "SELECT VALUES_OF", id="1", name="'bench'")
    copied(
        connection, tables.ledger_kinds, f"{numbers(tokens)} SELECT VALUES_OF FROM n", id="i", project_id=project,
        token_id=token, api="'openai'", endpoint="'/v1/chat/completions'", model="'gpt-4o'", outcome="'complete'",
        basis="'exact'", status="200",
    )  # fmt: skip
    copied(
        connection, tables.ledger_lines, f"{numbers(lines)} SELECT VALUES_OF FROM n", run_id="1", number="i",
        kind_id=f"i % {tokens}", at=f"{now} - i * {DAYS * 86400 / lines}", request_id=name_of("r", "i"),
        input_tokens="10", output_tokens="5", cost_usd="0.000125",
    )  # fmt: skip
    copied(
        connection, tables.budget_alerts, f"{numbers(alerts)} SELECT VALUES_OF FROM n", id=name_of("a", "i"),
        at=f"{now} - i", kind="'threshold'", threshold="80", owner="'token'", owner_id=name_of("t", f"(i % {tokens})"),
        name=name_of("Token ", f"(i % {tokens})"), project_id=name_of("p", f"(i % {tokens} % {projects})"),
        budget=name_of("b", "i"), unit="'usd'", period="'month'", limit="10000000", spent="8100000",
        ends=f"{now} + 86400",
    )  # fmt: skip
    for step, count in ((300, 576), (3600, 28 * 24), (86400, DAYS)):
        at = f"{int(now) // step * step} - {step} * k"
        stretch = f"k(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM k WHERE k < {count - 1})"
        copied(
            connection, tables.activity,
            f"{numbers(min(projects, 200))}, {stretch} SELECT VALUES_OF FROM n, k", step=str(step), at=at,
            project_id=name_of("p", "i"), api="'openai'", model="'gpt-4o'", requests="5", first_byte_10="5",
            input_tokens="50", output_tokens="25", cost_usd="0.001",
        )  # fmt: skip
        copied(
            connection, tables.activity, f"WITH RECURSIVE {stretch} SELECT VALUES_OF FROM k", step=str(step), at=at,
            project_id="'*'", api="'*'", model="'*'", requests="1000", first_byte_10="1000", input_tokens="10000",
            output_tokens="5000", cost_usd="0.2",
        )  # fmt: skip
    print(f"{tokens:,} tokens of {projects:,} projects, {lines:,} lines, {tokens * DAYS * len(MODELS):,} sums of "
          f"{per_sum} lines and more", flush=True)  # fmt: skip


class Browser:
    """Signed in; one connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection(HOST, port, timeout=120)
        form = urlencode({"secret": MANAGEMENT, "next": "/admin/"})
        self._connection.request("POST", "/admin/sign-in", form, {"Content-Type": "application/x-www-form-urlencoded"})
        reply = self._connection.getresponse()
        reply.read()
        self._fields = {
            "Cookie": str(reply.getheader("Set-Cookie")).partition(";")[0],
            "Authorization": f"Bearer {MANAGEMENT}",
        }

    def get(self, path: str) -> tuple[float, str]:
        """Milliseconds, and what came."""
        begun = time.perf_counter()
        self._connection.request("GET", path, headers=self._fields)
        reply = self._connection.getresponse()
        body = reply.read().decode()
        took = (time.perf_counter() - begun) * 1000
        assert reply.status == 200, (path, reply.status, body[:400])
        return took, body


def pages(stack: Stack) -> list[str]:
    latest = stack.manage("GET", "/manage/requests")["data"][0]["request_id"]
    one = [f"projects/{stack.project}", "projects/p1000003", "groups/g1000003", "tokens/t1000042", f"requests/{latest}"]
    listed = [
        "tokens?project_id=p1000003",
        "tokens?search=1000",
        "projects?search=10001",
        "groups?search=100001",
        "audit?search=project",
        "alerts?owner=token",
        "alerts?owner_id=t1000042",
        "alerts?owner=token&owner_id=t1000042",
        "alerts?project_id=p1000003",
        "projects?label=batch",
        "tokens?label=batch",
    ]
    periods = [f"?period={period}" for period in ("1h", "7d", "30d", "90d", "365d")]
    names = ("", *periods, "projects", "groups", "tokens", "usage", "requests", "alerts", "upstreams", "cache",
             "playground", "audit", "keys", "settings", "sessions", *one, *listed)  # fmt: skip
    return [f"/admin/{name}" for name in names]


def reports() -> Iterator[str]:
    """Of one dimension and of two; of a narrow range and of one project too."""
    today = datetime.now(UTC).date()
    since = (today - timedelta(days=60)).isoformat()
    for count in (1, 2):
        for by in itertools.combinations(DIMENSIONS, count):
            if {"day", "month"} <= set(by) or {"token", "user"} <= set(by):
                continue
            for more in ({}, {"project_id": "p1000003"}) if count == 2 else ({},):
                yield urlencode({"group_by": ",".join(by), "from": since, **more})
    yield urlencode({"group_by": "day,token", "from": since})
    yield urlencode({"group_by": "model,token", "from": since})
    yield urlencode({"group_by": "token,model,day", "from": since})
    yield urlencode({"group_by": "token,day", "from": (today - timedelta(days=2)).isoformat()})


class Measure:
    """Prints what pages take.

    @ivar slow: How many took too long, the least of whose times is what counts.
    """

    def __init__(self, browser: Browser, pid: int, rounds: int) -> None:
        self._browser, self._pid, self._rounds = browser, pid, rounds
        self.slow = 0

    def __call__(self, path: str, name: str = "") -> str:
        """Its body."""
        taken, body, before = [], "", self._processor_ms()
        for _ in range(self._rounds):
            milliseconds, body = self._browser.get(path)
            taken.append(milliseconds)
        processor = (self._processor_ms() - before) / self._rounds
        is_slow = min(taken) > LIMIT_MS
        self.slow += is_slow
        figures = f"{min(taken):8.1f} {statistics.median(taken):8.1f} {processor:8.1f}"
        print(f"{figures}  {name or path}{'   SLOW' if is_slow else ''}", flush=True)
        return body

    def _processor_ms(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def store(home: Path, postgres: bool) -> Iterator[str]:
    """The URL of an empty store."""
    if not postgres:
        yield migrated_sqlite(home / DATABASE)
        return
    server = PostgreSQL()
    try:
        yield server.migrated()
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--projects", type=int, default=200)
    parser.add_argument("--alerts", type=int, default=100_000)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmproxy-pages-") as folder, store(Path(folder), options.postgres) as url:
        engine = create_engine(parse_store_url(url))
        with engine.begin() as connection:
            fill(connection, options.tokens, options.projects, options.lines, options.alerts)
        if options.postgres:  # as autovacuum does before long
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()
        with Stack(Path(folder), further=FURTHER, env={"LLMPROXY_STORE_URL": url}) as stack:
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}
            for _ in range(200):
                stack.ask(
                    "POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
            measure = Measure(Browser(stack.daemon.port), stack.daemon.pid, options.rounds)
            print("   least   middle  the daemon's processor time; ms", flush=True)
            for path in pages(stack):
                measure(path)
            for query in reports():
                answer = measure(f"/manage/usage?{query}")
                if cursor := json.loads(answer)["next_cursor"]:
                    measure(f"/manage/usage?{query}&cursor={cursor}", "    and its second page")
                measure(f"/admin/usage?{urlencode(parameters(query))}")
    print(f"{measure.slow} took more than {LIMIT_MS:.0f} ms")
    sys.exit(bool(measure.slow))


def parameters(query: str) -> dict[str, str]:
    """The same report's, as its page has them."""
    found = dict(re.findall(r"([^=&]+)=([^&]*)", query))
    by = {f"by_{name}": "1" for name in urllib.request.unquote(found.pop("group_by")).split(",")}
    return {**by, **found}


if __name__ == "__main__":
    main()
