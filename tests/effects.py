"""Whether the tests that show what a setting changes would notice if it changed nothing.

C{python -m tests.effects [SETTING…]} runs the tests that C{tests/unit/config/test_every_setting.py} names, with daemons
that ignore the settings whose effect they show (L{tests.support.ignored_setting}): they must fail. In one run of a file
all of its tests miss one setting each. What passes all the same is listed, and the exit status is 1.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.ignored_setting import VARIABLE
from tests.unit.config.test_every_setting import SHOWN_BY, has_one_value

HERE = Path(__file__).parent
ALONE = (
    "server.listen",
    "server.workers",
    "store.url",
    "state_dir",
    "cache.enabled",
    "limits.backend",
    "cache.backend",
)
"""Without these nothing else can be seen, so that they get a run of their own."""


def rounds(shown: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Test files, each with the settings that are ignored in one run of it, and the test of each."""
    files: dict[str, list[dict[str, str]]] = defaultdict(list)
    for setting, test in shown.items():
        file, _, name = test.partition("::")
        free = (each for each in files[file] if name not in each.values() and not {*each, setting} & {*ALONE})
        run = next(free, None)
        if run is None:
            files[file].append(run := {})
        run[setting] = name
    return ((file, run) for file, runs in files.items() for run in runs)


def outcomes(file: str, run: Mapping[str, str]) -> dict[str, set[str]]:
    """How each test ended where these settings are ignored: C{FAILED}, C{PASSED}, C{ERROR}."""
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=no", "-rA", str(HERE / file), "-k", " or ".join({*run.values()}),
    ]  # fmt: skip
    env = {**os.environ, VARIABLE: " ".join(run)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=1800)
    found: dict[str, set[str]] = defaultdict(set)
    for ended, name in re.findall(r"^(FAILED|PASSED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE):
        found[name].add(ended)
    return found


def is_noticed(ended: set[str], alone: bool) -> bool:
    """Whether a test that ended like this has missed its setting; a stack that did not start shows that only alone."""
    return "FAILED" in ended or (alone and ended == {"ERROR"})


def main(settings: Sequence[str]) -> int:
    shown = {
        setting: test
        for setting, test in SHOWN_BY.items()
        if not has_one_value(setting) and (not settings or setting in settings)
    }
    wrong = {}
    for file, run in rounds(shown):
        found = outcomes(file, run)
        for setting, name in run.items():
            seen = is_noticed(found[name], alone=len(run) == 1)
            if not seen and len(run) > 1:  # another that was ignored may have hidden it
                seen = is_noticed(outcomes(file, {setting: name})[name], alone=True)
            print("seen    " if seen else "NOT SEEN", setting, f"{file}::{name}", flush=True)
            if not seen:
                wrong[setting] = name
    print(f"{len(shown)} settings; of these {len(wrong)} would not be missed:", *wrong, sep="\n  ")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
