#!/usr/bin/env python3
"""Tells where the time of a small request goes: llmproxy under cProfile, busy with j32, by part of the program.

The profiler makes everything slower, and calls most of all: read the shares, not the microseconds.
"""

from __future__ import annotations

import argparse
import collections
import pstats
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loading import measured
from scenarios import SCENARIOS
from systems import Provider, Systems, free_port, mock

Functions = dict[tuple[str, int, str], tuple[int, float]]  # by file, line and name: calls, own seconds

PARTS = ("llmproxy/wire/server", "llmproxy/wire/client", "llmproxy/wire", "llmproxy/http", "llmproxy/web", "llmproxy/proxy",
         "llmproxy/upstream", "llmproxy/metering", "llmproxy/ledger", "llmproxy/limits", "llmproxy/caching", "llmproxy/auth",
         "llmproxy/observability", "llmproxy", "treq", "twisted/web", "twisted/internet", "twisted",
         "zope", "json")  # fmt: skip
ONCE = (("metrics.py", "started"), ("direct_hits.py", "_send"))  # requests that begin, and hits, which need not
CALLS = ("send", "recv", "poll", "write")


def profiled(home: Path, scenario: str, seconds: float) -> tuple[Functions, int]:
    """The profile of a run, and its number of requests, those before the measured window included."""
    written = home / "profile"
    with ExitStack() as running:
        provider = Provider(free_port(), 0, None)
        running.enter_context(mock(home, provider.port))
        arguments = ["--profile", str(written), "--profiler", "cprofile", "--savestats"]
        system = Systems(provider, home, arguments).start("llmproxy")
        with system.process:
            measured(SCENARIOS[scenario], system, seconds)
            system.process.end(patience=20)
    stats = functions(pstats.Stats(str(written)))
    # A coroutine counts once more each time it goes on; each request makes one call of one of these.
    return stats, sum(calls for (file, _, name), (calls, _) in stats.items() if (Path(file).name, name) in ONCE)


def functions(stats: Any) -> Functions:
    """Calls and own seconds of every function; C{stats} is no attribute that typeshed knows."""
    return {function: (calls, own) for function, (_, calls, own, _, _) in stats.stats.items()}


def part(file: str, name: str) -> str:
    """Which part of the program a function belongs to."""
    if file == "~":
        return f"the kernel: {name}" if any(f"'{call}'" in name for call in CALLS) else "built-in functions"
    return next((part for part in PARTS if f"/{part}/" in file or f"/{part}.py" in file), "the rest")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-k", default="j32", metavar="SCENARIO")
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("-n", type=int, default=30, metavar="FUNCTIONS", help="how many are listed")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmproxy-bench-") as home:
        stats, requests = profiled(Path(home), given.k, given.seconds)
    spent: dict[str, float] = collections.defaultdict(float)
    listed = []
    for (file, line, name), (calls, own) in stats.items():
        spent[part(file, name)] += own
        listed.append((own, calls, f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"))
    idle = sum(own for name, own in spent.items() if "poll" in name)
    busy = sum(spent.values()) - idle
    print(f"{requests:,} requests, {busy / requests * 1e6:,.0f} µs each under the profiler\n")
    print("| part | share | µs/request |\n| --- | ---: | ---: |")
    for name, own in sorted(spent.items(), key=lambda of: -of[1]):
        if own / busy >= 0.005:
            print(f"| {name} | {own / busy:.1%} | {own / requests * 1e6:.1f} |")
    print("\n| function | calls/request | µs/request |\n| --- | ---: | ---: |")
    for own, calls, name in sorted(listed, reverse=True)[: given.n]:
        print(f"| {name} | {calls / requests:.1f} | {own / requests * 1e6:.1f} |")


if __name__ == "__main__":
    main()
