"""Projects take turns, and each project's requests keep their order."""

from __future__ import annotations

from typing import NamedTuple
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base.fair_queue import FairQueue


class Item(NamedTuple):
    project: str
    number: int


class FairQueueTests(TestCase):
    def setUp(self) -> None:
        self.queue: FairQueue[str, Item] = FairQueue()

    def push(self, projects: str) -> list[Item]:
        items = [Item(project, number) for number, project in enumerate(projects)]
        for item in items:
            self.queue.push(item.project, item)
        return items

    def all(self) -> str:
        popped = [self.queue.pop() for _ in range(len(self.queue))]
        self.assertFalse(self.queue.owners)
        for project in {item.project for item in popped}:
            own = [item.number for item in popped if item.project == project]
            self.assertEqual(own, sorted(own))
        return "".join(item.project for item in popped)

    def test_turns(self) -> None:
        self.push("aaaabbc")
        self.assertEqual(self.all(), "abcabaa")

    def test_a_project_that_comes_back_is_last(self) -> None:
        self.push("ab")
        self.queue.pop()
        self.queue.push("a", Item("a", 9))
        self.assertEqual(self.all(), "ba")

    def test_removed(self) -> None:
        items = self.push("aab")
        self.queue.remove(items[0].project, items[0])
        self.queue.remove(items[2].project, items[2])
        self.assertEqual(len(self.queue), 1)
        self.assertEqual(self.all(), "a")

    def test_who_makes_room(self) -> None:
        self.assertIsNone(self.queue.newest_of_the_longest("c"))
        items = self.push("aaab")
        self.assertEqual(self.queue.newest_of_the_longest("b"), items[2])
        self.assertEqual(self.queue.newest_of_the_longest("c"), items[2])
        self.assertIsNone(self.queue.newest_of_the_longest("a"))
        self.queue.remove(items[2].project, items[2])
        self.assertIsNone(self.queue.newest_of_the_longest("b"), "two and two afterwards is no better")

    @given(st.lists(st.sampled_from("abc")))
    def test_nobody_waits_for_more_than_one_of_each(self, projects: list[str]) -> None:
        self.setUp()
        self.push("".join(projects))
        popped = self.all()
        for index, project in enumerate(popped[:-1]):
            if project == popped[index + 1]:
                self.assertEqual(set(popped[index:]), {project}, "twice in a row only when nobody else waits")
