"""A daemon that is killed under load, again and again: what is counted is what the ledger says, soon after."""

from __future__ import annotations

import os
from pathlib import Path

from tests.crashes.crashing import Crashes
from tests.support.stack import Stack

TIMES = int(os.environ.get("LLMPROXY_CRASHES") or (3 if os.environ.get("CI") else 2))
PATIENCE = 60.0


def test_counts_and_budgets_are_the_ledgers(tmp_path: Path) -> None:
    """Every request that left has its line and its use; no more of a budget is used than the ledger knows of."""
    with Stack(tmp_path) as stack:
        crashes = Crashes(stack)
        crashes.crash(TIMES)
        counts = crashes.settled(PATIENCE)
        stack.daemon.stop()
    assert counts.seen >= 30 * TIMES, counts
    assert counts.unpriced == 0, counts
    assert counts.lines == counts.request_count >= counts.seen, counts
    assert counts.agree, counts
