"""Runs C{load} against a system."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import requests_of_sdks
from scenarios import Figures, Scenario, figures
from systems import BUILT, OURS, System, tool

REST_SECONDS = 0.3  # for which a system that is at rest takes next to nothing
START = 20.0  # seconds that a run may take longer than it was told to


def measured(scenario: Scenario, system: System, seconds: float) -> Figures:
    """The figures of one run of C{scenario}; C{no_core}: the share of that time for which the system had none."""
    port = system.tls_port if scenario.tls == "down" else system.port
    arguments = ["-d", str(seconds * scenario.times), "-w", str(scenario.warm), *scenario.load]
    began, before = time.monotonic(), _waited(system.process.pid)
    found = figures(scenario, load(system, port, scenario, arguments, system.process.pids))
    return found | {"no_core": (_waited(system.process.pid) - before) / (time.monotonic() - began)}


def await_rest(system: System, patience: float = 10.0) -> None:
    """Let it do what it has put off, such as the entering of lines: the next scenario is not to pay for that."""
    end, before = time.monotonic() + patience, system.process.cpu_seconds
    while time.monotonic() < end:
        time.sleep(REST_SECONDS)
        now = system.process.cpu_seconds
        if now - before <= REST_SECONDS / 10:
            return
        before = now


def _waited(pid: int) -> float:
    """Seconds for which the process could have run and had no core, as Linux counts them."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def load(
    system: System, port: int, scenario: Scenario, arguments: Sequence[str], pids: Iterable[int] = ()
) -> dict[str, Any]:
    """What C{load} says of it, as it says it."""
    command = ["taskset", "-c", str(OURS), str(tool("load")), "-p", str(port), "-u", scenario.path, "-b", scenario.body,
               "-H", f"Authorization: Bearer {system.credential(scenario.limited)}", *arguments]  # fmt: skip
    if scenario.sdk:
        mix = BUILT / "sdk.requests"
        mix.write_bytes(requests_of_sdks.mix())
        command += ["-F", str(mix)]
    if scenario.distinct:
        mix = BUILT / "distinct.requests"
        mix.write_bytes(requests_of_sdks.distinct(scenario.body))
        command += ["-F", str(mix)]
    if scenario.many:
        mix = BUILT / f"many.{system.port}.requests"
        mix.write_bytes(requests_of_sdks.of_many(system.tokens(scenario.many), scenario.body))
        command += ["-F", str(mix)]
    if observed := ",".join(map(str, pids)):
        command += ["-P", observed]
    long = sum(float(after) for flag, after in pairwise(arguments) if flag in ("-d", "-w"))
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=long + START, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]
