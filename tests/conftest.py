"""What every test module shares, so that trial's test cases are at home under pytest too."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import sys
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from _pytest.fixtures import FixtureManager
from hypothesis import HealthCheck, settings
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial import _synctest
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import side_by_side
from tests.support.examples import PROFILE_EXAMPLES
from tests.support.leftovers import MARK, Leftover, end_all, leftovers, mark_run
from tests.support.long_tests import add_option, leave_out, summary
from tests.support.quiet import QuietMachine, idle_part

# No example is judged by the clock: machines are noisy. `make fuzz` and `make fuzz-http` set the number of examples.
settings.register_profile(
    "suite",
    max_examples=PROFILE_EXAMPLES,
    deadline=None,
    # A test that is repeated is one of another object: its own failure is to be seen then, not that.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("suite")

mark_run()

QUIET = QuietMachine(idle_part)
LEFT = pytest.StashKey[list[Leftover]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For C{-m alone}, files without that mark are not read: to import all of them takes longer than some tests."""
    if config.option.markexpr != "alone" or collection_path.suffix != ".py":
        return None
    return True if b"mark.alone" not in collection_path.read_bytes() else None


def pytest_addoption(parser: pytest.Parser) -> None:
    add_option(parser)
    side_by_side.add_option(parser)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out(config, items)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """What is collected stays until the end of the run: no garbage collection looks for its end, now or later.

    At a desk nobody is warned of fixtures that are hidden by decorators: it takes a sixth of the time to look for them.
    """
    side_by_side.begin(session.config)
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            if not os.environ.get("CI"):
                patch.setattr(FixtureManager, "_check_for_wrapped_fixture", lambda *_: None, raising=False)
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Ours where files are to run side by side."""
    return side_by_side.run(session) or None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is judged by the clock waits for a quiet machine, and says so where there was none."""
    if item.get_closest_marker("alone") is not None and (busy := QUIET.wait()):
        item.add_report_section("setup", "machine", busy)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves processes behind has failed."""
    if session.exitstatus == pytest.ExitCode.INTERRUPTED:
        return
    if left := leftovers(os.environ[MARK]):
        end_all(left)
        session.config.stash[LEFT] = left
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for leftover in config.stash.get(LEFT, ()):
        terminalreporter.write_line(f"ERROR: process {leftover.pid} was left behind: {leftover.command}", red=True)
    if text := summary(config):
        terminalreporter.write_line(text)


@pytest.fixture(scope="session", autouse=True)
def _simulators() -> Iterator[None]:
    """Those that go from stack to stack end with the run."""
    yield
    if "tests.support.stack" in sys.modules:
        sys.modules["tests.support.stack"].SIMULATORS.end()


@pytest.fixture(scope="session", autouse=True)
def _at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let a TestCase wait on the reactor that runs already, and keep its files where pytest keeps its own."""

    def wait(self: TestCase, deferred: Any, running: Any = None) -> None:
        # A call from a thread is taken off the reactor's queue only when it is over, and trial's clean-up turns the
        # reactor once more: without a turn of our own in between, the call that ended the test would be made twice.
        pytest_twisted.blockon(deferred.addBoth(lambda result: deferLater(reactor, 0, lambda: result)))

    def mktemp(self: SynchronousTestCase) -> str:
        return str(tmp_path_factory.mktemp("trial") / "temp")

    with pytest.MonkeyPatch.context() as patch:
        # pytest asks for Twisted's version before each TestCase, and reads a file of the installation each time.
        patch.setattr(importlib.metadata, "version", cache(importlib.metadata.version))
        # Before each TestCase trial has each of the modules forget what it has warned of. Python does so by itself for
        # one that warns, as trial sets the filters anew (CPython's `already_warned`).
        patch.setattr(_synctest, "_setWarningRegistryToNone", lambda modules: None, raising=False)
        patch.setattr(TestCase, "_wait", wait)
        patch.setattr(SynchronousTestCase, "mktemp", mktemp)
        yield
