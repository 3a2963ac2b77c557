"""Which process of pytest-xdist runs which file, also after one of them has ended in the middle of a test."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class FileScheduling(LoadFileScheduling):
    """C{--dist loadfile}, with two differences where a process ends in the middle of a test.

    Files that it has finished are given to nobody: who gets no test reports none, and is then never given others, so
    that the run waits for ever. And the test may be repeated, as often as C{--reruns} says, by another process.
    """

    def remove_node(self, node: WorkerController) -> str | None:
        """@return: The test that it was in, if any."""
        given = self.assigned_work.pop(node)
        unfinished = [test for tests in given.values() for test, finished in tests.items() if not finished]
        if not unfinished:
            return None
        crashed = unfinished[0]
        for file, tests in given.items():
            left = {test: False for test, finished in tests.items() if not finished and test != crashed}
            if left:
                self.workqueue[file] = left
        return crashed

    def mark_test_pending(self, item: str) -> None:  # type: ignore[override]  # there, it always raises
        self.workqueue.setdefault(self._split_scope(item), {})[item] = False

    def _reschedule(self, node: WorkerController) -> None:
        if node in self.registered_collections:  # one that takes another's place reads the tests first
            super()._reschedule(node)
