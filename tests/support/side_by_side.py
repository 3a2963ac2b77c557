"""C{--processes N}: tests are collected once, then run by processes that are forked with all that was collected.

Each of them is given a file at a time, and keeps what lasts for a session, such as a daemon that many files share.
Files of different folders take turns: tests that wait for daemons leave processors to those that only compute. A test
that ends its process fails, or is repeated as often as C{--reruns} says, and another process goes on with its file.
Tests marked C{alone} run when all others have ended, by one process.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import pytest
from twisted.internet import reactor

from tests.support.forked_reactor import renew
from tests.support.processes import end_with_parent, share_server, start_server

OPTION = "--processes"
LOOK_SECONDS = 1.0  # a process that has ended may have left its end of the pipe to another
GRACE_SECONDS = 30.0  # for what lasts for a session to end

Tests = list[int]  # places in the session's items
Serialized = dict[str, Any]


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        OPTION,
        type=int,
        default=0,
        metavar="N",
        help="run files side by side in N processes, then what is marked `alone`",
    )


def begin(config: pytest.Config) -> None:
    """While tests are collected, another processor reads what their daemons need."""
    if _count(config):
        start_server()


def run(session: pytest.Session) -> bool:
    """Whether it ran all of the session's tests: without the option it runs none, nor where some could not be read."""
    count = _count(session.config)
    if not count or (session.testsfailed and not session.config.option.continue_on_collection_errors):
        return False
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # that of all processes
    side_by_side, alone = _files(session.items)
    crashes: Counter[int] = Counter()
    for files, processes in ((side_by_side, count), (alone, 1)):
        _Processes(session, files, crashes).run(processes)
    return True


def _count(config: pytest.Config) -> int:
    return 0 if config.option.collectonly else int(config.getoption(OPTION))


def _files(items: Iterable[pytest.Item]) -> tuple[deque[Tests], deque[Tests]]:
    """The tests of each file; and those that run alone."""
    parts: tuple[dict[str, Tests], dict[str, Tests]] = ({}, {})
    for place, item in enumerate(items):
        file = item.nodeid.partition("::")[0]
        parts[item.get_closest_marker("alone") is not None].setdefault(file, []).append(place)
    side_by_side, alone = parts
    folders: dict[tuple[str, ...], list[Tests]] = {}
    for file, tests in side_by_side.items():
        folders.setdefault(tuple(file.split("/")[:2]), []).append(tests)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*folders.values()))
    return deque(tests for tests in turns if tests is not None), deque(alone.values())


class _Process:
    """One of them, as the process sees it that has forked it.

    @ivar tests: Those of its file that have not ended, the one it is in first.
    """

    def __init__(self, session: pytest.Session, number: int) -> None:
        self.tests: Tests = []
        self.connection, others = Pipe()
        if (pid := os.fork()) == 0:
            self.connection.close()
            _Runner(session, others, number).run()
        others.close()
        self.pid = pid

    def give(self, tests: Tests | None) -> None:
        """It may have ended, which is noticed by whoever receives from it."""
        self.tests = tests or []
        with suppress(BrokenPipeError):
            self.connection.send(tests)

    def has_ended(self) -> bool:
        with suppress(ChildProcessError):
            return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return True

    def join(self) -> None:
        self.connection.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def kill(self) -> None:
        """With everything that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.join()


class _Processes:
    """Files are given to processes, and what these report is passed on to pytest's hooks."""

    _numbers = itertools.count()

    def __init__(self, session: pytest.Session, files: deque[Tests], crashes: Counter[int]) -> None:
        """
        @param crashes: How often each test has ended its process.
        """
        self._session = session
        self._hook = session.config.hook
        self._files = files
        self._crashes = crashes
        self._running: dict[Connection, _Process] = {}

    def run(self, count: int) -> None:
        try:
            for _ in range(min(count, len(self._files))):
                self._start()
            while self._running:
                for connection in wait(list(self._running), LOOK_SECONDS):
                    self._receive(self._running[connection])  # type: ignore[index]
                for process in self._ended():
                    self._crashed(process)
                if self._session.shouldfail:
                    raise self._session.Failed(self._session.shouldfail)
                if self._session.shouldstop:
                    raise self._session.Interrupted(self._session.shouldstop)
        finally:
            self._end()

    def _start(self) -> None:
        process = _Process(self._session, next(self._numbers))
        self._running[process.connection] = process
        process.give(self._files.popleft())

    def _ended(self) -> list[_Process]:
        """Those that have ended without a word, and left their end of the pipe to others."""
        return [each for each in self._running.values() if each.has_ended() and not each.connection.poll()]

    def _end(self) -> None:
        """Of a run that is stopped: let them end what they have started."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
        end = time.monotonic() + GRACE_SECONDS
        while not all(process.has_ended() for process in self._running.values()) and time.monotonic() < end:
            time.sleep(0.05)
        for process in self._running.values():
            process.kill()

    def _receive(self, process: _Process) -> None:
        try:
            kind, value = process.connection.recv()
        except (EOFError, ConnectionError):
            self._crashed(process)
            return
        getattr(self, f"_receive_{kind}")(process, value)

    def _receive_finished(self, process: _Process, finished: tuple[list[Serialized], list[Serialized]]) -> None:
        reports, warned = finished
        del process.tests[0]
        for report in reports:
            self._log(self._hook.pytest_report_from_serializable(config=self._session.config, data=report))
        for warning in warned:
            self._hook.pytest_warning_recorded.call_historic(kwargs=warning)

    def _receive_ready(self, process: _Process, nothing: None) -> None:
        process.give(self._files.popleft() if self._files else None)

    def _receive_ended(self, process: _Process, failure: str) -> None:
        if failure:
            self._log_end(process, failure)
        del self._running[process.connection]
        process.join()

    def _log_end(self, process: _Process, failure: str) -> None:
        """What failed when no test did."""
        place = f"process {process.pid}"
        self._log(pytest.TestReport(place, (place, None, place), {}, "failed", failure, "teardown"))

    def _crashed(self, process: _Process) -> None:
        """The rest of its file is left to a process that takes its place."""
        del self._running[process.connection]
        process.kill()
        left = process.tests
        if left:
            crashed = self._session.items[left[0]]
            self._crashes[left[0]] += 1
            crashes = self._crashes[left[0]]
            repeated = crashes <= (self._session.config.getoption("reruns", 0) or 0)
            if not repeated:
                del left[0]
            outcome: Any = "rerun" if repeated else "failed"
            said = f"The process {process.pid} that ran it ended in the middle of it."
            report = pytest.TestReport(crashed.nodeid, crashed.location, {}, outcome, said, "call", rerun=crashes - 1)
            self._log(report)
        else:
            self._log_end(process, "It ended between two files.")
        if left:
            self._files.appendleft(left)
        if self._files:
            self._start()

    def _log(self, report: pytest.TestReport) -> None:
        self._hook.pytest_runtest_logreport(report=report)


class _Runner:
    """What a forked process does: run the tests that it is given, and report."""

    def __init__(self, session: pytest.Session, connection: Connection, number: int) -> None:
        self._session = session
        self._connection = connection
        self._number = number
        self._reports: list[pytest.TestReport] = []  # of the test that runs
        self._warnings: list[Serialized] = []

    def run(self) -> NoReturn:
        status = 1
        try:
            self._prepare()
            try:
                self._run_files()
            finally:
                self._send("ended", self._end_session())
                atexit._run_exitfuncs()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _prepare(self) -> None:
        """Have nothing in common with the other processes that one of them could change."""
        os.setpgid(0, 0)
        end_with_parent()
        share_server()
        renew(reactor)
        plugins = self._session.config.pluginmanager
        capturing = plugins.getplugin("capturemanager")
        if capturing is not None and capturing.is_globally_capturing():
            capturing.stop_global_capturing()
            capturing.start_global_capturing()
            capturing.suspend_global_capture()
        folders = self._session.config._tmp_path_factory  # type: ignore[attr-defined]
        folders._basetemp = folders.mktemp(f"process{self._number}", numbered=False)
        plugins.unregister(name="terminalreporter")
        plugins.register(self)  # and be told of all warnings until now
        self._warnings.clear()

    def _run_files(self) -> None:
        items = self._session.items
        while (tests := self._connection.recv()) is not None:
            for test, following in itertools.zip_longest(tests, tests[1:]):
                # What is not of the session alone is torn down after the last test of a file.
                nextitem: Any = self._session if following is None else items[following]
                items[test].config.hook.pytest_runtest_protocol(item=items[test], nextitem=nextitem)
                self._send("finished", self._reported())
            self._send("ready", None)

    def _end_session(self) -> str:
        """What fails, if anything."""
        try:
            self._session._setupstate.teardown_exact(None)
        except Exception:
            return traceback.format_exc()
        return ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == "rerun":  # type: ignore[comparison-overlap]  # what its subtests have reported is void
            self._reports = [each for each in self._reports if not isinstance(each, pytest.SubtestReport)]
        self._session.config.hook.pytest_report_teststatus(report=report, config=self._session.config)
        self._reports.append(report)  # which has failed now if one of its subtests has

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: tuple[str, int, str] | None
    ) -> None:
        text = f"{warning_message.category.__name__}: {warning_message.message}"
        passed_on = warnings.WarningMessage(text, Warning, warning_message.filename, warning_message.lineno)
        self._warnings.append({"warning_message": passed_on, "when": when, "nodeid": nodeid, "location": location})

    def _reported(self) -> tuple[list[Serialized], list[Serialized]]:
        """By the test that has just ended."""
        config = self._session.config
        serializable = config.hook.pytest_report_to_serializable
        reported = [serializable(config=config, report=report) for report in self._reports], self._warnings
        self._reports, self._warnings = [], []
        return reported

    def _send(self, kind: str, value: object) -> None:
        self._connection.send((kind, value))
