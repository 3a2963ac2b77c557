from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.load import SettingsError
from llmproxy.process.hot_restart import START_SECONDS, HotRestart, succeed
from llmproxy.process.successor import Predecessor, Successor
from tests.unit.process.test_supervisor import FakeReactor


class ServingDaemon:
    def __init__(self, events: list[Any]) -> None:
        self.is_running = True
        self.descriptors_of_ports = {"tcp:80": 7}
        self._events = events

    def leave_sockets(self) -> None:
        self._events.append("sockets left")

    def own_sockets(self) -> None:
        self._events.append("sockets owned")


class OnePidFile:
    path = "/run/x.pid"
    problem = ""

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def leave(self) -> None:
        self._events.append("pid file left")

    def take(self, path: str) -> None:
        self._events.append(f"{path} taken")


class ServiceManager:
    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def succeeded(self) -> None:
        self._events.append("ready")

    def hand_over(self, pid: int) -> None:
        self._events.append(f"main process {pid}")


class HotRestartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Any] = []
        self.log: list[LogEvent] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)
        self.reactor = FakeReactor()
        self.pid = 100
        self.load: Callable[[], str] = lambda: ""
        self.daemon, self.pid_file = ServingDaemon(self.events), OnePidFile(self.events)
        self.restart = HotRestart(
            self.reactor,
            load=lambda: self.load(),
            arguments=["llmproxy"],
            environ={"WATCHDOG_PID": "100", "PATH": "/bin"},
            pid_file=self.pid_file,
            manager=ServiceManager(self.events),
            pid=lambda: self.pid,
            stop=lambda: self.events.append("stopped"),
        )
        self.restart.attach(self.daemon)

    def state(self) -> str:
        [check] = self.restart.health_checks()
        return check.read()

    @property
    def successor(self) -> Successor:
        successor = self.restart._successor
        assert successor is not None
        return successor

    def says(self, name: str, body: Any = None) -> None:
        self.successor.link.stringReceived(json.dumps({"do": name, "with": body}).encode())

    def assertNotRolled(self, rolled: Deferred[bool], reason: str) -> None:
        """The log says why, and the ready page, which anybody may read, that it is so."""
        self.assertFalse(self.successResultOf(rolled))
        self.assertIn(reason.rstrip("."), "".join(str(formatEvent(event)) for event in self.log))
        self.assertEqual(self.state(), "not rolled (see the log)")
        self.assertEqual((self.events, self.restart.failures), ([], 1))

    def test_in_this_order(self) -> None:
        """No other number stands in the pid file before it is ready; the drain comes last."""
        rolled = self.restart.roll()
        self.says("pid", 200)
        self.assertEqual(self.events, [])
        self.says("ready")
        self.assertTrue(self.successResultOf(rolled))
        self.assertEqual(self.events, ["sockets left", "pid file left", "main process 200", "stopped"])
        transport: Any = self.successor.link.transport
        self.assertIn(b'"take over"', transport.value())
        self.assertEqual(self.state(), "ok")

    def test_once(self) -> None:
        self.restart.roll()
        self.assertFalse(self.successResultOf(self.restart.roll()))
        self.says("ready")
        self.assertFalse(self.successResultOf(self.restart.roll()))
        self.assertEqual((self.events.count("stopped"), self.restart.failures), (1, 0))

    def test_a_successor_that_fails(self) -> None:
        """In its own words; afterwards it may be tried again."""
        rolled = self.restart.roll()
        self.says("failed", "The store is away.")
        self.successor.link.connectionLost(None)
        self.assertNotRolled(rolled, "The new process did not start: The store is away.")
        again = self.restart.roll()
        self.says("ready")
        self.assertTrue(self.successResultOf(again))
        self.assertEqual(self.state(), "ok")

    def test_a_successor_that_hangs(self) -> None:
        rolled = self.restart.roll()
        self.reactor.advance(START_SECONDS)
        self.assertNotRolled(rolled, f"It was not ready after {START_SECONDS:g} s.")

    def test_no_process_can_be_had(self) -> None:
        self.reactor.refuses = True
        self.assertNotRolled(self.restart.roll(), "Resource temporarily unavailable")

    def test_what_is_in_the_way(self) -> None:
        """It is said before anything is started."""

        def wrong() -> str:
            raise SettingsError(["x.yaml:1: no"])

        for change, reason in (
            (lambda: setattr(self, "pid", 1), "server.workers: 2"),
            (lambda: setattr(self.daemon, "is_running", False), "ends already"),
            (lambda: setattr(self.pid_file, "problem", "It cannot be written."), "It cannot be written."),
            (lambda: setattr(self, "load", wrong), "x.yaml:1: no"),
            (lambda: setattr(self, "load", lambda: "Two."), "Two."),
        ):
            self.setUp()
            change()
            self.assertNotRolled(self.restart.roll(), reason)
            self.assertIsNone(self.restart._successor)

    def test_one_that_is_told_to_end_meanwhile(self) -> None:
        rolled = self.restart.roll()
        self.daemon.is_running = False
        self.says("ready")
        self.assertNotRolled(rolled, "told to end meanwhile")


class PredecessorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Any] = []
        self.before = Predecessor(FakeReactor(), -1, {"tcp:80": 4}, "/run/x.pid")
        self.before.end = lambda: self.events.append("ended")
        manager = ServiceManager(self.events)
        succeed(self.before, ServingDaemon(self.events), OnePidFile(self.events), manager)

    def test_it_takes_over_when_it_is_told_to(self) -> None:
        self.before.succeeded()
        self.assertEqual(self.events, [])
        self.before.link.stringReceived(b'{"do":"take over","with":null}')
        self.before.link.connectionLost(None)
        self.assertEqual(self.events, ["sockets owned", "/run/x.pid taken", "ready"])

    def test_the_other_one_goes_when_this_one_is_ready(self) -> None:
        """Better this process than none."""
        self.before.succeeded()
        self.before.link.connectionLost(None)
        self.assertEqual(self.events, ["sockets owned", "/run/x.pid taken", "ready"])

    def test_the_other_one_goes_earlier(self) -> None:
        self.before.link.connectionLost(None)
        self.assertEqual(self.events, ["ended"])
