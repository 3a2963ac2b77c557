#!/usr/bin/env python3
"""Tells what is written down of a finished request, and what that costs: CPU for each, without a server or a client.

The ledger's journal, its lines in the store (SQLite in a temporary file, or what --store names: an empty database), and
the access log with events in a file. Threads count; what a database server does in its own process does not.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react

from llmproxy.base.own_threads import OwnThreads
from llmproxy.brief_record import BriefRecord, RecordKinds
from llmproxy.config.model import Logging
from llmproxy.ledger.journal import JournalSize
from llmproxy.ledger.records import FinishedRequest, LedgerLineOpening
from llmproxy.ledger.service import Ledger
from llmproxy.ledger.sql import LedgerTable
from llmproxy.limits.plan import charges
from llmproxy.model import RequestRecord
from llmproxy.observability.access_log import AccessLog
from llmproxy.observability.event_bus import MemoryBus
from llmproxy.observability.file_sink import FileSink
from llmproxy.observability.log_output import observer
from llmproxy.observability.redaction import Redactor
from llmproxy.observability.request_lines import RequestLines
from llmproxy.sealing import Sealer, TokenHasher
from llmproxy.store.store import Store

Costs = dict[str, float]  # µs of CPU for each request, by step
TOKENS = 20


def records(number: int, now: float) -> Iterator[RequestRecord]:
    """What usual requests of some tokens leave."""
    run = os.urandom(9).hex()
    for each in range(number):
        yield RequestRecord(
            f"{run}-{each:x}", now + each * 0.0005, 0.812345, "POST", "/v1/chat/completions", 200, "complete", "openai",
            "/v1/chat/completions", f"project-{each % TOKENS % 3}", f"tok_{each % TOKENS:022}", "gpt-4o-mini", False, 312 + each % 97,
            780 + each % 31, 0.412345, 0.401234, 0.0, 0.0, 200, "disabled", "", "127.0.0.1", "OpenAI/Python 1.109.1",
            0, 1, "",
            "gpt-4o-mini-2024-07-18", "exact", 40 + each % 31, 0, 0, 19 + each % 7, 0, 1.74e-05 + each % 13 * 1e-7,
        )  # fmt: skip


def opening(record: RequestRecord) -> LedgerLineOpening:
    """What its ledger line began with."""
    return LedgerLineOpening(
        "", record.started_at, record.request_id, record.project_id, record.token_id, record.api, record.endpoint,
        record.model, record.bytes_in, 78, 1,
    )  # fmt: skip


class Stopwatch:
    """CPU of this process, per request."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.costs: Costs = {}
        self._begun = 0.0

    def start(self) -> None:
        gc.collect()
        self._begun = time.process_time()

    def stop(self, step: str) -> None:
        self.costs[step] = (time.process_time() - self._begun) / self._number * 1e6


async def once(reactor: Any, home: Path, number: int, url: str, secrets: int) -> Costs:
    """One round over all steps."""
    redactor, watch, now = Redactor(["a secret of this process"]), Stopwatch(number), time.time()
    for _ in range(secrets):
        redactor.add(f"sk-{os.urandom(20).hex()}")
    kinds = RecordKinds()
    finished = list(records(number, now))
    run = os.urandom(8).hex()
    store = Store(
        url or f"sqlite:///{home}/llmproxy.db",
        reactor,
        sealer=Sealer(os.urandom(32)),
        hasher=TokenHasher(os.urandom(32)),
        run=run,
    )
    await store.open()
    ledger = Ledger(
        LedgerTable(store, time.time, charges), home / "ledger", reactor, time.time, OwnThreads(reactor, "ledger", size=2).call,
        run=run, journal_size=JournalSize(1 << 26, 1 << 30), interval=3600.0, secrets=redactor,
    )  # fmt: skip
    await ledger.open()
    watch.start()
    for record in finished:
        ledger.settle_all((FinishedRequest(kinds.parts_of(record), ledger.open_line(opening(record))),))
    watch.stop("journal: open and settle")
    watch.start()
    await ledger.flush()
    watch.stop("ledger: into the store")
    await ledger.stopService()
    await store.close()
    assert ledger.written_lines == number, ledger.written_lines
    watch.costs["ledger: bytes in SQLite"] = 0.0 if url else size(home / "llmproxy.db") / number
    await shown(reactor, home, list(map(kinds.parts_of, finished)), redactor, watch)
    return watch.costs


async def shown(reactor: Any, home: Path, finished: list[BriefRecord], redactor: Redactor, watch: Stopwatch) -> None:
    """Access log and events."""
    lines = RequestLines(redactor)
    with open(home / "access.log", "w", encoding="utf-8") as stream:
        sinks = {"file-0": FileSink(str(home / "events.jsonl"), OwnThreads(reactor, "sink", waiting=1).call)}
        output = observer(Logging(), stream, redactor)
        bus = MemoryBus(sinks, reactor, queue_size=len(finished), scrub=redactor.record, lines=lines.events)
        access = AccessLog(lambda waiting: output.write_masked(lines.access_lines(waiting), len(waiting)), reactor)
        watch.start()
        for place in range(0, len(finished), 1000):
            for record in finished[place : place + 1000]:
                bus.publish_all([record])
                access.observe_all([record])
            await deferLater(reactor, 0.11)
        access.stopService()
        await bus.stopService()
        watch.stop("access log and events")
    for name in ("access.log", "events.jsonl"):
        with open(home / name, "rb") as lines:
            assert sum(1 for _ in lines) == len(finished), name


def size(database: Path) -> int:
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*") if "lock" not in path.name)


async def main(clock: Any, number: int, rounds: int, url: str, secrets: int) -> None:
    costs: list[Costs] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="llmproxy-bench-") as home:
            costs.append(await once(clock, Path(home), number, url, secrets))
    print(f"{number:,} requests, the least of {rounds} rounds\n\n| step | µs of CPU per request |\n| --- | ---: |")
    for step in costs[0]:
        print(f"| {step} | {min(each[step] for each in costs):.2f} |")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-n", type=int, default=50_000, metavar="REQUESTS")
    options.add_argument("-r", type=int, default=3, metavar="ROUNDS")
    options.add_argument("--secrets", type=int, default=3, metavar="N", help="provider keys that are masked everywhere")
    options.add_argument("--store", default="", metavar="URL")
    given = options.parse_args()
    react(lambda clock: ensureDeferred(main(clock, given.n, given.r, given.store, given.secrets)))
