"""What may be stored elsewhere is known before anybody is told to forget it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.peers import Peers
from llmproxy.caching.read_targets import MAX_KEYS, MAX_REMEMBERED_TARGETS, ReadTargets


class Workers(Peers):
    """One of several, all in this process; what it asks is answered when the test says so."""

    alone = False

    def __init__(self, all_workers: list[Workers]) -> None:
        super().__init__()
        self.asked: list[Deferred[Any]] = []
        self.heard: list[Any] = []
        self._all = all_workers
        all_workers.append(self)

    def _others(self, name: str, body: Any) -> list[Any]:
        answers: list[Any] = []
        for other in self._all:
            if other is not self:
                other.perform(name, body).addCallback(answers.append)
        return answers

    def tell(self, name: str, body: Any = None) -> None:
        self.heard.append(body)
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

    def knowing(self) -> ReadTargets:
        """A worker that has been told what the others know."""
        peers, reads = self.worker()
        reads.may_be_elsewhere(b"/x")
        peers.asked.pop().callback(None)
        return reads

    def test_the_only_process(self) -> None:
        """It asks nobody, and knows what it was asked for, whatever the query."""
        reads = ReadTargets(Peers(), self.fail)
        self.assertFalse(reads.any)
        reads.remember(b"/a?page=1")
        reads.tell(b"/a?page=1", "k")
        self.assertTrue(reads.any)
        self.assertEqual([reads.may_be_here(each) for each in (b"/a", b"/a?page=2", b"/b")], [True, True, False])
        self.assertFalse(reads.may_be_elsewhere(b"/a"))

    def test_too_many_here(self) -> None:
        """Then every target may be one."""
        reads = ReadTargets(Peers(), self.fail)
        for number in range(MAX_REMEMBERED_TARGETS):
            reads.remember(b"/%d" % number)
        self.assertFalse(reads.may_be_here(b"/x"))
        reads.remember(b"/one more")
        self.assertTrue(reads.may_be_here(b"/x"))

    def test_a_cache_that_all_share(self) -> None:
        """There is one place, where everything may be."""
        for peers in (Peers(), Workers(self.all)):
            reads = ReadTargets(peers, self.fail, everything=True)
            reads.tell(b"/a", "k")
            self.assertTrue(reads.any and reads.may_be_here(b"/a"))
            self.assertFalse(reads.may_be_elsewhere(b"/a"))

    def test_what_others_know(self) -> None:
        """It is asked for once, when it first matters; until they have answered everything may be there, and what they
        are asked for meanwhile is not forgotten."""
        _, first = self.worker()
        first.tell(b"/before", "1")
        peers, second = self.worker()
        self.assertTrue(second.any)
        self.assertEqual(peers.asked, [])
        self.assertTrue(second.may_be_elsewhere(b"/nowhere") and second.take("0"))
        first.tell(b"/me\xe9nwhile?x", "2")
        self.assertTrue(second.may_be_elsewhere(b"/nowhere") and second.take("0"))
        peers.asked.pop().callback(None)
        first.tell(b"/later", "3")
        known = [second.may_be_elsewhere(each) for each in (b"/before", b"/me\xe9nwhile?y", b"/later", b"/nowhere")]
        self.assertEqual((known, peers.asked), ([True, True, True, False], []))
        self.assertEqual([second.take(key) for key in "0123"], [False, True, True, True])
        self.assertFalse(second.may_be_here(b"/before"))

    def test_each_is_told_once(self) -> None:
        """Until it has been dropped; and it is dropped elsewhere once, until it is told again."""
        first, second, third = self.knowing(), self.knowing(), self.knowing()
        told: list[Any] = []
        for peers in self.all:
            peers.heard = told
        first.tell(b"/a", "k")
        first.tell(b"/a?again", "k")
        self.assertEqual(len(told), 1)
        self.assertEqual([second.take("k"), second.take("k"), second.may_be_elsewhere(b"/a")], [True, False, False])
        for reads in (first, third):
            reads.dropped("k")
        self.assertFalse(third.may_be_elsewhere(b"/a") or third.take("k"))
        first.tell(b"/a", "k")
        self.assertEqual((len(told), second.take("k"), third.take("k")), (2, True, True))

    def test_who_has_it_dropped(self) -> None:
        """Tells of it again as well: the others have forgotten that this one may have it."""
        first, second = self.knowing(), self.knowing()
        for reads in (first, second):
            reads.tell(b"/a", "k")
        self.assertTrue(first.take("k"))
        second.dropped("k")
        first.tell(b"/a", "k")
        self.assertEqual((second.take("k"), first.take("k")), (True, False))

    def test_too_many_elsewhere(self) -> None:
        """The oldest are forgotten, on both sides, and may be told again; no other target is taken for one of them."""
        first, second = self.knowing(), self.knowing()
        for number in range(MAX_KEYS + 2):
            first.tell(b"/%d" % number, str(number))
        self.assertEqual([second.take(str(number)) for number in (0, 1, 2, MAX_KEYS + 1)], [False, False, True, True])
        self.assertEqual([second.may_be_elsewhere(b"/%d" % number) for number in (0, 3)], [False, True])
        first.tell(b"/0", "0")
        self.assertTrue(second.may_be_elsewhere(b"/0") and second.take("0"))
        self.assertFalse(second.may_be_elsewhere(b"/x"))
