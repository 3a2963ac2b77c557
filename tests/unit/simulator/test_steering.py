"""Reading the X-Sim fields."""

from __future__ import annotations

import unittest

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.steering import FAULTS, Steering, steering


class SteeringTests(unittest.TestCase):
    def test_without_fields_the_answer_is_the_usual_one(self) -> None:
        self.assertEqual(steering([b"Host: sim"]), Steering())

    def test_one_delay_is_for_the_first_byte_and_between_events(self) -> None:
        steered = steering([b"X-Sim-Delay: 0.5"])
        self.assertEqual((steered.first, steered.gap), (0.5, 0.5))

    def test_two_delays_are_first_byte_and_gap(self) -> None:
        steered = steering([b"x-sim-delay: 2, .25"])
        self.assertEqual((steered.first, steered.gap), (2.0, 0.25))

    def test_a_status_may_bring_its_reason(self) -> None:
        steered = steering([b"X-Sim-Status: 529 Site is overloaded"])
        self.assertEqual((steered.status, steered.phrase), (529, b"Site is overloaded"))

    def test_a_fault_comes_after_half_of_the_events(self) -> None:
        self.assertEqual(steering([b"X-Sim-Events: 10", b"X-Sim-Fault: reset"]).after, 5)

    def test_a_fault_may_say_after_how_many_events(self) -> None:
        steered = steering([b"X-Sim-Fault: stall; after=0"])
        self.assertEqual((steered.fault, steered.after), ("stall", 0))

    def test_added_lines_keep_their_order_case_and_duplicates(self) -> None:
        steered = steering([b"X-Sim-Header: a: 1", b"X-Sim-Cookie: s=1", b"X-Sim-Header: A: 2", b"X-Sim-Header: a: 1"])
        self.assertEqual(steered.lines, [b"a: 1", b"Set-Cookie: s=1", b"A: 2", b"a: 1"])

    def test_nonsense_is_refused_with_what_was_meant(self) -> None:
        for line in (
            b"X-Sim-Events: 0",
            b"X-Sim-Events: many",
            b"X-Sim-Size: -1",
            b"X-Sim-Delay: 1,2,3",
            b"X-Sim-Delay: nan",
            b"X-Sim-Status: 42",
            b"X-Sim-Fault: earthquake",
        ):
            with self.subTest(line), self.assertRaises(Refused) as caught:
                steering([line])
            self.assertEqual(caught.exception.status, 400)
            self.assertIn(line.split(b":")[0].decode(), caught.exception.message)

    def test_every_fault_is_understood(self) -> None:
        for fault in FAULTS:
            self.assertEqual(steering([f"X-Sim-Fault: {fault}".encode()]).fault, fault)

    @given(st.sampled_from(["Events", "Delay", "Size", "Status", "Fault", "Gzip", "Redirect"]), st.binary())
    def test_any_value_is_either_read_or_refused(self, name: str, value: bytes) -> None:
        try:
            steering([f"X-Sim-{name}: ".encode() + value])
        except Refused as e:
            self.assertEqual(e.status, 400)
