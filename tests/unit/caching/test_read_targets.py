"""What may be stored elsewhere is known before anybody is told to forget it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.peers import Peers
from llmproxy.caching.read_targets import MAX_REMEMBERED_TARGETS, ReadTargets


class Workers(Peers):
    """One of several, all in this process; what it asks is answered when the test says so."""

    alone = False

    def __init__(self, all_workers: list[Workers]) -> None:
        super().__init__()
        self.asked: list[Deferred[Any]] = []
        self._all = all_workers
        all_workers.append(self)

    def _others(self, name: str, body: Any) -> list[Any]:
        answers: list[Any] = []
        for other in self._all:
            if other is not self:
                other.perform(name, body).addCallback(answers.append)
        return answers

    def tell(self, name: str, body: Any = None) -> None:
        self._others(name, body)

    def ask(self, name: str, body: Any = None) -> Deferred[list[Any]]:
        answers = self._others(name, body)
        self.asked.append(Deferred(lambda _: None))
        return self.asked[-1].addCallback(lambda _: answers)


class ReadTargetsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.all: list[Workers] = []

    def worker(self) -> tuple[Workers, ReadTargets]:
        peers = Workers(self.all)
        return peers, ReadTargets(peers, Deferred.fromCoroutine)

    def test_the_only_process(self) -> None:
        """It asks nobody, and knows what it was asked for, whatever the query."""
        reads = ReadTargets(Peers(), self.fail)
        self.assertFalse(reads.any)
        reads.remember(b"/a?page=1")
        self.assertTrue(reads.any)
        self.assertEqual([reads.may_be_here(each) for each in (b"/a", b"/a?page=2", b"/b")], [True, True, False])
        self.assertFalse(reads.may_be_elsewhere(b"/a"))

    def test_a_cache_that_all_share(self) -> None:
        """There is one place, where everything may be."""
        for peers in (Peers(), Workers(self.all)):
            reads = ReadTargets(peers, self.fail, everything=True)
            self.assertTrue(reads.any and reads.may_be_here(b"/a"))
            self.assertFalse(reads.may_be_elsewhere(b"/a"))

    def test_what_others_know(self) -> None:
        """It is asked for once, when it first matters; until they have answered everything may be there, and what they
        are asked for meanwhile is not forgotten."""
        _, first = self.worker()
        first.remember(b"/before")
        peers, second = self.worker()
        self.assertTrue(second.any)
        self.assertEqual(peers.asked, [])
        self.assertTrue(second.may_be_elsewhere(b"/nowhere"))
        first.remember(b"/me\xe9nwhile")
        self.assertTrue(second.may_be_elsewhere(b"/nowhere"))
        peers.asked.pop().callback(None)
        first.remember(b"/later?x")
        known = [second.may_be_elsewhere(each) for each in (b"/before", b"/me\xe9nwhile?y", b"/later", b"/nowhere")]
        self.assertEqual((known, peers.asked), ([True, True, True, False], []))
        self.assertFalse(second.may_be_here(b"/before"))

    def test_too_many(self) -> None:
        """Then every target may be one, here and elsewhere, also for a worker that comes later."""
        _, first = self.worker()
        others = [self.worker()[1], self.worker()[1]]
        for reads in others:
            reads.may_be_elsewhere(b"/x")
            self.all[others.index(reads) + 1].asked.pop().callback(None)
        for number in range(MAX_REMEMBERED_TARGETS):
            first.remember(b"/%d" % number)
        self.assertFalse(first.may_be_here(b"/x") or any(each.may_be_elsewhere(b"/x") for each in others))
        first.remember(b"/one more")
        self.assertTrue(first.may_be_here(b"/x") and all(each.may_be_elsewhere(b"/x") for each in others))
        late, reads = self.worker()
        reads.may_be_elsewhere(b"/x")
        late.asked.pop().callback(None)
        self.assertTrue(reads.may_be_elsewhere(b"/x"))
