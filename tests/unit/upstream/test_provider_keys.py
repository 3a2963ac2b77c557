from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.base.ttl_cache import CacheLease
from llmproxy.model import Project
from llmproxy.upstream.provider_keys import ProviderKeys
from tests.support.fakes import MemoryStore


class Keys(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.learnt: list[str] = []
        self.keys = ProviderKeys(self.store, self.clock, ttl=5.0, size=2, learn=self.learnt.append)
        for project in ("p", "q", "r"):
            self.keep(project, f"key of {project}")

    def keep(self, project: str, key: str) -> None:
        self.store.keys[project] = {"main": key}
        self.store.projects[project] = Project(project, project)

    def look_up(self, project: str = "p", api: str = "main") -> Deferred[bytes]:
        looking = Deferred.fromCoroutine(self.keys.look_up(project, api, "x-api-key"))
        return looking.addCallback(lambda keys: keys[0].value)

    def get_cached(self, project: str, api: str = "main") -> bytes | None:
        keys = self.keys.get_cached(project, api)
        return None if keys is None else keys[0].value

    def test_remembered_for_a_while(self) -> None:
        self.assertIsNone(self.get_cached("p"))
        self.assertEqual(self.successResultOf(self.look_up()), b"key of p")
        self.assertEqual(self.keys.get_cached("p", "main"), ((b"key of p", b"x-api-key: key of p"),))
        self.assertEqual(self.learnt, ["key of p"])
        self.clock.advance(4.9)
        self.assertEqual(self.get_cached("p"), b"key of p")
        self.assertIsNone(self.get_cached("p", "other"))
        self.clock.advance(0.1)
        self.assertIsNone(self.get_cached("p"))

    def test_under_a_lease(self) -> None:
        """For as long as changes are heard of, and not beyond one."""
        lease = CacheLease(5.0)
        self.keys = ProviderKeys(self.store, self.clock, ttl=300.0, lease=lease)
        self.successResultOf(self.look_up())
        for _ in range(60):
            self.clock.advance(1.0)
            lease.renew(self.clock.seconds())
        self.assertEqual(self.get_cached("p"), b"key of p")
        self.keys.forget("p")
        self.assertIsNone(self.get_cached("p"))

    def test_forgotten(self) -> None:
        """One project's, when it has changed."""
        for project in ("p", "q"):
            self.successResultOf(self.look_up(project))
        self.keys.forget("p")
        self.assertEqual((self.get_cached("p"), self.get_cached("q")), (None, b"key of q"))
        self.keys.forget("")
        self.assertIsNone(self.get_cached("q"))

    def test_changed_while_it_was_looked_up(self) -> None:
        """Is used this once, but not remembered: it may be the old one."""
        asking: Deferred[None] = Deferred()
        self.store.before = lambda name: asking
        looking = self.look_up()
        self.keys.forget("p")
        asking.callback(None)
        self.assertEqual(self.successResultOf(looking), b"key of p")
        self.assertIsNone(self.get_cached("p"))

    def test_not_more_than_so_many(self) -> None:
        for project in ("p", "q", "r"):
            self.successResultOf(self.look_up(project))
        self.assertEqual([self.get_cached(project) for project in ("p", "q", "r")], [None, b"key of q", b"key of r"])

    def test_none(self) -> None:
        self.failureResultOf(self.look_up(api="other"), errors.UpstreamAuthError)
        self.keep("p", "")
        self.failureResultOf(self.look_up(), errors.UpstreamAuthError)
        self.assertIsNone(self.get_cached("p"))

    def test_one_that_cannot_be_sent(self) -> None:
        """Is refused each time, and never part of a head."""
        self.keep("p", "a\r\nX: y")
        self.failureResultOf(self.look_up(), errors.UpstreamAuthError)
        self.assertIsNone(self.get_cached("p"))

    def test_a_store_that_fails(self) -> None:
        """In its own words is a store that does not answer."""

        def broken(name: str) -> None:
            raise OSError("password")

        self.store.before = broken
        error = self.failureResultOf(self.look_up(), errors.StoreUnavailable).value
        self.assertNotIn("password", str(error))

    def test_a_client_that_leaves_meanwhile(self) -> None:
        self.store.before = lambda name: Deferred()
        looking = self.look_up()
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
