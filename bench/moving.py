"""How long it takes to move a store of many tokens and ledger lines from SQLite to PostgreSQL, and back.

    .venv/bin/python bench/moving.py [--tokens 10000] [--lines 1000000]

Makes the store, moves it by `llmproxy export` and `llmproxy import`, compares every table of both by count and
checksum, and times a month's usage report on each. PostgreSQL is the one that the extra `test` brings. Everything is in
a temporary directory, and ends by itself.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, literal, select
from sqlalchemy.engine import Engine

sys.path.insert(0, str(Path(__file__).parents[1]))
from llmproxy.ledger.usage_pages import report_page  # noqa: E402
from llmproxy.ledger.usage_queries import UsageQuery  # noqa: E402
from llmproxy.model import PageRequest  # noqa: E402
from llmproxy.store import tables  # noqa: E402
from llmproxy.store.archive import TABLES, table_sum  # noqa: E402
from llmproxy.store.engines import parse_store_url, upgrade_engine  # noqa: E402
from llmproxy.store.migrate import prepare  # noqa: E402
from tests.support.postgres import PostgreSQL  # noqa: E402

PROJECTS = 100
BEGIN = 1_793_491_200.0  # 2026-11-01T00:00:00Z
DAYS = 30
MODELS = (("openai", "gpt-4o-mini-2024-07-18"), ("openai", "gpt-4.1-2025-04-14"), ("anthropic", "claude-sonnet-4-5"))
MONTH = {"since": "2026-11-01", "until": "2026-12-01"}
QUESTIONS = {
    "by project and model": UsageQuery(("project", "model"), **MONTH, part=PageRequest(1000)),
    "by day": UsageQuery(("day",), **MONTH, part=PageRequest(1000)),
    "by token, first page": UsageQuery(("token",), **MONTH, part=PageRequest(1000)),
}
KEY = "an encryption key for the bench, long enough"


def timed(name: str, act: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    found = act()
    print(f"{name:<44} {time.perf_counter() - begin:8.2f} s", flush=True)
    return found


def fill(connection: Connection, tokens: int, lines: int) -> None:
    """So many of each; the sums are made of the lines."""
    project_rows = [
        {"id": f"p{n}", "name": f"Project {n}", "active": True, "created_at": BEGIN, "updated_at": BEGIN}
        for n in range(PROJECTS)
    ]
    connection.execute(insert(tables.projects), project_rows)
    lists = {"apis": [], "endpoints": [], "models": [], "ips": []}
    for some in _parts(range(tokens)):
        rows = [
            {"id": f"t{n}", "project_id": f"p{n % PROJECTS}", "hash": f"{n:064x}", "prefix": f"sk-lp-{n:06}",
             "name": f"token {n}", "active": True, "request_count": lines // tokens, "created_at": BEGIN + n, **lists}
            for n in some
        ]  # fmt: skip
        connection.execute(insert(tables.tokens), rows)
    dice, kinds = random.Random(7), dict[tuple[int, str, str, bool], int]()
    for some in _parts(range(lines)):
        connection.execute(insert(tables.ledger_lines), [_line(n, tokens, dice, kinds) for n in some])
    today = int(BEGIN // 86400) + DAYS
    connection.execute(insert(tables.ledger_runs), {"id": 1, "used_on": today, "name": "bench"})
    facts = {"outcome": "exact", "basis": "exact", "error": "", "status": 200, "upstream_status": 200}
    for some in _parts(range(len(kinds))):
        wanted = list(kinds)[some.start : some.stop]
        rows = [
            {"id": kinds[token, api, model, stream], "used_on": today, "project_id": f"p{token % PROJECTS}",
             "token_id": f"t{token}", "api": api, "endpoint": "/v1/chat/completions", "model": model,
             "answered": model, "stream": stream, **facts}
            for token, api, model, stream in wanted
        ]  # fmt: skip
        connection.execute(insert(tables.ledger_kinds), rows)
    day = func.substr(func.datetime(tables.ledger.c.at, "unixepoch"), 1, 10)
    keys = [day, tables.ledger.c.project_id, tables.ledger.c.token_id, tables.ledger.c.api, tables.ledger.c.model]
    counted = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    sums = [
        func.count(),
        *[literal(0)] * 3,
        *(func.sum(tables.ledger.c[name]) for name in counted),
        func.sum(tables.ledger.c.cost_usd),
    ]
    for table, by in ((tables.usage, keys), (tables.project_usage, [keys[0], keys[1], keys[3], keys[4]])):
        connection.execute(table.insert().from_select(list(table.c.keys()), select(*by, *sums).group_by(*by)))


def _line(n: int, tokens: int, dice: random.Random, kinds: dict[tuple[int, str, str, bool], int]) -> dict[str, Any]:
    """A line; what many have in common is numbered in C{kinds}."""
    api, model = MODELS[dice.randrange(len(MODELS))]
    kind = kinds.setdefault((dice.randrange(tokens), api, model, bool(n % 2)), len(kinds) + 1)
    input_tokens, output_tokens = dice.randrange(20, 4000), dice.randrange(1, 800)
    return {
        "run_id": 1, "number": n, "kind_id": kind, "at": BEGIN + dice.random() * DAYS * 86400,
        "duration": dice.random() * 9, "request_id": f"{n:08x}-0000-4000-8000-000000000000",
        "input_tokens": input_tokens, "cached_tokens": 0, "cache_write_tokens": 0, "output_tokens": output_tokens,
        "reasoning_tokens": 0, "cost_usd": (input_tokens * 0.15 + output_tokens * 0.6) / 1e6, "bytes_in": 900,
        "bytes_out": 2000, "attribution": "", "attempts": 1, "attempted": "",
    }  # fmt: skip


def _parts(numbers: range) -> Iterator[range]:
    return (numbers[at : at + 5000] for at in range(0, len(numbers), 5000))


def settings(home: Path, name: str, url: str) -> Path:
    path = home / f"{name}.yaml"
    path.write_text(
        f"default_api: a\nstate_dir: {home}/state\nstore: {{url: '{url}'}}\n"
        "apis: {a: {base_url: https://api.openai.com, allowed_endpoints: [/v1/models]}}\n"
    )
    return path


def llmproxy(*arguments: str) -> None:
    env = {**os.environ, "LLMPROXY_ENCRYPTION_KEY": KEY}
    command = [sys.executable, "-c", "from llmproxy.cli import main; main(prog_name='llmproxy')", *arguments]
    subprocess.run(command, env=env, check=True)


def sums(engine: Engine) -> dict[str, tuple[int, str]]:
    with engine.connect() as connection:
        found = {name: table_sum(connection, table) for name, table in TABLES.items()}
    return {name: (each.rows, each.digest) for name, each in found.items()}


def reports(name: str, engine: Engine) -> list[Any]:
    found = []
    with engine.connect() as connection:
        for what, question in QUESTIONS.items():
            page = timed(f"a month's usage {what}, {name}", lambda asked=question: report_page(connection, asked))
            rows = [{key: round(v, 4) if key == "cost_usd" else v for key, v in row.items()} for row in page.items]
            if page.next_cursor == "":  # databases sort alike only where all rows are there
                found.append(sorted(rows, key=str))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        urls = {"SQLite": f"sqlite:///{home}/a.db", "back": f"sqlite:///{home}/b.db"}
        server = PostgreSQL()
        try:
            urls["PostgreSQL"] = server.url("moving")
            files = {name: settings(home, name, url) for name, url in urls.items()}
            engines = {}
            for name, url in urls.items():
                prepare(parse_store_url(url), lambda connection: None)
                engines[name] = upgrade_engine(parse_store_url(url), 600)
            with engines["SQLite"].begin() as connection:
                timed(
                    f"make {given.tokens:,} tokens, {given.lines:,} lines",
                    lambda: fill(connection, given.tokens, given.lines),
                )
            for source, target in (("SQLite", "PostgreSQL"), ("PostgreSQL", "back")):
                archive = home / f"{source}.tar.gz"
                there = ("--config", str(files[source]))
                timed(f"export from {source}", lambda a=archive, t=there: llmproxy("export", str(a), *t))
                print(f"{'its file':<44} {archive.stat().st_size / 1e6:8.1f} MB")
                there = ("--config", str(files[target]))
                timed(f"import into {target}", lambda a=archive, t=there: llmproxy("import", str(a), *t))
            wanted = sums(engines["SQLite"])
            for name in ("PostgreSQL", "back"):
                assert sums(engines[name]) == wanted, f"{name} has other rows"
            for table, (rows, digest) in wanted.items():
                if rows:
                    print(f"  {table:<28} {rows:>9,} rows  {digest[:16]}, the same in all three")
            assert reports("SQLite", engines["SQLite"]) == reports("PostgreSQL", engines["PostgreSQL"])
            for engine in engines.values():
                engine.dispose()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
