"""A provider that keeps failing is left alone for a while, and tried again with one request."""

from __future__ import annotations

import unittest

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmproxy.upstream.breaker import Breaker, ErrorRatio


class BreakerTests(unittest.TestCase):
    def opened(self) -> Breaker:
        breaker = Breaker(3, 30.0)
        for _ in range(3):
            breaker.failed(0.0)
        return breaker

    def test_fewer_failures(self) -> None:
        """Two failures of three do not open it, and a success starts the count anew."""
        breaker = Breaker(3, 30.0)
        for verdict in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
            verdict(0.0)
        self.assertEqual(breaker.state, "closed")
        self.assertTrue(breaker.allow(0.0))
        self.assertEqual(breaker.retry_after(0.0), 0.0)

    def test_open(self) -> None:
        """After three in a row nothing is let through until the cooldown is over, and that time can be told."""
        breaker = self.opened()
        self.assertEqual((breaker.state, breaker.allow(0.0), breaker.allow(29.9)), ("open", 0, 0))
        self.assertEqual(breaker.retry_after(10.0), 20.0)

    def test_one_probe(self) -> None:
        """Exactly one request finds out whether the provider is back."""
        breaker = self.opened()
        self.assertTrue(breaker.allow(30.0))
        self.assertEqual(breaker.state, "half-open")
        self.assertFalse(breaker.allow(1000.0))

    def test_probe_succeeds(self) -> None:
        """The provider is back: everything goes through again."""
        breaker = self.opened()
        breaker.allow(30.0)
        breaker.succeeded(31.0)
        self.assertEqual(breaker.state, "closed")
        breaker.failed(31.0)
        self.assertTrue(breaker.allow(31.0))

    def test_probe_fails(self) -> None:
        """The provider is still away: one failure is enough for another cooldown."""
        breaker = self.opened()
        breaker.allow(30.0)
        breaker.failed(40.0)
        self.assertEqual((breaker.allow(69.0), breaker.retry_after(69.0)), (0, 1.0))
        self.assertTrue(breaker.allow(70.0))

    def test_probe_learns_nothing(self) -> None:
        """The probe's client left: the next request is the probe, at once."""
        breaker = self.opened()
        breaker.allow(30.0)
        breaker.released()
        self.assertTrue(breaker.allow(30.0))
        self.assertFalse(breaker.allow(30.0))

    def test_straggler(self) -> None:
        """What a request from before the opening has to say is not taken for the probe's verdict."""
        breaker = Breaker(1, 30.0)
        old = breaker.allow(0.0)
        breaker.failed(0.0)
        probe = breaker.allow(30.0)
        breaker.succeeded(31.0, old)
        breaker.released(old)
        self.assertEqual((breaker.state, breaker.allow(31.0)), ("half-open", 0))
        breaker.succeeded(31.0, probe)
        self.assertEqual(breaker.state, "closed")

    def test_late_failures(self) -> None:
        """Requests that fail while it is open do not prolong the cooldown."""
        breaker = self.opened()
        breaker.failed(29.0)
        self.assertTrue(breaker.allow(30.0))

    def test_off(self) -> None:
        """With no limit it never opens."""
        breaker = Breaker(0, 30.0)
        for _ in range(100):
            breaker.failed(0.0)
        self.assertTrue(breaker.allow(0.0))

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not hold requests back for longer than a cooldown."""
        breaker = Breaker(1, 30.0)
        breaker.failed(5000.0)
        self.assertEqual(breaker.retry_after(0.0), 30.0)
        self.assertTrue(breaker.allow(30.0))

    def test_held(self) -> None:
        """Whatever requests bring, and however long it takes, it stays open until it is restored."""
        breaker = Breaker(1, 30.0)
        straggler = breaker.allow(0.0)
        breaker.hold(10.0)
        breaker.succeeded(1.0, straggler)
        breaker.succeeded(1.0)
        breaker.released()
        for now in (2.0, 31.0, 1e6):
            self.assertEqual((breaker.state, breaker.ready(now), breaker.allow(now)), ("open", False, 0))
            self.assertEqual(breaker.retry_after(now), 10.0)
        breaker.restore()
        self.assertEqual((breaker.state, breaker.retry_after(1e6)), ("closed", 0.0))
        self.assertTrue(breaker.allow(1e6))

    def test_held_while_a_request_probes(self) -> None:
        """What that brings comes too late, and the breaker opens anew only after as many failures as ever."""
        breaker = Breaker(2, 30.0, ErrorRatio(0.5, 10.0, 4))
        breaker.failed(0.0)
        breaker.failed(0.0)
        ticket = breaker.allow(30.0)
        breaker.hold(5.0)
        breaker.failed(31.0, ticket)
        breaker.restore()
        breaker.failed(32.0)
        self.assertEqual(breaker.state, "closed")
        breaker.failed(32.0)
        self.assertEqual(breaker.state, "open")


class BreakerMachine(RuleBasedStateMachine):
    """Any order of requests and verdicts, against a list of what is out."""

    LIMIT, COOLDOWN = 2, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.LIMIT, self.COOLDOWN)
        self.now = 0.0
        self.out: list[tuple[int, bool]] = []
        self.row = 0
        self.opened_at: float | None = None

    @rule(seconds=st.floats(0.0, 15.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def request(self) -> None:
        closed = self.breaker.state == "closed"
        probing = any(probe for _, probe in self.out)
        due = self.opened_at is not None and self.opened_at + self.COOLDOWN - self.now <= 0
        ticket = self.breaker.allow(self.now)
        assert bool(ticket) == (closed or (due and not probing))
        if ticket:
            self.out.append((ticket, not closed))

    def end(self, data: st.DataObject) -> tuple[int, bool, bool]:
        """Take a request that is out: its ticket, whether it is the probe, and whether its word counts."""
        ticket, probe = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        return ticket, probe, probe or (self.breaker.state == "closed" and ticket == self.breaker.allow(self.now))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def success(self, data: st.DataObject) -> None:
        ticket, probe, counts = self.end(data)
        self.breaker.succeeded(self.now, ticket)
        if counts:
            self.row = 0
        if probe:
            assert self.breaker.state == "closed"
            self.opened_at = None

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def failure(self, data: st.DataObject) -> None:
        ticket, probe, counts = self.end(data)
        self.breaker.failed(self.now, ticket)
        self.row += counts
        if probe or (counts and self.row >= self.LIMIT):
            self.opened_at = self.now

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def nothing(self, data: st.DataObject) -> None:
        ticket, _, _ = self.end(data)
        self.breaker.released(ticket)

    @invariant()
    def state_is_known(self) -> None:
        probes = sum(probe for _, probe in self.out)
        assert probes <= 1
        expected = "half-open" if probes else "closed" if self.opened_at is None else "open"
        assert self.breaker.state == expected
        assert 0.0 <= self.breaker.retry_after(self.now) <= self.COOLDOWN + 1e-9


BreakerStates = BreakerMachine.TestCase
