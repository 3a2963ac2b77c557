"""Who may manage, and what guessing is worth."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.web.manage.auth import LIMIT, Failures, Gate, network
from tests.unit.web.manage.desk import TOKEN, DeskTestCase


class FailuresTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_held_back_for_the_rest_of_the_minute(self) -> None:
        """Twenty failures are heard in a minute; the rest is told how long to wait."""
        failures = Failures(self.clock, limit=2, window=60)
        self.assertEqual([failures.add("a"), failures.add("a")], [0, 0])
        self.clock.advance(15)
        self.assertEqual(failures.add("a"), 45)
        self.clock.advance(45)
        self.assertEqual(failures.add("a"), 0)

    def test_bounded(self) -> None:
        """However many addresses knock, only so many are remembered."""
        failures = Failures(self.clock, addresses=3)
        for n in range(100):
            failures.add(f"192.0.2.{n}")
        self.assertEqual(len(failures), 3)

    def test_network(self) -> None:
        """Who has an IPv6 network has all its addresses; an IPv4 address is one however it is written."""
        self.assertEqual(network("2001:db8::1"), network("2001:db8::ffff:1"))
        self.assertNotEqual(network("2001:db8::1"), network("2001:db8:0:1::1"))
        self.assertEqual(network("::ffff:192.0.2.1"), network("192.0.2.1"))
        self.assertEqual(network("fe80::1%eth0"), network("fe80::2"))
        self.assertEqual(network("/run/proxy.sock"), "/run/proxy.sock")


class GateTests(DeskTestCase):
    def test_no_token_configured(self) -> None:
        """A proxy without a management token cannot be managed by sending none."""
        with self.assertRaises(ValueError):
            Gate("", Failures(self.clock))

    def test_admitted(self) -> None:
        """The management token opens; the scheme's case does not matter."""
        self.assertEqual(self.ask("GET", "/manage/projects").code, 200)
        fields = {"Authorization": f"bEARER  {TOKEN}"}
        self.assertEqual(self.ask("GET", "/manage/projects", token=None, fields=fields).code, 200)

    def test_missing(self) -> None:
        """Without a bearer token, or with another scheme, the client is asked for one."""
        for fields in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {TOKEN}"}, {"X-Api-Key": TOKEN}):
            reply = self.ask("GET", "/manage/projects", token=None, fields=fields)
            self.refused(reply, 401, "management token")
            self.assertEqual((reply["www-authenticate"], reply["x-llmproxy-error"]), ("Bearer", "missing_token"))
        self.assertEqual(self.audit.entries, [])

    def test_wrong(self) -> None:
        """A wrong token is refused the same way however near it is, written down, and never repeated."""
        for wrong in (TOKEN[:-1], TOKEN + "x", "x", "sk-lp-" + "a" * 43):
            reply = self.ask("POST", "/manage/projects", {"name": "x"}, token=wrong)
            self.refused(reply, 401)
            self.assertNotIn(wrong.encode() if len(wrong) > 1 else b"Bearer x", reply.body)
            entry = self.last()
            self.assertEqual((entry.action, entry.outcome), ("management.denied", "failure"))
            self.assertEqual((entry.client, entry.request_id), ("192.0.2.1", reply["x-request-id"]))
        self.assertEqual(self.store.projects, {})

    def test_guessing(self) -> None:
        """After 20 wrong tokens in a minute an address is told to wait; others, and the right token, are not hurt."""
        for _ in range(LIMIT):
            self.refused(self.ask("GET", "/manage/projects", token="guess"), 401)
        reply = self.ask("GET", "/manage/projects", token="guess")
        self.refused(reply, 429)
        self.assertEqual((reply["x-llmproxy-error"], reply["retry-after"]), ("too_many_failures", "60"))
        self.assertEqual(len(self.audit.entries), LIMIT)
        self.assertEqual(self.ask("GET", "/manage/projects").code, 200)
        self.refused(self.ask("GET", "/manage/projects", token="guess", address="192.0.2.2"), 401)
        self.clock.advance(60)
        self.refused(self.ask("GET", "/manage/projects", token="guess"), 401)

    def test_denial_that_cannot_be_written_down(self) -> None:
        """Nobody guesses unseen: without an audit log a wrong token is answered 503."""
        self.audit.failing = OSError("disk full")
        self.refused(self.ask("GET", "/manage/projects", token="guess"), 503)
        self.flushLoggedErrors(OSError)
