"""Every request is entered once: while all is well, while the store is away, and after a process was killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.ledger.journal import JournalSize
from llmproxy.ledger.records import Deferral, HeldBudget, LedgerLineOpening
from llmproxy.ledger.service import Ledger
from llmproxy.model import RequestRecord
from llmproxy.observability.redaction import Redactor
from llmproxy.store.errors import StartupError
from tests.support.examples import examples
from tests.unit.ledger.books import MemoryBooks, die

NOW = 1_764_000_000.0


def record(number: int, **more: Any) -> RequestRecord:
    given = {"project_id": "p", "token_id": "t", "api": "openai", "model": "gpt-4o", "input_tokens": 5, **more}
    return RequestRecord(f"r{number}", NOW, 0.5, "POST", "/v1/chat/completions", 200, "complete", **given)


class Processes:
    """Processes that follow one another, or run at the same time, on one directory and one store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.books = MemoryBooks()
        self.clock = Clock()
        self.runs = 0

    def start(self, segment: int = 4096, most: int = 1 << 20, **more: Any) -> Ledger:
        self.runs += 1

        def in_thread(work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
            return maybeDeferred(work, *arguments)

        return Ledger(
            self.books,
            self.directory,
            self.clock,
            lambda: NOW,
            in_thread,
            run=f"run{self.runs}",
            journal_size=JournalSize(segment, most),
            **more,
        )

    def kill(self, ledger: Ledger) -> None:
        """As C{kill -9} leaves it: the lock is gone, the files are as they are, nothing else happens."""
        if ledger._timer is not None and ledger._timer.active():
            ledger._timer.cancel()
        ledger._running = False
        die(ledger._journal)


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = Processes(Path(self.mktemp()))
        self.books, self.clock = self.world.books, self.world.clock
        self.number = 0

    def started(self, **more: Any) -> Ledger:
        ledger = self.world.start(**more)
        self.successResultOf(ledger.open())
        ledger.startService()
        return ledger

    def reserve(self, ledger: Ledger, given: int = 30) -> tuple[str, int]:
        self.number += 1
        number = self.number
        reserved = ledger.open_line(
            LedgerLineOpening("", NOW, f"r{number}", "p", "t", "openai", "/v1/*", "gpt-4o", 120, given)
        )
        return reserved, number

    def asked(self, ledger: Ledger, many: int = 1) -> None:
        for _ in range(many):
            reserved, number = self.reserve(ledger)
            ledger.settle(reserved, record(number, basis="exact"))

    def written_lines(self) -> list[str]:
        return [line.request_id for line in self.books.lines]

    def test_entered_within_an_interval(self) -> None:
        """A line is in the store a second later, as the record has it."""
        ledger = self.started()
        self.asked(ledger)
        self.assertEqual(self.written_lines(), [])
        self.clock.advance(1)
        (line,) = self.books.lines
        self.assertEqual(
            (line.request_id, line.project_id, line.outcome, line.input_tokens, line.at, line.status),
            ("r1", "p", "exact", 5, NOW, 200),
        )
        self.assertEqual((ledger.written_lines, ledger.open_lines, ledger.state), (1, 0, "ok"))

    def test_flushed_after_its_end(self) -> None:
        """Another worker may ask for that while this process ends, with requests in flight or without."""
        for in_flight in (False, True):
            ledger = self.started()
            if in_flight:
                self.reserve(ledger)
            self.successResultOf(ledger.stopService())
            self.successResultOf(ledger.flush())
            self.assertEqual((ledger.damaged_places, ledger.state), (0, "ok"))

    def test_outcomes(self) -> None:
        """What the books call an end."""
        ledger = self.started()
        for more in (
            {"basis": "exact"},
            {"basis": "none"},
            {"basis": "estimated"},
            {"cache": "hit"},
            {"cache": "stale"},
            {"outcome": "cancelled", "basis": "estimated"},
            {"outcome": "truncated"},
            {"outcome": "refused"},
            {"outcome": "failed"},
            {"status": 429},
        ):
            ledger.settle("", record(1)._replace(**more))
        self.successResultOf(ledger.flush())
        told = [line.outcome for line in self.books.lines]
        self.assertEqual(told[:7], ["exact", "exact", "estimated", "cached", "cached", "cancelled", "truncated"])
        self.assertEqual(told[7:], ["failed"] * 3)
        self.assertEqual(len({line.id for line in self.books.lines}), 10)

    def test_secrets(self) -> None:
        """What a client may have put into a name is masked before it is written anywhere."""

        ledger = self.started(secrets=Redactor(["secret"]))
        ledger.settle("", record(1, model="a secret"))
        ledger.open_line(LedgerLineOpening("", NOW, "r2 secret", "p", "t", "openai", "/", "a secret", 1, 1))
        self.assertNotIn(b"secret", b"".join(file.read_bytes() for file in self.world.directory.rglob("*.segment")))
        self.world.kill(ledger)
        self.started()
        self.clock.advance(1)
        self.assertEqual([line.model for line in self.books.lines], ["a [redacted]", "a [redacted]"])

    def test_more_than_a_segment_holds(self) -> None:
        """Segments follow one another, and those that were entered are removed."""
        ledger = self.started()
        for _ in range(30):
            self.asked(ledger, 5)
            self.clock.advance(1)
        self.assertEqual(self.written_lines(), [f"r{n}" for n in range(1, 151)])
        self.assertEqual((ledger.lost_records, ledger.state), (0, "ok"))
        self.assertLessEqual(len(list((self.world.directory / "run1").glob("*.segment"))), 3)

    def test_a_long_stream_holds_nobody_up(self) -> None:
        """What is under way for long moves on to newer segments, so that old ones can go; and is still found."""
        ledger = self.started()
        reserved, number = self.reserve(ledger)
        for _ in range(30):
            self.asked(ledger, 5)
            self.clock.advance(1)
        self.assertLessEqual(len(list((self.world.directory / "run1").glob("*.segment"))), 3)
        self.world.kill(ledger)
        self.started()
        self.clock.advance(1)
        self.assertEqual(self.written_lines().count(f"r{number}"), 1)
        self.assertEqual([line.outcome for line in self.books.lines if line.id == reserved], ["truncated"])

    def test_the_store_is_away(self) -> None:
        """Requests go on; all of it is entered when the store is back."""
        ledger = self.started()
        self.books.down = True
        for _ in range(5):
            self.asked(ledger, 5)
            self.clock.advance(1)
        self.assertEqual((self.written_lines(), ledger.state), ([], "ok"))
        self.books.down = False
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), [f"r{n}" for n in range(1, 26)])

    def test_the_store_refuses_what_it_is_told(self) -> None:
        """That is not kept from operators; once it takes it, all is entered."""
        ledger = self.started()
        self.books.refused = {"run1"}
        self.asked(ledger, 3)
        self.clock.advance(1)
        self.assertEqual((self.written_lines(), ledger.state), ([], "refused"))
        self.books.refused.clear()
        self.clock.advance(1)
        self.assertEqual((self.written_lines(), ledger.state), (["r1", "r2", "r3"], "ok"))

    def test_the_store_does_not_say_that_it_did(self) -> None:
        """An answer that was lost on its way is no reason to enter anything twice."""
        ledger = self.started()
        self.books.deaf = True
        self.asked(ledger, 3)
        self.clock.advance(1)
        self.books.deaf = False
        self.asked(ledger, 2)
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), ["r1", "r2", "r3", "r4", "r5"])

    def test_the_store_is_away_for_too_long(self) -> None:
        """The journal has an end; what is lost is counted, and said before it happens."""
        ledger = self.started(most=4 * 4096)
        self.books.down = True
        states = set()
        for _ in range(20):
            self.asked(ledger, 5)
            self.clock.advance(1)
            states.add((ledger.state, ledger.lost_records > 0))
        self.assertIn(("journal_full", False), states)
        self.assertEqual(ledger.state, "journal_full")
        self.assertLessEqual(ledger.journal_bytes, 4 * 4096)
        self.books.down = False
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(ledger.state, "ok")
        kept = self.written_lines()
        self.assertEqual(len(kept), len(set(kept)))
        self.asked(ledger)
        self.clock.advance(1)
        self.assertEqual(self.written_lines()[-1], "r101")

    def test_the_disk_is_full(self) -> None:
        """Said at once, and over as soon as there is room."""
        ledger = self.started()
        ledger._journal._room = JournalSize(2**56, 2**60)
        while not ledger._journal.needs_spare:
            self.asked(ledger)
        self.clock.advance(1)
        self.assertEqual(ledger.state, "disk_full")
        ledger._journal._room = JournalSize(4096, 1 << 20)
        self.clock.advance(1)
        self.assertEqual((ledger.state, ledger.lost_records), ("ok", 0))

    def test_no_room_for_any_journal(self) -> None:
        """A daemon that could keep no ledger does not start."""
        ledger = self.world.start(segment=2**56)
        failure = self.failureResultOf(ledger.open(), StartupError)
        self.assertIn(str(self.world.directory), str(failure.value))

    def test_killed(self) -> None:
        """The next process enters what was settled, and what never was, as broken off; once."""
        first = self.started()
        self.asked(first, 3)
        self.successResultOf(first.flush())
        self.asked(first, 2)
        lost, number = self.reserve(first)
        self.reserve(first, given=0)
        self.world.kill(first)
        second = self.started(price=lambda reservation: reservation.estimated_input_tokens / 1000)
        self.asked(second)
        self.clock.advance(1)
        self.assertEqual(sorted(self.written_lines()), [f"r{n}" for n in range(1, 9)])
        (line,) = (line for line in self.books.lines if line.id == lost)
        self.assertEqual(
            (line.outcome, line.error, line.basis, line.input_tokens, line.cost_usd, line.bytes_in, line.request_id),
            ("truncated", "process_ended", "estimated", 30, 0.03, 120, f"r{number}"),
        )
        self.assertEqual((second.recovered_lines, second.written_lines), (4, 5))
        self.assertEqual(os.listdir(self.world.directory), ["run2"])
        self.assertEqual(list(self.books.places), ["run2"])

    def test_uses_of_tokens(self) -> None:
        """Counted when they are let go, once, whatever happens later: those that were not sent are taken back."""
        first = self.started()
        held = first.open_line(LedgerLineOpening("", NOW, "r1", "p", "t", "a", "/", "m", 8, 2, 1))
        first.settle(
            first.open_line(LedgerLineOpening("", NOW, "r2", "p", "t", "a", "/", "m", 8, 2, 1)), record(2), sent=False
        )
        first.settle(
            first.open_line(LedgerLineOpening("", NOW, "r3", "p", "limited", "a", "/", "m", 8, 2, 0)),
            record(3, token_id="limited"),
        )
        for cache in ("hit", "stale", "revalidated"):  # of which the last two have made a call
            first.settle("", record(4, cache=cache))
        self.clock.advance(1)
        self.assertEqual((dict(self.books.uses), dict(self.books.hits)), ({"t": 1}, {"t": 1}))
        for _ in range(30):
            self.asked(first, 5)
            self.clock.advance(1)
        self.assertGreater(first._writer._open[held].segment, 1)  # it was written again, into a newer segment
        first.open_line(LedgerLineOpening("", NOW, "r5", "p", "t", "a", "/", "m", 8, 2, 1))
        self.world.kill(first)
        self.started()
        self.clock.advance(1)
        self.assertEqual((dict(self.books.uses), dict(self.books.hits)), ({"t": 2}, {"t": 1}))

    def test_results_that_are_told_later(self) -> None:
        """Kept through a kill, collected once, and the line of who fetched them has what they used."""
        first = self.started()
        held = (HeldBudget("usd:day", "usd", 5, 1.0),)
        asked, _ = self.reserve(first)
        first.settle(asked, record(1, basis="pending"), deferral=Deferral("resp", held))
        self.world.kill(first)
        second = self.started()
        self.clock.advance(1)
        (line,) = self.books.lines
        self.assertEqual((line.outcome, line.cost_usd), ("pending", None))
        results = self.successResultOf(second.pending("p", "openai", "resp"))
        self.assertEqual([(each.ledger_id, each.held) for each in results], [(asked, held)])
        fetching, _ = self.reserve(second)
        used = record(2, basis="exact", cost_usd=0.5, token_id="another")
        self.assertEqual(self.successResultOf(second.collect(results, fetching, used)), {})
        self.assertEqual(second.open_lines, 0)
        self.assertIsNone(self.successResultOf(second.collect(results, "", used)))
        self.world.kill(second)
        self.started()
        self.clock.advance(1)
        self.assertEqual([each.id for each in self.books.lines], [asked, f"{asked}-result"])
        self.assertEqual((self.books.lines[1].cost_usd, self.books.lines[1].token_id), (0.5, "t"))

    def test_killed_with_what_was_announced(self) -> None:
        """What an answer announced is kept before its client knows, also for long streams that go on meanwhile."""
        first = self.started()
        asked, _ = self.reserve(first)
        first.announce(asked, Deferral("resp"))
        first.announce("nobody", Deferral("other"))
        for _ in range(30):
            self.asked(first, 5)
            self.clock.advance(1)
        self.assertGreater(first._writer._open[asked].segment, 1)
        self.world.kill(first)
        self.started()
        self.clock.advance(1)
        (line,) = (each for each in self.books.lines if each.id == asked)
        told = (line.outcome, line.basis, line.error, line.input_tokens, line.cost_usd)
        self.assertEqual(told, ("truncated", "pending", "process_ended", 0, None))
        self.assertEqual([each.ledger_id for each in self.books.results], [asked])

    def test_a_result_that_is_fetched_at_once(self) -> None:
        """It is known although its line is not entered yet."""
        ledger = self.started()
        asked, _ = self.reserve(ledger)
        ledger.settle(asked, record(1, basis="pending"), deferral=Deferral("resp"))
        self.assertEqual(len(self.successResultOf(ledger.pending("p", "openai", "resp"))), 1)
        self.assertEqual(ledger._writer._announced, {})

    def test_killed_again_while_recovering(self) -> None:
        """A process that is killed before it has removed what it entered: the third enters nothing twice."""
        first = self.started()
        self.asked(first, 3)
        self.reserve(first)
        self.world.kill(first)
        self.books.deaf = True
        second = self.started()
        self.clock.advance(1)
        self.assertEqual(len(self.written_lines()), 3)
        self.world.kill(second)
        self.books.deaf = False
        self.started()
        self.clock.advance(1)
        self.assertEqual(sorted(self.written_lines()), ["r1", "r2", "r3", "r4"])
        self.assertEqual(os.listdir(self.world.directory), ["run3"])

    def test_a_neighbour(self) -> None:
        """A process that lives keeps its journal; when it is killed, another enters it within a minute."""
        first, _ = self.started(), self.started()
        self.books.down = True
        self.asked(first, 3)
        self.clock.advance(1)
        self.books.down = False
        self.world.kill(first)
        self.clock.pump([1] * 61)
        self.assertEqual(self.written_lines(), ["r1", "r2", "r3"])

    def test_neighbours_of_whom_the_store_refuses_one(self) -> None:
        """It keeps none of the others back."""
        dead = [self.started() for _ in range(3)]
        self.books.down = True
        for each in dead:
            self.asked(each)
            self.clock.advance(1)
        self.books.down = False
        for each in dead:
            self.world.kill(each)
        self.books.refused = {"run1", "run2"}
        last = self.started()
        self.clock.pump([1] * 61)
        self.assertEqual((self.written_lines(), last.state), (["r3"], "refused"))

    def test_stopped_in_good_order(self) -> None:
        """All is entered, and nothing stays on the disk."""
        ledger = self.started()
        self.asked(ledger, 3)
        self.successResultOf(ledger.stopService())
        self.assertEqual(len(self.written_lines()), 3)
        self.assertEqual((os.listdir(self.world.directory), self.books.places), ([], {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_without_a_store(self) -> None:
        """What could not be entered is there for the next start."""
        ledger = self.started()
        self.asked(ledger, 3)
        self.books.down = True
        self.successResultOf(ledger.stopService())
        self.books.down = False
        self.started()
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), ["r1", "r2", "r3"])

    def test_a_broken_neighbour(self) -> None:
        """What is no journal, or was killed while it was made, is left alone or removed."""
        (self.world.directory / "other").mkdir(parents=True)
        first = self.started()
        self.world.kill(first)
        (self.world.directory / "run1" / "00000001.segment").write_bytes(b"LL")
        (self.world.directory / "run1" / "notes.segment").write_bytes(b"x" * 100)
        self.started()
        self.clock.advance(1)
        self.assertEqual(sorted(os.listdir(self.world.directory)), ["other", "run2"])

    def damage(self, run: str = "run1") -> None:
        """One bit of the record of the second request in a journal's first segment."""
        path = self.world.directory / run / "00000001.segment"
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"r2") + 1] ^= 1
        path.write_bytes(raw)

    def test_a_bad_byte(self) -> None:
        """One line is lost, all others are entered; it is said, counted, and the file is kept."""
        first = self.started()
        for number in range(1, 6):
            first.settle("", record(number))
        self.world.kill(first)
        self.damage()
        second = self.started()
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), ["r1", "r3", "r4", "r5"])
        self.assertEqual((second.damaged_places, second.files, second.recovered_lines), (1, "damaged", 4))
        kept = self.world.directory / "run1-00000001.damaged"
        self.assertTrue(kept.exists())
        self.clock.advance(61)
        self.assertEqual((second.files, second.damaged_places), ("damaged", 1))
        kept.unlink()
        self.clock.advance(61)
        self.assertEqual(second.files, "ok")
        self.flushLoggedErrors()

    def test_a_bad_byte_while_it_lives(self) -> None:
        """The lines behind it are entered all the same, and it goes on."""
        ledger = self.started()
        for number in range(1, 6):
            ledger.settle("", record(number))
        self.damage()
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), ["r1", "r3", "r4", "r5"])
        self.assertEqual((ledger.damaged_places, ledger.files), (1, "damaged"))
        self.asked(ledger, 40)  # into the next segment
        self.clock.advance(1)
        self.assertEqual((len(self.written_lines()), ledger.damaged_places), (44, 1))
        self.assertTrue((self.world.directory / "run1-00000001.damaged").exists())

    def test_a_truncated_file(self) -> None:
        """What is under way is written again elsewhere; what was not entered yet is lost, and that is said."""
        ledger = self.started()
        held, _ = self.reserve(ledger)
        self.asked(ledger, 2)
        self.clock.advance(1)
        self.asked(ledger, 1)
        os.truncate(self.world.directory / "run1" / "00000001.segment", 60)
        self.asked(ledger, 1)
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), ["r2", "r3", "r5"])
        self.assertGreaterEqual(ledger.damaged_places, 1)
        self.asked(ledger, 1)
        self.world.kill(ledger)
        self.started()
        self.clock.advance(1)
        self.assertEqual(sorted(self.written_lines()), ["r1", "r2", "r3", "r5", "r6"])
        self.assertEqual([line.error for line in self.books.lines if line.id == held], ["process_ended"])

    def test_the_directory_is_removed(self) -> None:
        """The files are gone, and what is in them is entered; then it goes on in new ones."""
        ledger = self.started()
        self.asked(ledger, 2)
        shutil.rmtree(self.world.directory / "run1")
        self.asked(ledger, 1)
        self.clock.advance(1)
        self.asked(ledger, 1)
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), ["r1", "r2", "r3", "r4"])
        self.assertTrue(list((self.world.directory / "run1").glob("*.segment")))

    def test_older_files_are_removed_while_the_store_is_away(self) -> None:
        """That is said once of each and counted; no further file is made for it. What they had is entered all the same,
        and what was in flight in them is known to whoever comes after a kill."""
        ledger = self.started()
        self.books.down = True
        held, _ = self.reserve(ledger)
        while len(ledger._journal.segments) < 3:
            self.asked(ledger)
            self.clock.advance(1)
        directory = self.world.directory / "run1"
        before, damaged = {path.name: path.stat().st_ino for path in directory.glob("*.segment")}, ledger.damaged_places
        for name in ("00000001.segment", "00000002.segment"):
            (directory / name).unlink()
            del before[name]
        self.clock.pump([1] * 5)
        self.assertEqual({path.name: path.stat().st_ino for path in directory.glob("*.segment")}, before)
        self.assertEqual((ledger.damaged_places - damaged, ledger.state), (2, "ok"))
        self.books.down = False
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), [f"r{number}" for number in range(2, self.number + 1)])
        self.world.kill(ledger)
        self.started()
        self.clock.advance(1)
        self.assertEqual([line.error for line in self.books.lines if line.id == held], ["process_ended"])

    def test_the_live_file_is_removed_while_the_store_is_away(self) -> None:
        """It goes on in another one, and in no further ones while the lines of the first wait for the store."""
        ledger = self.started()
        self.books.down = True
        self.asked(ledger)
        directory = self.world.directory / "run1"
        (directory / "00000001.segment").unlink()
        self.clock.advance(1)
        self.asked(ledger)
        before = {path.name: path.stat().st_ino for path in directory.glob("*.segment")}
        self.clock.pump([1] * 5)
        self.assertEqual({path.name: path.stat().st_ino for path in directory.glob("*.segment")}, before)
        self.assertEqual(ledger.damaged_places, 1)
        self.books.down = False
        self.clock.advance(1)
        self.assertEqual(self.written_lines(), ["r1", "r2"])

    def test_old_lines_and_sums(self) -> None:
        """They are put away once an hour, in parts, until there are none."""
        self.started(keep_lines=86400.0, keep_days=10 * 86400.0)
        self.clock.advance(1)
        self.assertEqual(self.books.folds, [(NOW - 86400, "2025-11-14")] * 2)
        self.clock.pump([60] * 61)
        self.assertEqual(len(self.books.folds), 3)


class Lives(RuleBasedStateMachine):
    """Requests, flushes, outages and kills in any order."""

    directory: Path
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        Lives.runs += 1
        self.world = Processes(self.directory / str(Lives.runs))
        self.ledger: Ledger
        self.open: list[tuple[str, int]] = []
        self.number = 0
        self._start()

    def _start(self) -> None:
        self.ledger = self.world.start(segment=2048)
        self.ledger.open()
        self.ledger.startService()

    @rule()
    def reserve(self) -> None:
        self.number += 1
        line = self.ledger.open_line(LedgerLineOpening("", NOW, f"r{self.number}", "p", "t", "a", "/", "m", 8, 2, 1))
        self.open.append((line, self.number))

    @rule()
    def settle(self) -> None:
        if self.open:
            line, number = self.open.pop(0)
            self.ledger.settle(line, record(number))

    @rule()
    def time(self) -> None:
        self.world.clock.advance(1)

    @rule()
    def outage(self) -> None:
        self.world.books.down = not self.world.books.down

    @rule()
    def silence(self) -> None:
        self.world.books.deaf = not self.world.books.deaf

    @rule()
    def kill(self) -> None:
        self.world.kill(self.ledger)
        self.open.clear()
        self._start()

    @invariant()
    def never_twice(self) -> None:
        ids = [line.id for line in self.world.books.lines]
        assert len(ids) == len(set(ids))

    def teardown(self) -> None:
        self.world.books.down = self.world.books.deaf = False
        for line, number in self.open:
            self.ledger.settle(line, record(number))
        self.world.clock.pump([61] * 3)
        entered = sorted(int(line.request_id[1:]) for line in self.world.books.lines)
        assert entered == [*range(1, self.number + 1)]
        assert self.ledger.lost_records == 0
        assert self.world.books.uses["t"] == self.number
        self.world.kill(self.ledger)


class AnyOrderTests(SynchronousTestCase):
    def test_any_order(self) -> None:
        """Whatever happens in whatever order: each request has one line in the end."""
        Lives.directory = Path(self.mktemp())
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Lives, settings=settings(examples(60), stateful_step_count=40)
        )
