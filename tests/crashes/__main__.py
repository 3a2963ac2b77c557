"""C{python -m tests.crashes [TIMES] [PATIENCE]}: what was counted at once, and when it agreed with the ledger."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.crashes.crashing import Counts, Crashes
from tests.support.stack import Stack


def shown(counts: Counts) -> str:
    return (
        f"provider saw {counts.seen}, ledger {counts.lines} lines ({counts.unpriced} without a cost), request_count "
        f"{counts.request_count}; ${counts.cost:.6f} in the ledger, ${counts.used:.6f} of the budget used; tokens "
        f"{counts.tokens} and {counts.used_tokens:.0f}"
    )


def main(times: int = 20, patience: int = 75) -> int:
    with TemporaryDirectory() as home, Stack(Path(home)) as stack:
        crashes = Crashes(stack)
        crashes.crash(times)
        begun = time.monotonic()
        print(f"{times} crashes. At once: {shown(crashes.counts())}", flush=True)
        counts = crashes.settled(patience)
        verdict = "they agree" if counts.agree else "THEY DO NOT"
        print(f"After {time.monotonic() - begun:.0f} s: {shown(counts)}: {verdict}")
        stack.daemon.stop()
    return int(not counts.agree)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
