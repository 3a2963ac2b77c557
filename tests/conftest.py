"""What every test module shares: one reactor, run by pytest-twisted, for trial's TestCase too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase


@pytest.fixture(scope="session", autouse=True)
def _one_reactor() -> Iterator[None]:
    """Let a trial TestCase wait on the reactor that pytest-twisted already runs, instead of running it again."""
    from twisted.internet import reactor

    waited = TestCase._wait  # type: ignore[attr-defined]

    def wait(self: TestCase, deferred: Any, running: Any = None) -> None:
        # Go on in a timed call: trial iterates the reactor when it cleans up, and one that is in the midst of its queue
        # of calls from threads would then make them a second time.
        settled: Deferred[Any] = Deferred()
        deferred.addBoth(lambda result: reactor.callLater(0, settled.callback, result))
        pytest_twisted.blockon(settled)

    TestCase._wait = wait  # type: ignore[attr-defined]
    yield
    TestCase._wait = waited  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def _no_litter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let trial's C{mktemp} name places under pytest's own directory instead of the one it was started in."""
    made = SynchronousTestCase.mktemp

    def mktemp(self: SynchronousTestCase) -> str:
        return str(tmp_path_factory.mktemp("trial") / "temp")

    SynchronousTestCase.mktemp = mktemp  # type: ignore[method-assign]
    yield
    SynchronousTestCase.mktemp = made  # type: ignore[method-assign]
