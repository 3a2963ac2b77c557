from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from llmproxy.base.secret_reference import SecretReference
from llmproxy.errors import UpstreamAuthError
from llmproxy.interfaces import ISecretSource
from llmproxy.upstream.secret_references import READ_SECONDS, SecretReferences
from llmproxy.upstream.secret_rules import SecretRules


@implementer(ISecretSource)
class Vault:
    """Has one secret, and counts how often it is read."""

    def __init__(self) -> None:
        self.answer: Any = "sk-1"
        self.reads: list[str] = []

    def read(self, name: str) -> Deferred[str]:
        self.reads.append(name)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, Deferred) else succeed(self.answer)


class References(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.vault, self.environ = Clock(), Vault(), {"A_API_KEY": "sk-a", "OWN_API_KEY": "own"}
        self.learnt: list[str] = []
        self.listed: list[str] = []
        self.changes = 0
        self.references = SecretReferences(
            SecretRules(["*_API_KEY"], [], ["vault"], []),
            {"vault": self.vault},
            self.environ,
            self.clock,
            refresh=60.0,
            is_own=lambda value: value == "own",
            learn=self.learnt.append,
        )
        self.references.attach(lambda: succeed(self.listed), self.changed)

    def changed(self) -> None:
        self.changes += 1

    def resolve(self, text: str) -> Deferred[str]:
        return Deferred.fromCoroutine(self.references.resolve(SecretReference(text)))

    def missing(self, text: str) -> str:
        self.failureResultOf(self.resolve(text), UpstreamAuthError)
        (check,) = self.references.health_checks()
        return check.read()

    def test_variable(self) -> None:
        """Is learnt, so that logs leave it out."""
        self.assertEqual(self.successResultOf(self.resolve("env:A_API_KEY")), "sk-a")
        self.assertEqual(self.learnt, ["sk-a"])

    def test_missing(self) -> None:
        self.assertEqual(self.missing("env:B_API_KEY"), "missing: env:B_API_KEY: the variable is not set")
        self.environ["B_API_KEY"] = "sk-b"
        self.missing("env:B_API_KEY")  # not looked for with each request
        self.clock.advance(1.0)
        self.assertEqual(self.successResultOf(self.resolve("env:B_API_KEY")), "sk-b")
        (check,) = self.references.health_checks()
        self.assertEqual(check.read(), "ok")
        self.flushLoggedErrors()

    def test_no_longer_allowed(self) -> None:
        """What was stored while the settings allowed it."""
        self.assertIn("secrets.environment does not allow", self.missing("env:PATH"))
        self.assertIn("is none of secrets.stores", self.missing("gone:x"))

    def test_own(self) -> None:
        self.assertIn("a secret of llmproxy itself", self.missing("env:OWN_API_KEY"))
        self.assertEqual(self.learnt, [])

    def test_plugin_is_asked_again(self) -> None:
        """After C{refresh}, not before."""
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.resolve("vault:x")), "sk-1")
        self.assertEqual(self.vault.reads, ["x"])
        self.vault.answer = "sk-2"
        self.clock.advance(60.0)
        self.assertEqual(self.changes, 0)
        self.assertEqual(self.successResultOf(self.resolve("vault:x")), "sk-2")
        self.assertEqual(self.changes, 1)  # other projects may have cached the one before

    def test_plugin_that_fails(self) -> None:
        for answer in (RuntimeError("sealed"), b"bytes", "two\nlines"):
            self.vault.answer = answer
            self.clock.advance(1.0)
            self.assertIn("missing: vault:x: ", self.missing("vault:x"))

    def test_plugin_that_hangs(self) -> None:
        """Holds requests for some seconds only."""
        self.vault.answer = Deferred()
        asking = self.resolve("vault:x")
        self.clock.advance(READ_SECONDS)
        self.failureResultOf(asking, UpstreamAuthError)

    def test_checked_in_the_background(self) -> None:
        """What plugins have changed is found out, and what no project refers to any more is not mentioned."""
        self.listed = ["vault:x", "env:B_API_KEY"]
        self.successResultOf(self.references.open())
        (gauge,) = self.references.instruments()
        self.assertEqual(gauge.read(), 1.0)
        self.references.startService()
        self.addCleanup(lambda: self.successResultOf(self.references.stopService()))
        self.vault.answer, self.listed = "sk-2", ["vault:x"]
        self.clock.pump([1.0] * 59)
        self.assertEqual((self.changes, gauge.read()), (0, 1.0))
        self.clock.pump([1.0] * 3)
        self.assertEqual((self.changes, gauge.read()), (1, 0.0))
        self.assertEqual(self.successResultOf(self.resolve("vault:x")), "sk-2")

    def test_not_before_the_store_is_open(self) -> None:
        """However long that takes, it is not asked before."""
        asked: list[None] = []

        async def listed() -> list[str]:
            asked.append(None)
            return []

        self.references.attach(listed, lambda: None)
        self.references.startService()
        self.addCleanup(lambda: self.successResultOf(self.references.stopService()))
        self.clock.pump([1.0] * 120)
        self.assertEqual(asked, [])
        self.successResultOf(self.references.open())
        self.assertEqual(len(asked), 1)
        self.clock.pump([1.0] * 120)
        self.assertGreater(len(asked), 1)

    def test_looked_at_when_one_was_set(self) -> None:
        self.successResultOf(self.references.open())
        self.references.startService()
        self.addCleanup(lambda: self.successResultOf(self.references.stopService()))
        self.listed = ["env:B_API_KEY"]
        self.references.recheck()
        self.clock.advance(1.0)
        (gauge,) = self.references.instruments()
        self.assertEqual(gauge.read(), 1.0)
