"""That a trial test case works under whichever runner runs it."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase


class RunnerTests(TestCase):
    def test_a_deferred_that_has_not_fired_is_waited_for(self) -> None:
        """The test ends when its Deferred fires, not before."""
        ended: list[bool] = []
        self.addCleanup(lambda: self.assertEqual(ended, [True]))
        later: Deferred[None] = deferLater(reactor, 0.01, ended.append, True)  # type: ignore[arg-type]
        return later  # type: ignore[return-value]

    def test_temporary_files_stay_out_of_the_checkout(self) -> None:
        """Nothing is left behind where the sources are."""
        top = Path(__file__).resolve().parents[2]
        self.assertTrue(not Path(self.mktemp()).resolve().is_relative_to(top) or "_trial_temp" in str(Path.cwd()))
