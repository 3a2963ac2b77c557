"""What one project may have under way."""

from __future__ import annotations

from unittest import TestCase
from weakref import ref

from hypothesis import given
from hypothesis import strategies as st

from llmproxy import errors
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.limits.in_flight import InFlightLimit, Slots


def shares(**connection: int) -> InFlightLimit:
    api = {"base_url": "http://a", "allowed_endpoints": ["/**"]}
    return InFlightLimit(Settings(default_api="a", apis={"a": Api(**api, connection=connection), "b": Api(**api)}))


class SharesTests(TestCase):
    def test_as_many_as_the_settings_say(self) -> None:
        some = shares(max_open_per_project=2)
        first, _second = some.acquire("a", "p"), some.acquire("a", "p")
        with self.assertRaises(errors.TooManyOpen) as caught:
            some.acquire("a", "p")
        self.assertEqual((caught.exception.status, caught.exception.retry_after), (429, 1.0))
        first.release()
        some.acquire("a", "p")

    def test_half_of_the_connections_unless_they_say_so(self) -> None:
        for conns, most in ((10, 5), (3, 1), (1, 1)):
            with self.subTest(conns=conns):
                some = shares(max_conns_per_host=conns)
                taken = [some.acquire("a", "p") for _ in range(most)]
                self.assertEqual(taken[0].taken, most)
                self.assertRaises(errors.TooManyOpen, some.acquire, "a", "p")

    def test_other_projects_and_other_apis(self) -> None:
        some = shares(max_open_per_project=1)
        taken = [some.acquire(api, project) for api, project in (("a", "p"), ("a", "q"), ("b", "p"))]
        self.assertEqual(len(taken), 3)
        self.assertEqual(some.open, {"a": 2, "b": 1})

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 2))))
    def test_any_order(self, acts: list[tuple[bool, int]]) -> None:
        """Never more than allowed, and nothing is left of those that are over."""
        some = shares(max_open_per_project=3)
        held: dict[int, list[Slots]] = {0: [], 1: [], 2: []}
        for enters, project in acts:
            if enters:
                try:
                    held[project].append(some.acquire("a", str(project)))
                except errors.TooManyOpen:
                    self.assertEqual(len(held[project]), 3)
            elif held[project]:
                held[project].pop(0).release()
            self.assertEqual(some.open["a"], sum(map(len, held.values())))
        for share in (share for of in held.values() for share in of):
            share.release()
        self.assertEqual(some.open, {"a": 0, "b": 0})

    def test_nothing_is_kept_of_a_project_without_requests(self) -> None:
        some = shares()
        first, second = some.acquire("a", "p"), some.acquire("a", "p")
        self.assertIs(first, second)
        first.release()
        second.release()
        there = ref(first)
        del first, second
        self.assertIsNone(there())

    def test_other_settings(self) -> None:
        """Hold for whoever has a project's slots already."""
        some = shares(max_open_per_project=2)
        slots = some.acquire("a", "p")
        some.acquire("a", "p")
        api = {"base_url": "http://a", "allowed_endpoints": ["/**"], "connection": {"max_open_per_project": 3}}
        some.reconfigure(Settings(default_api="a", apis={"a": Api(**api), "b": Api(**api)}))
        self.assertIs(some.slots("a", "p"), slots)
        self.assertEqual((slots.taken, slots.most, some.slots("b", "p").most), (2, 3, 3))
