#!/usr/bin/env python3
"""Measures llmproxy next to nginx and a Go reverse proxy, and prints medians and ratios.

A mock provider and the load have one core, one system at a time has another; everything is on loopback. Rounds go
A B C A B C, so that a busy moment of the machine meets all alike. Needs gcc and taskset; see README.md.
"""

from __future__ import annotations

import argparse
import collections
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from loading import await_rest, measured
from memory import memory
from scenarios import MEMORY, SCENARIOS, Figures
from systems import OURS, THEIRS, Provider, System, Systems, Unavailable, free_port, mock, pair, redis_server
from table import DIRECT, doubts, flaws, markdown, medians


def arguments() -> argparse.Namespace:
    chosen = [name for name, scenario in SCENARIOS.items() if scenario.chosen]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--sut",
        action="append",
        metavar="NAME",
        help="llmproxy, go, nginx (default: these three), llmproxy@DIRECTORY (another checkout), plain (llmproxy without "
        "limits, metering, ledger and logs)",
    )
    options.add_argument(
        "-k",
        default=",".join([*chosen, MEMORY]),
        metavar="SCENARIO,…",
        help=f"of {', '.join([*SCENARIOS, MEMORY])}; default: %(default)s",
    )
    options.add_argument("-r", type=int, default=3, metavar="ROUNDS", help="default: %(default)s")
    options.add_argument("--seconds", type=float, default=2.0, help="of each measured window; default: %(default)s")
    options.add_argument(
        "--settling", type=float, default=2.0, metavar="SECONDS", help="that each serves before; default: %(default)s"
    )
    options.add_argument(
        "--twistd",
        action="append",
        default=[],
        metavar="ARGUMENT",
        help="a further argument for llmproxy's twistd, such as --reactor=asyncio",
    )
    options.add_argument("--json", action="store_true", help="print JSON, with the samples, instead of the table")
    given = options.parse_args()  # fmt: skip
    given.scenarios = given.k.split(",")
    for name in given.scenarios:
        if name not in SCENARIOS and name != MEMORY:
            options.error(f"{name}: there is no such scenario")
    return given


class Bench:
    """All rounds.

    @ivar samples: What was measured, by scenario and system, one for each round.
    @ivar missing: What could not be measured, and why.
    """

    def __init__(self, names: Sequence[str], scenarios: Sequence[str], seconds: float, settling: float) -> None:
        self.names = list(names)
        self.scenarios = list(scenarios)
        self.seconds = seconds
        self.settling = settling
        self.samples: dict[tuple[str, str], list[Figures]] = collections.defaultdict(list)
        self.missing: dict[str, str] = {}

    def run(self, home: Path, rounds: int, twistd: Sequence[str]) -> None:
        given = pair(home)
        if given is None:
            tls = [name for name in self.scenarios if name != MEMORY and SCENARIOS[name].tls]
            self._leave_out(tls, "openssl or its headers are missing (Debian: openssl, libssl-dev)")
        with ExitStack() as running:
            provider = Provider(free_port(), free_port(), given)
            process = running.enter_context(mock(home, provider.port))
            if given is not None:
                running.enter_context(mock(home, provider.secure, given))
            redis = 0
            if any(name != MEMORY and SCENARIOS[name].redis for name in self.scenarios):
                try:
                    running.enter_context(redis_server(home, redis := free_port()))
                except Unavailable as e:
                    self._leave_out([name for name in self.scenarios if name != MEMORY and SCENARIOS[name].redis], e)
            systems = Systems(provider, home, twistd, redis)
            for number in range(rounds):
                self._measure(DIRECT, System(process, provider.port, provider.secure, "none"))
                first = number % len(self.names)  # whoever always came first would seem slower on a busy machine
                for name in self.names[first:] + self.names[:first]:
                    self._round(systems, name, memory_too=number == 0)

    def _leave_out(self, scenarios: Sequence[str], why: object) -> None:
        for name in scenarios:
            self.missing[name] = str(why)
            self.scenarios.remove(name)

    def _round(self, systems: Systems, name: str, *, memory_too: bool) -> None:
        try:
            if MEMORY in self.scenarios and memory_too:  # it hardly differs from time to time
                self._keep(MEMORY, name, memory(systems, name))
            system = systems.start(name)
        except Unavailable as e:
            self.names.remove(name)
            self.missing[name] = str(e)
            return
        with system.process:
            self._settle(system)
            self._measure(name, system)
        if any(scenario != MEMORY and SCENARIOS[scenario].redis for scenario in self.scenarios):
            with (system := systems.start(name, redis=True)).process:
                self._settle(system)
                self._measure(name, system, redis=True)

    def _settle(self, system: System) -> None:
        """Let it serve for a while: what a system does once, in its first seconds, is not what requests cost."""
        measured(SCENARIOS["j32"], system, self.settling)

    def _measure(self, name: str, system: System, *, redis: bool = False) -> None:
        for scenario in self.scenarios:
            if scenario == MEMORY or SCENARIOS[scenario].redis != redis:
                continue
            if name != DIRECT or SCENARIOS[scenario].direct:
                await_rest(system)
                self._keep(scenario, name, measured(SCENARIOS[scenario], system, self.seconds))

    def _keep(self, scenario: str, name: str, figures: Figures) -> None:
        self.samples[scenario, name].append(figures)
        said = "  ".join(f"{key} {value:,.1f}" for key, value in figures.items())
        print(f"{scenario:8s} {name:10s} {said}", file=sys.stderr, flush=True)


def main() -> None:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    began = time.monotonic()
    bench = Bench(given.sut or ("llmproxy", "go", "nginx"), given.scenarios, given.seconds, given.settling)
    with tempfile.TemporaryDirectory(prefix="llmproxy-bench-") as home:
        try:
            bench.run(Path(home), given.r, given.twistd)
        except Unavailable as e:
            sys.exit(f"bench: {e}")
    found = medians(bench.samples, bench.scenarios)
    if given.json:
        samples = [{"scenario": s, "system": n, "rounds": rounds} for (s, n), rounds in bench.samples.items()]
        print(
            json.dumps(
                {"medians": found, "samples": samples, "missing": bench.missing, "flaws": flaws(bench.samples),
                 "doubts": doubts(bench.samples)}
            )
        )  # fmt: skip
        return
    if bench.names:
        print(markdown(found, bench.names))
    for name, why in bench.missing.items():
        print(f"\n{name} is not measured: {why}.")
    for flaw in (*flaws(bench.samples), *doubts(bench.samples)):
        print(f"\n{flaw}")
    print(f"\n{given.r} rounds of {given.seconds:g} s, {time.monotonic() - began:.0f} s in all; mock and load on core "
          f"{OURS}, the system on core {THEIRS}.")  # fmt: skip


if __name__ == "__main__":
    main()
