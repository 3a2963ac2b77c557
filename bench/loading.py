"""Runs C{load} against a system."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from scenarios import Figures, Scenario, figures
from systems import OURS, System, tool

START = 20.0  # seconds that a run may take longer than it was told to


def measured(scenario: Scenario, system: System, seconds: float) -> Figures:
    """The figures of one run of C{scenario}."""
    port = system.tls_port if scenario.tls == "down" else system.port
    arguments = ["-d", str(seconds * scenario.times), "-w", str(scenario.warm), *scenario.load]
    return figures(scenario, load(system, port, scenario, arguments, system.process.pids))


def load(
    system: System, port: int, scenario: Scenario, arguments: Sequence[str], pids: Iterable[int] = ()
) -> dict[str, Any]:
    """What C{load} says of it, as it says it."""
    command = ["taskset", "-c", str(OURS), str(tool("load")), "-p", str(port), "-u", scenario.path, "-b", scenario.body,
               "-H", f"Authorization: Bearer {system.token}", *arguments]  # fmt: skip
    if observed := ",".join(map(str, pids)):
        command += ["-P", observed]
    long = sum(float(after) for flag, after in pairwise(arguments) if flag in ("-d", "-w"))
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=long + START, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]
