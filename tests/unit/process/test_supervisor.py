from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.peers import PeerAnswer
from llmproxy.process.coordinated_reload import CoordinatedReload
from llmproxy.process.supervisor import START_SECONDS, Supervisor, SupervisorTerms
from llmproxy.process.worker_process import WorkerProcess


class FakeProcess:
    """A process as Twisted shows it; it does what the test says."""

    pid = 4711

    def __init__(self) -> None:
        self.signals: list[str] = []

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)


class FakeReactor(MemoryReactorClock):
    """Starts no process, and stops when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.stopped = False

    def spawnProcess(self, protocol: Any, *command: Any, **more: Any) -> FakeProcess:
        if self.refuses:
            raise OSError(11, "Resource temporarily unavailable")
        protocol.transport = FakeProcess()
        return protocol.transport  # type: ignore[no-any-return]

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        factory.buildProtocol(None).makeConnection(StringTransport())

    def stop(self) -> None:
        self.stopped = True


class StartObserver:
    def __init__(self) -> None:
        self.outcome = ""

    def begin(self) -> None:
        self.outcome = "begun"

    def succeeded(self) -> None:
        self.outcome = "succeeded"

    def failed(self, sentence: str) -> None:
        self.outcome = sentence


def heard(worker: WorkerProcess) -> list[dict[str, Any]]:
    """What the worker was told since it was last looked."""
    transport: Any = worker.link.transport
    data, found = transport.value(), []
    transport.clear()
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(json.loads(data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def says(worker: WorkerProcess, **message: Any) -> None:
    worker.link.stringReceived(json.dumps(message).encode())


def ends(worker: WorkerProcess, status: int | None = 0, signal: int | None = None) -> None:
    reason = ProcessDone(0) if status == 0 and signal is None else ProcessTerminated(status, signal)
    worker.processEnded(Failure(reason))


class SupervisorCase(SynchronousTestCase):
    workers = 2

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.terms = SupervisorTerms(self.workers, [], 600.0)
        self.wrong = ""
        self.supervisor = Supervisor(self.reactor, self.read, ["llmproxy"], {}, observer=lambda event: None)
        self.observer = StartObserver()
        self.supervisor.start_observer = self.observer

    def read(self) -> SupervisorTerms:
        if self.wrong:
            raise ValueError(self.wrong)
        return self.terms

    def begin(self) -> None:
        """All are ready."""
        self.supervisor.startService()
        for _ in range(self.workers):
            self.ready_all()

    def ready_all(self) -> None:
        for worker in list(self.supervisor.workers):
            if worker.state == "starting":
                says(worker, do="ready", **{"with": None})

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(worker.name, worker.state) for worker in self.supervisor.workers]


class StartTests(SupervisorCase):
    def test_the_first_one_makes_what_all_need(self) -> None:
        """The others are started when it is ready; it has started when all are."""
        self.supervisor.startService()
        self.assertEqual(self.states, [("1.1", "starting")])
        self.ready_all()
        self.assertEqual((self.states, self.observer.outcome), ([("1.1", "ready"), ("2.2", "starting")], "begun"))
        self.ready_all()
        self.assertEqual((self.supervisor.serving, self.observer.outcome), (2, "succeeded"))

    def test_a_first_one_that_fails(self) -> None:
        """Its own words are the reason."""
        self.patch_exit()
        self.supervisor.startService()
        says(self.supervisor.workers[0], do="failed", **{"with": "It cannot listen."})
        ends(self.supervisor.workers[0], 1)
        self.assertEqual(self.observer.outcome, "It cannot listen.")
        self.flushLoggedErrors()

    def test_a_second_one_that_fails(self) -> None:
        """It is tried again; the daemon has started."""
        self.supervisor.startService()
        self.ready_all()
        ends(self.supervisor.workers[1], 1)
        self.assertEqual((self.observer.outcome, self.states), ("succeeded", [("1.1", "ready")]))
        self.reactor.advance(0.25)
        self.assertEqual(self.states, [("1.1", "ready"), ("2.3", "starting")])

    def patch_exit(self) -> None:
        self.patch(__import__("atexit"), "register", lambda *work: None)  # it would end the tests' process with 1


class DeathTests(SupervisorCase):
    def test_one_that_lived_is_replaced_at_once(self) -> None:
        self.begin()
        self.reactor.advance(60)
        ends(self.supervisor.workers[0], None, 9)
        self.reactor.advance(0)
        self.assertEqual((self.states, self.supervisor.restarts), ([("2.2", "ready"), ("1.3", "starting")], 1))

    def test_pauses_double(self) -> None:
        """As long as it dies young, up to half a minute."""
        self.begin()
        pauses = []
        for _ in range(10):
            ends(next(each for each in self.supervisor.workers if each.number == 1), 1)
            [timer] = [call for call in self.reactor.getDelayedCalls() if call.func == self.supervisor._restart]
            pauses.append(timer.getTime() - self.reactor.seconds())
            self.reactor.advance(pauses[-1])
            self.ready_all()
        self.assertEqual(pauses, [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30])

    def test_no_process_can_be_had(self) -> None:
        self.begin()
        self.reactor.refuses = True
        ends(self.supervisor.workers[0], 1)
        self.reactor.advance(0.25)
        self.assertEqual(self.states, [("2.2", "ready")])
        self.reactor.refuses = False
        self.reactor.advance(30)
        self.assertEqual(self.states, [("2.2", "ready"), ("1.4", "starting")])


class RollTests(SupervisorCase):
    def test_one_by_one(self) -> None:
        """An old one drains when its successor is ready, and knows that others go on where it listens."""
        self.begin()
        old = list(self.supervisor.workers)
        rolled = self.supervisor.roll()
        self.assertEqual(self.states, [("1.1", "ready"), ("2.2", "ready"), ("1.3", "starting")])
        self.ready_all()
        self.assertEqual(self.states, [("1.1", "draining"), ("2.2", "ready"), ("1.3", "ready"), ("2.4", "starting")])
        self.assertIn({"do": "drain", "with": True}, heard(old[0]))
        self.ready_all()
        self.assertTrue(self.successResultOf(rolled))
        for worker in old:
            ends(worker)
        self.assertEqual((self.states, self.supervisor.restarts), ([("1.3", "ready"), ("2.4", "ready")], 0))

    def test_fewer(self) -> None:
        self.begin()
        self.terms = SupervisorTerms(1, [])
        rolled = self.supervisor.roll()
        self.ready_all()
        self.assertTrue(self.successResultOf(rolled))
        self.assertEqual(self.states, [("1.1", "draining"), ("2.2", "draining"), ("1.3", "ready")])

    def test_settings_that_are_wrong(self) -> None:
        self.begin()
        self.wrong = "x is no setting"
        self.assertFalse(self.successResultOf(self.supervisor.roll()))
        self.assertEqual(self.states, [("1.1", "ready"), ("2.2", "ready")])
        self.assertEqual(self.supervisor.problem, "not rolled: none was replaced (see the log)")
        self.assertEqual(self.supervisor.roll_failures, 1)

    def test_a_new_one_that_fails(self) -> None:
        self.begin()
        rolled = self.supervisor.roll()
        says(self.supervisor.workers[2], do="failed", **{"with": "The store is away."})
        ends(self.supervisor.workers[2], 1)
        self.assertFalse(self.successResultOf(rolled))
        self.assertEqual(self.states, [("1.1", "ready"), ("2.2", "ready")])
        self.assertEqual(self.supervisor.problem, "not rolled: worker 1 did not start (see the log)")

    def test_a_new_one_that_hangs(self) -> None:
        """It is killed, and the old ones go on."""
        self.begin()
        rolled = self.supervisor.roll()
        self.reactor.advance(START_SECONDS)
        self.assertFalse(self.successResultOf(rolled))
        transport: Any = self.supervisor.workers[2].transport
        self.assertEqual(transport.signals, ["KILL"])

    def test_two_at_once(self) -> None:
        """One after the other."""
        self.begin()
        first, second = self.supervisor.roll(), self.supervisor.roll()
        for _ in range(2):
            self.ready_all()
        self.assertTrue(self.successResultOf(first))
        self.assertNoResult(second)
        for _ in range(2):
            self.ready_all()
        self.assertTrue(self.successResultOf(second))


class LeaderTests(SupervisorCase):
    """One worker does what one does for all, such as probes."""

    workers = 3

    def setUp(self) -> None:
        super().setUp()
        self.told: dict[str, list[bool]] = {}
        self.begin()

    def leaders(self) -> list[str]:
        """Those that have been told to, and not yet that another one does."""
        for worker in self.supervisor.workers:
            orders = [each["with"] for each in heard(worker) if each["do"] == "lead"]
            self.told.setdefault(worker.name, []).extend(orders)
        there = {worker.name for worker in self.supervisor.workers}
        return [name for name, orders in self.told.items() if orders and orders[-1] and name in there]

    def test_the_first(self) -> None:
        self.assertEqual(self.leaders(), ["1.1"])

    def test_one_that_dies(self) -> None:
        """The next one leads at once, and the first place again once somebody is ready there."""
        ends(self.supervisor.workers[0], None, 9)
        self.assertEqual(self.leaders(), ["2.2"])
        self.reactor.advance(0.25)
        self.assertEqual(self.leaders(), ["2.2"])
        self.ready_all()
        self.assertEqual(self.leaders(), ["1.4"])

    def test_another_one_that_dies(self) -> None:
        ends(self.supervisor.workers[1], None, 9)
        self.reactor.advance(0.25)
        self.ready_all()
        self.assertEqual((self.leaders(), self.told["1.1"]), (["1.1"], [True]))

    def test_all_are_replaced(self) -> None:
        self.supervisor.roll()
        self.ready_all()
        self.assertEqual(self.leaders(), ["1.4"])
        ends(self.supervisor.workers[0])
        self.ready_all()
        self.assertEqual((self.leaders(), self.told["1.4"]), (["1.4"], [True]))


class EndTests(SupervisorCase):
    def test_a_drain(self) -> None:
        self.begin()
        stopped = self.supervisor.stopService()
        self.assertEqual(self.states, [("1.1", "draining"), ("2.2", "draining")])
        self.assertIn({"do": "drain", "with": False}, heard(self.supervisor.workers[0]))
        for worker in list(self.supervisor.workers):
            self.assertNoResult(stopped)
            ends(worker)
        self.successResultOf(stopped)
        self.assertEqual(self.supervisor.restarts, 0)

    def test_one_that_does_not_end(self) -> None:
        """Is killed after the time that requests have, and a little more."""
        self.begin()
        transports: list[Any] = [worker.transport for worker in self.supervisor.workers]
        stopped = self.supervisor.stopService()
        self.reactor.advance(600 + 25)
        self.assertEqual([each.signals for each in transports], [["KILL"], ["KILL"]])
        self.successResultOf(stopped)


class ReloadTests(SupervisorCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.reload = CoordinatedReload(self.reactor, self.supervisor)
        for worker in self.supervisor.workers:
            heard(worker)

    def answer(self, *answers: dict[str, Any]) -> list[list[str]]:
        """Each worker answers its last question; what each has been asked for."""
        asked = [heard(worker) for worker in self.supervisor.workers]
        for worker, questions, answer in zip(self.supervisor.workers, asked, answers, strict=False):
            for question in questions:
                if "id" in question:
                    says(worker, re=question["id"], ok=answer)
        return [[question["do"] for question in questions] for questions in asked]

    def prepared(self, problem: str = "", digest: str = "a", pending: tuple[str, ...] = ()) -> dict[str, Any]:
        return {"problem": problem, "digest": digest, "changed": ["apis.a"], "pending": list(pending)}

    def test_all_follow(self) -> None:
        done = self.reload.reload()
        self.assertEqual(self.answer(self.prepared(), self.prepared()), [["reload.prepare"]] * 2)
        self.assertEqual(self.answer({}, {}), [["reload.commit"]] * 2)
        found = self.successResultOf(done)
        self.assertEqual((found["problem"], found["changed"], found["rolling"]), ("", ["apis.a"], []))

    def test_one_cannot(self) -> None:
        """Then none does."""
        done = self.reload.reload()
        self.answer(self.prepared(), self.prepared("x is wrong"))
        self.assertEqual(self.answer({}, {}), [["reload.abandon"]] * 2)
        problem = "Nothing was changed in any worker. worker 2: x is wrong"
        self.assertEqual(self.successResultOf(done), {"problem": problem})

    def test_a_file_that_is_being_written(self) -> None:
        done = self.reload.reload()
        self.answer(self.prepared(digest="a"), self.prepared(digest="b"))
        self.answer({}, {})
        self.assertIn("were being written", self.successResultOf(done)["problem"])

    def test_what_needs_new_processes(self) -> None:
        """The workers are rolled afterwards."""
        done = self.reload.reload()
        self.answer(self.prepared(pending=("server.workers",)), self.prepared(pending=("server.workers",)))
        self.answer({}, {})
        self.assertEqual(self.successResultOf(done)["rolling"], ["server.workers"])
        self.assertEqual(self.states[-1], ("1.3", "starting"))

    def test_one_that_starts_meanwhile(self) -> None:
        """It may have read the file before: it reloads when it is ready."""
        ends(self.supervisor.workers[1], None, 9)
        self.reactor.advance(0.25)
        done = self.reload.reload()
        self.answer(self.prepared())
        self.answer({})
        found = self.successResultOf(done)
        self.assertEqual(found["workers"][1], {"worker": 2, "result": "starting: it reads the settings when it starts"})
        self.ready_all()
        self.assertIn("reload.prepare", [each["do"] for each in heard(self.supervisor.workers[1])])


class QuestionTests(SupervisorCase):
    def test_of_each_place(self) -> None:
        self.begin()
        asked = self.supervisor.ask_each("ready", seconds=3.0)
        [question] = [each for each in heard(self.supervisor.workers[0]) if each["do"] == "ready"]
        says(self.supervisor.workers[0], re=question["id"], ok=[{}, {}])
        self.assertNoResult(asked)
        self.reactor.advance(3.0)
        expected = [PeerAnswer(1, [{}, {}]), PeerAnswer(2, None, "No answer came in time.")]
        self.assertEqual(self.successResultOf(asked), expected)
