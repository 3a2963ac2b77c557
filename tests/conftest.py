"""What every test module shares, so that trial's test cases are at home under pytest too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.trial.unittest import SynchronousTestCase, TestCase


@pytest.fixture(scope="session", autouse=True)
def _at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let a TestCase wait on the reactor that runs already, and keep its files where pytest keeps its own."""

    def wait(self: TestCase, deferred: Any, running: Any = None) -> None:
        pytest_twisted.blockon(deferred)

    def mktemp(self: SynchronousTestCase) -> str:
        return str(tmp_path_factory.mktemp("trial") / "temp")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestCase, "_wait", wait)
        patch.setattr(SynchronousTestCase, "mktemp", mktemp)
        yield
