"""Kills a daemon under load, starts the next on the same files, and says what each of them has counted."""

from __future__ import annotations

import json
import random
import sqlite3
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from threading import Event
from typing import Any, NamedTuple

from tests.support.processes import Daemon
from tests.support.stack import Stack, eventually

AT_ONCE = 16
CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-4o", "max_tokens": 400, "messages": [{"role": "user", "content": "how often does it crash"}]}


class Counts(NamedTuple):
    """What is counted of one token.

    @ivar seen: Requests that the provider received; C{lines} the ledger's, C{request_count} the token's.
    @ivar unpriced: Lines of answers whose cost is not known.
    @ivar cost: The ledger's dollars; C{used}: those of the budget. Likewise C{tokens} and C{used_tokens}.
    """

    seen: int
    lines: int
    request_count: int
    unpriced: int
    cost: float
    used: float
    tokens: int
    used_tokens: float

    @property
    def agree(self) -> bool:
        """Whether count and budgets are the ledger's."""
        counted = self.lines == self.request_count >= self.seen
        return counted and abs(self.cost - self.used) < 1e-6 and self.tokens == self.used_tokens


class Crashes:
    """A stack whose daemon is killed; use it as the stack's daemon."""

    def __init__(self, stack: Stack, seed: int = 6) -> None:
        self._stack = stack
        self._rng = random.Random(seed)
        budgets = {"budget_usd": "1000/day", "budget_tokens": "100000000/day"}
        made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, "name": "crash", **budgets})
        self._token, self._id = str(made["token"]), str(made["id"])

    def crash(self, times: int, requests: int = 60) -> None:
        """Load until about so many requests were sent on, C{kill -9}, and the next daemon, so many times."""
        for number in range(times):
            self._load_and_kill(self._stack.daemon, self._rng.randint(requests // 2, requests * 3 // 2))
            self._stack.daemon = self._stack.another(f"after-{number + 1}")
            self._stack.daemon.start()

    def _load_and_kill(self, daemon: Daemon, requests: int) -> None:
        over, before = Event(), self._received()
        with ThreadPoolExecutor(AT_ONCE) as many:
            for _ in range(AT_ONCE):
                many.submit(self._spend, daemon.port, over)
            try:
                eventually(lambda: self._received() >= before + requests, 60)
            finally:
                daemon.kill()
                over.set()

    def _received(self) -> int:
        with urllib.request.urlopen(f"{self._stack.simulator.url}/-/stats", timeout=10) as answer:
            return int(json.loads(answer.read())["requests"])

    def _spend(self, port: int, over: Event) -> None:
        rng = random.Random(self._rng.random())
        while not over.is_set():
            body = {**BODY, "stream": True, "stream_options": {"include_usage": True}} if rng.random() < 0.5 else BODY
            fields = {"Content-Type": "application/json", "X-Sim-Events": "10", "X-Sim-Delay": "0.005, 0.005"}
            with suppress(OSError, HTTPException):
                self._stack.ask("POST", CHAT, json.dumps(body).encode(), fields, token=self._token, port=port)

    def counts(self) -> Counts:
        shown = self._stack.manage("GET", f"/manage/tokens/{self._id}")
        used = {limit["limit"]: float(limit["used"]) for limit in shown["limits"]}
        lines = self._lines()
        costs: Sequence[float | None] = [line["cost_usd"] for line in lines]
        return Counts(
            seen=sum("authorization" in str(each["headers"]).lower() for each in self._stack.recorded()),
            lines=len(lines),
            request_count=int(shown["request_count"]),
            unpriced=costs.count(None),
            cost=sum(cost or 0 for cost in costs),
            used=used["budget_usd"],
            tokens=sum(line["input_tokens"] + line["output_tokens"] for line in lines),
            used_tokens=used["budget_tokens"],
        )

    def settled(self, seconds: float) -> Counts:
        """The counts once they agree, or when so many seconds have passed."""
        end = time.monotonic() + seconds
        while not (counts := self.counts()).agree and time.monotonic() < end:
            time.sleep(0.25)
        return counts

    def _lines(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self._stack.home / "llmproxy.db")) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("SELECT * FROM ledger WHERE token_id = ?", (self._id,))
            return [dict(row) for row in rows]
