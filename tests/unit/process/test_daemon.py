from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import TestCase

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.config.model import Api, Settings
from llmproxy.instruments import HealthCheck
from llmproxy.interfaces import IHealthChecked, IOpenable
from llmproxy.observability.metrics import Metrics
from llmproxy.process.daemon import REPORTING_SECONDS, Daemon
from llmproxy.process.listening_sockets import BACKLOG, with_backlog


class Reachable:
    """A store that answers."""

    def ping(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)


@implementer(IHealthChecked, IOpenable)
class Part(Service):
    """A service with all that one may have."""

    def __init__(self, clock: Clock) -> None:
        self.tasks = [Task("sweep", clock)]
        self.opened = self.stopped = False

    def stopService(self) -> None:
        self.stopped = True

    def open(self) -> Deferred[None]:
        self.opened = True
        return succeed(None)

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("ledger", lambda: "disk_full", required=True)
        yield HealthCheck("ledger_files", lambda: "damaged")


class Parts(SynchronousTestCase):
    """What the parts of the process say of themselves."""

    def setUp(self) -> None:
        self.clock = Clock()
        store: Any = Reachable()
        api = Api(base_url="https://api.openai.com", allowed_endpoints=("/v1/models",))
        settings = Settings(apis={"openai": api})
        self.daemon = Daemon(settings, self.clock, lambda event: None, store, lambda: succeed(None))
        self.part = Part(self.clock)
        for part in (None, object(), self.part):
            self.daemon.add(part)

    def test_states(self) -> None:
        """Those that keep requests away stand apart from those that do not."""
        required, lesser = self.successResultOf(Deferred.fromCoroutine(self.daemon.checks()))
        self.assertEqual(required, {"config": "ok", "store": "ok", "ledger": "disk_full", "state": "starting"})
        self.assertEqual(lesser, {"ledger_files": "damaged", "background": "ok"})

    def test_tasks(self) -> None:
        """What fails in the background is counted, and said."""
        metrics = Metrics()
        metrics.register(self.daemon)
        self.part.tasks[0].failed(Failure(KeyError("x")))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        _, lesser = self.successResultOf(Deferred.fromCoroutine(self.daemon.checks()))
        self.assertEqual(lesser["background"], "sweep failing")
        figures = {instrument.name: reading for instrument, reading in metrics.readings()}
        checks = {"config": 1, "state": 0, "ledger": 0, "ledger_files": 0, "background": 0, "store": 1}
        failures = {"health": 0, "sweep": 1}
        self.assertEqual(figures, {"client_connections": 0, "background_failures": failures, "check_ok": checks})

    def test_replaced(self) -> None:
        """Another process has its place: what is asked for all of them is answered without its checks."""
        metrics = Metrics()
        metrics.register(self.daemon)
        self.daemon.leave_sockets()
        self.assertEqual({each.name: reading for each, reading in metrics.readings()}["check_ok"], {})

    def test_services(self) -> None:
        """Are started and stopped with it; not opened before it starts."""
        self.assertEqual((list(self.daemon), self.part.opened), ([self.part], False))

    def test_the_end(self) -> None:
        """Requests are reported while there is somebody to be told; what was counted is left to others last."""
        reported: Deferred[None] = Deferred()
        stopped: list[bool] = []

        def hand_over() -> Deferred[None]:
            stopped.append(self.part.stopped)
            return succeed(None)

        self.daemon.all_reported, self.daemon.hand_over = lambda: reported, hand_over
        ending = self.daemon.stopService()
        self.assertEqual((self.part.stopped, stopped), (False, []))
        reported.callback(None)
        self.successResultOf(ending)
        self.assertEqual(stopped, [True])

    def test_requests_that_do_not_end(self) -> None:
        """All else does."""
        self.daemon.all_reported = Deferred
        ending = self.daemon.stopService()
        self.clock.advance(REPORTING_SECONDS)
        self.successResultOf(ending)
        self.assertTrue(self.part.stopped)


class Roomy(TestCase):
    def test_a_backlog_is_added_where_the_endpoint_takes_one(self) -> None:
        self.assertEqual(
            with_backlog("tcp:8080:interface=127.0.0.1"), f"tcp:8080:interface=127.0.0.1:backlog={BACKLOG}"
        )
        self.assertEqual(with_backlog("unix:/run/x.sock"), f"unix:/run/x.sock:backlog={BACKLOG}")
        self.assertEqual(with_backlog("tls:/etc/pems:8443"), f"tls:/etc/pems:8443:backlog={BACKLOG}")

    def test_what_was_said_stays(self) -> None:
        for endpoint in ("tcp:8080:backlog=5", "systemd:domain=INET:index=0"):
            self.assertEqual(with_backlog(endpoint), endpoint)
