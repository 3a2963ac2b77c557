"""C{python -m tests.groundtruth [CALLS] [SEED]}: the table, and an example of each kind that is wrong."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.groundtruth.calls import mixed
from tests.groundtruth.ground import Ground, by_call
from tests.groundtruth.judging import judged, table


def main(many: int = 2000, seed: int = 9) -> int:
    asks = mixed(many, seed)
    begun = time.monotonic()
    with TemporaryDirectory() as home, Ground(Path(home)) as ground:
        ground.make(asks)
        took = time.monotonic() - begun
        invoice = ground.invoice()
        lines = ground.ledger()
        report = ground.manage("GET", "/manage/usage?group_by=project")["data"]
    rows = judged(asks, by_call(invoice["lines"]), by_call(lines))
    print(table(rows))
    for kind, row in rows.items():
        for example in row.examples:
            print(f"\nwrong, {kind}: {example}")
    (sums,) = report
    print(f"\n{many} calls in {took:.0f} s. The report says ${sums['cost_usd']:.6f}, {sums['unpriced']} unpriced.")
    return int(any(row.has("wrong") for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
