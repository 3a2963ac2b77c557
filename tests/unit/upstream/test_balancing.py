from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.upstream.balancing import MAX_OVERLOAD, choose, identity


@dataclass
class Server:
    name: str
    weight: int = 1
    priority: int = 0
    in_flight: int = 0
    turn: float = 0.0
    identity: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.identity = identity(self.name.encode())


def servers(*weights: int) -> list[Server]:
    return [Server(f"s{number}", weight) for number, weight in enumerate(weights)]


class Choices(TestCase):
    def test_in_turn_by_weight(self) -> None:
        pool = servers(5, 1, 2)
        chosen = [choose("round_robin", pool).name for _ in range(16)]
        self.assertEqual(Counter(chosen), {"s0": 10, "s1": 2, "s2": 4})
        self.assertEqual(set(chosen[:8]), {"s0", "s1", "s2"}, "none waits for long")

    def test_one_that_comes_back(self) -> None:
        """Does not get all that it has missed."""
        pool = servers(1, 1)
        for _ in range(100):
            choose("round_robin", pool[:1] + servers(1))
        chosen = Counter(choose("round_robin", pool).name for _ in range(10))
        self.assertLessEqual(chosen["s1"], 6)

    def test_least_busy(self) -> None:
        """For its weight; in turn where that is the same."""
        pool = servers(1, 2)
        pool[0].in_flight, pool[1].in_flight = 1, 1
        self.assertEqual(choose("least_busy", pool).name, "s1")
        pool[1].in_flight = 3
        self.assertEqual(choose("least_busy", pool).name, "s0")
        pool[0].in_flight = pool[1].in_flight = 0
        self.assertEqual(Counter(choose("least_busy", pool).name for _ in range(9))["s1"], 6)

    def test_failover(self) -> None:
        pool = servers(1, 9)
        pool[0].in_flight = 1000
        self.assertEqual([choose("failover", pool).name for _ in range(3)], ["s0"] * 3)
        pool[0].priority = 1
        self.assertEqual(choose("failover", pool).name, "s1")

    def test_only_the_lowest_priority(self) -> None:
        pool = servers(1, 1, 1)
        pool[0].priority = 2
        for balance in ("least_busy", "round_robin", "affinity"):
            chosen = {choose(balance, pool, str(n).encode()).name for n in range(50)}  # type: ignore[type-var]
            self.assertEqual(chosen, {"s1", "s2"}, balance)

    def test_affinity_without_a_hint(self) -> None:
        """Goes where it is least busy."""
        pool = servers(1, 1)
        pool[0].in_flight = 1
        self.assertEqual(choose("affinity", pool).name, "s1")

    def test_affinity_by_weight(self) -> None:
        chosen = Counter(choose("affinity", servers(1, 3), str(n).encode()).name for n in range(2000))
        self.assertTrue(1350 < chosen["s1"] < 1650, chosen)

    @given(st.binary(min_size=1, max_size=40), st.integers(2, 6), st.data())
    def test_affinity_moves_nothing_else(self, hint: bytes, size: int, data: st.DataObject) -> None:
        """Whoever leaves takes only its own sessions along, in whatever order the others stand."""
        pool = servers(*[1] * size)
        chosen = choose("affinity", pool, hint)
        self.assertIs(choose("affinity", data.draw(st.permutations(pool)), hint), chosen)
        gone = data.draw(st.sampled_from(pool))
        left = [each for each in pool if each is not gone]
        if chosen is not gone:
            self.assertIs(choose("affinity", left, hint), chosen)

    @given(
        st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40)), min_size=2, max_size=6),
        st.binary(min_size=1, max_size=8),
    )
    def test_affinity_overloads_nobody(self, loads: list[tuple[int, int]], hint: bytes) -> None:
        pool = [Server(f"s{n}", weight, in_flight=busy) for n, (weight, busy) in enumerate(loads)]
        chosen = choose("affinity", pool, hint)
        total, weights = sum(each.in_flight for each in pool) + 1, sum(each.weight for each in pool)
        self.assertLessEqual(chosen.in_flight + 1, ceil(MAX_OVERLOAD * total * chosen.weight / weights))
