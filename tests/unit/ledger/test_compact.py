"""Short records say what the long ones do, and both can stand in one journal."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.brief_record import RecordKinds, parts_of
from llmproxy.ledger import compact, records
from llmproxy.ledger.batches import next_batch
from llmproxy.ledger.compact import KindsOfJournal, LineKind
from llmproxy.ledger.journal import FIRST_OFFSET, Journal, JournalSize, open_orphan
from llmproxy.ledger.journal_damage import JournalDamage
from llmproxy.ledger.kinds import COPY_INTERVAL_BYTES, MAX_KINDS, MAX_SEEN_ONCE, AlikeOpenings, JournalKinds
from llmproxy.ledger.line_rows import LineRows
from llmproxy.ledger.masking import Masking, NothingMasked
from llmproxy.ledger.records import Deferral, FinishedRequest, LedgerLineOpening, Settlement
from llmproxy.ledger.writer import JournalWriter
from llmproxy.model import LedgerLine, RequestRecord
from llmproxy.observability.redaction import Redactor
from tests.support.examples import examples
from tests.unit.ledger.books import die

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["p", "\0", "\ud800", '"'])
COUNT = st.integers(0, 2**32 + 1) | st.integers(0, 300)
SECONDS = st.floats(0, 2e9) | st.sampled_from([0.0, -1.0, 1e12, -0.0])
RECORDS = st.builds(
    RequestRecord,
    request_id=TEXT,
    started_at=SECONDS,
    duration=SECONDS,
    method=st.just("POST"),
    path=st.just("/"),
    status=st.sampled_from([200, 429]),
    outcome=st.sampled_from(["complete", "failed", "cancelled", "refused"]),
    api=TEXT,
    endpoint=st.just("/v1/*"),
    project_id=TEXT,
    token_id=st.sampled_from(["", "t", "u"]),
    model=st.sampled_from(["", "m"]),
    stream=st.booleans(),
    bytes_in=COUNT,
    bytes_out=COUNT,
    upstream_status=st.none() | st.just(200),
    cache=st.sampled_from(["miss", "hit", "revalidated", "coalesced", "stale"]),
    error=st.sampled_from(["", "rate_limited"]),
    attempts=st.integers(0, 2),
    attempted=st.sampled_from(["", "0/0:429 0/1:200"]),
    answered=TEXT,
    basis=st.sampled_from(["", "exact", "estimated", "pending"]),
    input_tokens=COUNT,
    cached_tokens=COUNT,
    cache_write_tokens=st.just(3),
    output_tokens=COUNT,
    reasoning_tokens=st.just(2),
    cost_usd=st.none() | st.floats(0, 1e9) | st.sampled_from([-1.0, 1e300, float("inf"), float("nan")]),
)
OPENINGS = st.builds(
    LedgerLineOpening,
    st.just(""),
    st.floats(0, 2e9),
    TEXT,
    TEXT,
    st.sampled_from(["", "t", "u"]),
    TEXT,
    TEXT,
    TEXT,
    COUNT,
    COUNT,
    uses=st.integers(0, 1) | st.just(300),
    attribution=st.sampled_from(["", '{"user":["\\u0000","claimed"]}']),  # JSON: no control character stands in it
)


def in_full(line: LedgerLine) -> Any:
    """A line as its JSON says it."""
    told = records.decode(records.encode_settlement(line))
    assert isinstance(told, Settlement)
    return told.line


def as_stored(lines: list[LedgerLine]) -> list[LedgerLine]:
    """What the store makes of them, by their ids."""
    return sorted(LineRows().with_lines(lines).lines(), key=lambda line: line.id)


def summed(rows: LineRows | None) -> list[tuple[Any, ...]]:
    """By tokens, and by what lines are attributed to; dollars as far as the order in which they are added tells."""
    assert rows is not None
    sums = [*rows.sums(), *sorted((*key, *total) for key, total in rows.attributed.items())]
    return [(*values, f"{cost:.6g}" if cost < 1e15 else "no real cost") for *values, cost in sums]


class CompactTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(RECORDS, st.integers(1, 2**40))
    def test_settlements(self, record: RequestRecord, number: int) -> None:
        """The same line as in full, or none where it does not fit; and the same hits of the token."""
        told = compact.decode_kind(compact.encode_kind(7, compact.kind_of_record("run", record)))
        assert told is not None
        kinds = {told[0]: told[1]}
        short = compact.encode_settlement(7, number, parts_of(record), record.attribution)
        if not compact.is_usual(record):
            short = None
        if short is None:
            numbers = (record.bytes_in, record.bytes_out, record.input_tokens, record.cached_tokens)
            unusual = record.cost_usd is not None and not 0 <= record.cost_usd < 1e15
            unusual |= bool(record.attempted) or record.attempts != (record.upstream_status is not None)
            unusual |= not (0 <= record.started_at < 1e11 and 0 <= record.duration < 1e11)
            self.assertTrue(
                unusual
                or max(*numbers, record.output_tokens) >= 2**32
                or set(record.request_id + record.attribution) & {"\ud800", "\0"}
            )
            return
        expected = in_full(records.line(f"run-{number:010x}", record))
        self.assertEqual(compact.decode(short, kinds.get), Settlement(expected, hits=records.cache_hits(record)))
        self.assertIsNone(compact.decode(short, {}.get))
        self.assertIsNone(records.decode(short))

    @settings(deadline=None)
    @given(RECORDS, RECORDS)
    def test_the_same_in_common(self, record: RequestRecord, other: RequestRecord) -> None:
        """Records with the same key are of the same kind, whatever else they say."""
        for name in (*LedgerLine._fields[4:16], "cache"):
            if name in RequestRecord._fields:
                other = other._replace(**{name: getattr(record, name)})
        self.assertEqual(compact.kind_key_of_record(record), compact.kind_key_of_record(other))
        self.assertEqual(compact.kind_of_record("run", record), compact.kind_of_record("run", other))
        for name in ("token_id", "error", "answered", "basis", "status", "upstream_status", "stream", "cache"):
            changed = compact.kind_key_of_record(record._replace(**{name: "another"}))
            self.assertNotEqual(changed, compact.kind_key_of_record(record))

    @settings(deadline=None)
    @given(OPENINGS, st.integers(1, 2**40))
    @example(LedgerLineOpening("", 0.0, "\0", "", "", "", "", "", 0, 0), 1)
    @example(LedgerLineOpening("", 0.0, "\0", "", "", "", "", "", 0, 0, attribution="{}"), 1)
    @example(LedgerLineOpening("", 0.0, "a", "", "", "", "", "", 0, 0, attribution='{"user":["",""]}'), 1)
    def test_openings(self, opening: LedgerLineOpening, number: int) -> None:
        """Likewise."""
        told = compact.decode_kind(compact.encode_kind(7, compact.kind_of_opening("run", opening)))
        assert told is not None
        kinds = {told[0]: told[1]}
        short = compact.encode_opening(7, number, opening)
        if short is None:
            numbers = (opening.bytes_in, opening.estimated_input_tokens)
            self.assertTrue(max(numbers) >= 2**32 or opening.uses > 127 or set(opening.request_id) & {"\ud800", "\0"})
            return
        expected = records.decode(records.encode_opening(opening._replace(id=f"run-{number:010x}")))
        assert isinstance(expected, LedgerLineOpening)
        self.assertEqual(compact.decode(short, kinds.get), expected)
        uses = {expected.token_id: (expected.uses, expected.at)} if expected.uses and expected.token_id else {}
        self.assertEqual(next_batch(lambda place: iter([(1, short), (2, b"o")]), 0, 2, kinds.get).uses, uses)
        self.assertIsNone(compact.decode(short, {}.get))

    @given(st.binary(max_size=100))
    def test_anything(self, raw: bytes) -> None:
        """What another version wrote, or nobody, is passed over."""
        kind = LineKind("run", 0, compact.kind_of_opening("run", LedgerLineOpening(*[""] * 8, 0, 0)).common)  # type: ignore[arg-type]
        for form in (b"", b"s", b"o", b"K"):
            compact.decode(form + raw, lambda number: kind)
            next_batch(lambda place, read=form + raw: iter([(1, read)] if read else []), 0, 1, lambda number: kind)
            told = compact.decode_kind(form + raw)
            self.assertTrue(told is None or len(told[1].common) == 12)
        for broken in (b"K", b"K1234", b"K1234[]", b'K1234["run", 0, []]', b'K1234["run", 0, 7]', b"s", b"o"):
            self.assertIsNone(compact.decode_kind(broken))
            self.assertIsNone(compact.decode(broken, lambda number: kind))

    def test_sizes(self) -> None:
        """What is written here is what processes of other versions read."""
        record = RequestRecord("r", 1.0, 2.0, "POST", "/", 200, "complete")
        short = compact.encode_settlement(7, 9, parts_of(record))
        expected = struct.pack("<cIQddIIIIIIId", b"s", 7, 9, 1.0, 2.0, *[0] * 7, -1.0) + b"r"
        self.assertEqual(short, expected)
        opening = LedgerLineOpening("", 1.0, "r", "p", "t", "a", "/", "m", 3, 2, 1)
        self.assertEqual(
            compact.encode_opening(7, 9, opening), struct.pack("<cIQdIIb", b"o", 7, 9, 1.0, 3, 2, 1) + b"r"
        )


class JournalKindsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.journal = Journal(self.directory / "run", JournalSize(1 << 20, 1 << 24))
        self.journal.open()
        self.addCleanup(self.journal.close)
        self.kinds = JournalKinds(self.journal)

    def admit(self, *key: object) -> Any:
        return self.kinds.get(key) or self.kinds.admit(key, lambda: LineKind("run", 0, ("x",) * 12))

    def copies(self) -> list[int]:
        """The numbers of the segments that have kinds, once for each."""
        return [at >> 32 for at, content in self.journal.records(FIRST_OFFSET) if content[:1] == b"K"]

    def test_admitted_when_seen_again(self) -> None:
        """What clients make up anew each time is never written; nor is more kept of it than so many."""
        for number in range(MAX_SEEN_ONCE + 10):
            self.assertIsNone(self.admit(number))
        self.assertEqual(self.copies(), [])
        self.assertLessEqual(len(self.kinds._seen_once), MAX_SEEN_ONCE)
        self.assertIsNotNone(self.admit(MAX_SEEN_ONCE + 5))
        self.assertEqual(self.copies(), [1, 1])

    def test_no_more_than_so_many(self) -> None:
        """Then lines of a further one are written in full, until old segments are gone."""
        for number in range(MAX_KINDS):
            self.journal.prepare()
            self.admit(number)
            self.assertIsNotNone(self.admit(number))
        self.admit("more")
        self.assertIsNone(self.admit("more"))
        self.kinds.forget_before(self.journal.number)
        self.assertLess(len(self.kinds._numbers), MAX_KINDS)
        self.assertEqual(len(self.kinds._numbers), len(self.kinds._kinds))
        self.assertIsNotNone(self.admit("more"))

    def test_numbers_are_never_used_again(self) -> None:
        """One that was forgotten comes back under another."""
        self.admit("a")
        first = self.admit("a")
        self.journal.rotate()
        self.kinds.forget_before(2)
        self.assertIsNone(self.kinds.find(first.number))
        self.admit("a")
        self.assertGreater(self.admit("a").number, first.number)

    def test_many(self) -> None:
        """Each stands in several places of each segment, and all of them leave most of it to what refers to them."""
        kinds = [self.admit(number) or self.admit(number) for number in range(200)]
        while self.journal.number < 3:
            for at in range(0, len(kinds), 20):
                self.journal.prepare()
                if not self.kinds.append_with(kinds[at : at + 20], [b"s" * 100] * 40):
                    self.journal.rotate()
        for segment in (1, 2):
            places: dict[bytes, list[int]] = {}
            for at, content in self.journal.records(FIRST_OFFSET):
                if at >> 32 == segment and content[:1] == b"K":
                    places.setdefault(content, []).append(at)
            self.assertEqual(len(places), len(kinds))
            self.assertTrue(all(max(each) - min(each) > 2 * COPY_INTERVAL_BYTES for each in places.values()))
            taken = sum(len(content) * len(each) for content, each in places.items())
            self.assertLess(taken, (1 << 20) / 4)


class MixedTests(SynchronousTestCase):
    """Whole journals."""

    def setUp(self) -> None:
        self.kinds = RecordKinds()
        self.runs = 0

    def writer(self, segment: int = 8192, secrets: Masking | None = None) -> JournalWriter:
        self.runs += 1
        journal = Journal(Path(self.mktemp()) / "run", JournalSize(segment, 1 << 24))
        journal.open()
        self.addCleanup(journal.close)
        return JournalWriter(
            journal, maybeDeferred, JournalDamage(), lambda failure: None, run="run", secrets=secrets or NothingMasked()
        )

    def entered(self, writer: JournalWriter, *, dead: bool) -> tuple[list[LedgerLine], dict[str, Any], dict[str, Any]]:
        """All lines, and the counts of tokens, as the process itself or as another enters them."""
        read, find, orphan = writer.journal.records, writer.kinds.find, None
        if dead:
            path = writer.journal.path
            die(writer.journal)
            orphan = open_orphan(path.parent, path.name)
            assert orphan is not None
            read, find = orphan.records, KindsOfJournal(orphan.records).find
        lines: list[LedgerLine] = []
        uses: dict[str, int] = {}
        hits: dict[str, int] = {}
        at = FIRST_OFFSET
        while (part := next_batch(read, at, 2**62, find)).after > at:
            at = part.after
            lines += part.all_lines()
            self.assertEqual(summed(part.rows), summed(LineRows().with_lines(part.all_lines())))
            for counts, more in ((uses, part.uses), (hits, part.hits)):
                counts.update({token: counts.get(token, 0) + n for token, (n, _) in more.items()})
        if orphan is not None:
            orphan.close()
        return lines, uses, hits

    @examples(100)
    @given(
        st.lists(st.tuples(RECORDS, st.booleans(), st.booleans(), st.sampled_from([0, 0, 1, 2])), max_size=12),
        st.booleans(),
    )
    def test_any_lines(self, asked: list[tuple[RequestRecord, bool, bool, int]], dead: bool) -> None:
        """Every line is entered as it was, in whatever form it stands, and counts as often as it should."""
        writer = self.writer()
        expected: list[LedgerLine] = []
        uses: dict[str, int] = {}
        hits: dict[str, int] = {}
        for number, (record, opened, sent, ends) in enumerate(asked * 3, 1):
            ledger_id, token = "", record.token_id
            if opened:
                ledger_id = writer.open_line(
                    LedgerLineOpening("", 1.0, record.request_id, "p", token, "a", "/", "m", record.bytes_in, 1, uses=1)
                )
                if token:
                    uses[token] = uses.get(token, 0) + (1 if sent else 0)
            deferral = Deferral(f"result{number}") if ends == 1 else None
            writer.settle_all((FinishedRequest(self.kinds.parts_of(record), ledger_id, sent, deferral),))
            if hit := records.cache_hits(record):
                hits[token] = hits.get(token, 0) + hit
            line = records.line(ledger_id or f"run-{number:010x}", record)
            expected.append(in_full(line))
            if ends == 2:
                writer.journal.rotate()
                writer.journal.prepare()
        lines, counted_uses, counted_hits = self.entered(writer, dead=dead)
        self.assertEqual(as_stored(lines), as_stored(expected))
        self.assertEqual({t: n for t, n in counted_uses.items() if n}, {t: n for t, n in uses.items() if n})
        self.assertEqual(counted_hits, hits)

    @examples(100)
    @given(st.lists(st.tuples(RECORDS, st.booleans(), st.booleans()), max_size=8), st.sampled_from([2048, 8192]))
    def test_settled_together(self, asked: list[tuple[RequestRecord, bool, bool]], segment: int) -> None:
        """Requests that are over in one turn have the lines and counts that each would have alone."""
        writer = self.writer(segment)
        expected: list[LedgerLine] = []
        hits: dict[str, int] = {}
        for _ in range(4):
            requests = []
            for record, opened, sent in asked:
                ledger_id = ""
                if opened:
                    ledger_id = writer.open_line(
                        LedgerLineOpening("", 1.0, record.request_id, "p", "t", "a", "/", "m", record.bytes_in, 1)
                    )
                requests.append(FinishedRequest(self.kinds.parts_of(record), ledger_id, sent))
                if hit := records.cache_hits(record):
                    hits[record.token_id] = hits.get(record.token_id, 0) + hit
                expected.append(in_full(records.line("", record)))
            writer.settle_all(requests)
            writer.journal.prepare()
        self.assertEqual((writer.open_lines, writer.lost_records), (0, 0))
        lines, _, counted_hits = self.entered(writer, dead=True)
        self.assertEqual(len({line.id for line in lines}), len(expected))
        self.assertEqual(
            sorted(as_stored([line._replace(id="") for line in lines]), key=repr),
            sorted(as_stored(expected), key=repr),
        )
        self.assertEqual(counted_hits, hits)

    def test_one_that_cannot_be_settled(self) -> None:
        """All others are, and what it failed with is said."""
        writer = self.writer()
        odd: Any = self.record(2)._replace(outcome=[])  # in no set of kinds
        requests = [FinishedRequest(parts_of(each), "") for each in (self.record(1), odd, self.record(3))]
        self.assertRaises(TypeError, writer.settle_all, requests)
        lines, _, _ = self.entered(writer, dead=False)
        self.assertEqual([line.request_id for line in lines], ["r1", "r3"])

    @examples(100)
    @given(
        st.lists(
            st.sampled_from([*"xy", "secret", "own secret", "next segment", "released", "attributed", "their id"])
        ),
    )
    @example(["x", "x", "next segment", "released", "x"])
    @example(["x", "x", "own secret", "x"])
    def test_openings_with_much_in_common(self, acts: list[str]) -> None:
        """Are written as they would be one by one, whatever else happens."""
        found = []
        for opens_alike in (True, False):
            secrets = Redactor()
            writer = self.writer(4096, secrets)
            alike = {model: AlikeOpenings(("p", "t", "a", "/", model)) for model in ("x", "y")}
            for number, act in enumerate(acts * 4):
                if act == "secret":
                    secrets.add(f"hunter{number}")
                elif act == "own secret":
                    secrets.add(f"1f1f1f-{number + 1:02x}")
                elif act == "next segment":
                    writer.journal.rotate()
                    writer.journal.prepare()
                elif act == "released":
                    self.successResultOf(Deferred.fromCoroutine(writer.release(writer.journal.offset)))
                else:
                    model = act if act in alike else "x"
                    attribution = "{}" if act == "attributed" else ""
                    own = act != "their id"
                    request_id = f"1f1f1f-{number:02x}" if own else f"r-hunter{number - 1}"
                    if opens_alike:
                        writer.open_alike(alike[model], 1.0, request_id, number, 2, 1, attribution, own)
                        writer.write_openings()
                    else:
                        common = alike[model].common
                        writer.open_line(LedgerLineOpening("", 1.0, request_id, *common, number, 2, 1, attribution))
            found.append(list(writer.journal.records(FIRST_OFFSET)))
        self.assertEqual(found[0], found[1])

    @examples(100)
    @given(
        st.lists(
            st.sampled_from(["open", "open", "open", "open", "write", "settle", "next segment", "released", "lost"])
        )
    )
    @example(["open"] * 4 + ["lost"] + ["open"] * 9)
    def test_openings_that_are_written_together(self, acts: list[str]) -> None:
        """None is lost or counted twice, whatever happens before they are written."""
        writer = self.writer(2048)
        alike = AlikeOpenings(("p", "t", "a", "/", "x"))
        opened, settled, read = [], set(), {}

        def look() -> None:
            for _, content in writer.journal.records(FIRST_OFFSET):
                found = compact.decode(content, writer.kinds.find)
                if isinstance(found, LedgerLineOpening):
                    read[found.id, found.uses] = found.request_id

        for number, act in enumerate(acts * 4):
            if writer.journal.needs_spare:  # as its service sees to it
                self.successResultOf(Deferred.fromCoroutine(writer.prepare()))
            if act == "open":
                opened.append(writer.open_alike(alike, 1.0, f"1f1f1f-{number:02x}", number, 2, 1, "", True))
            elif act == "write":
                writer.write_openings()
            elif act == "settle" and len(settled) < len(opened):
                line = opened[len(settled)]
                settled.add(line)
                record = self.record(0)._replace(request_id=f"1f1f1f-{len(settled):02x}")
                writer.settle_all((FinishedRequest(self.kinds.parts_of(record), line),))
            elif act == "next segment":
                writer.journal.rotate()
                writer.journal.prepare()
            elif act == "released":
                look()
                self.successResultOf(Deferred.fromCoroutine(writer.release(writer.journal.offset)))
            elif act == "lost":
                writer.journal.segments[-1].path.unlink()
                self.successResultOf(Deferred.fromCoroutine(writer.inspect()))
                self.successResultOf(Deferred.fromCoroutine(writer.prepare()))
        for _ in range(3):  # what had no room has it now
            self.successResultOf(Deferred.fromCoroutine(writer.inspect()))
            self.successResultOf(Deferred.fromCoroutine(writer.prepare()))
        look()
        self.assertEqual({line for line, uses in read if uses}, set(opened))
        orphaned = {
            line.id
            for segment in writer.journal.segments
            if segment.path.exists()
            for _, content in segment.records(8)
            if isinstance(line := compact.decode(content, writer.kinds.find), LedgerLineOpening)
        }
        self.assertLessEqual(set(opened) - settled, orphaned)
        self.assertEqual(writer.lost_records, 0)

    def test_openings_wait(self) -> None:
        """Until they are to be written, or anything else is."""
        writer = self.writer()
        alike = AlikeOpenings(("p", "t", "a", "/", "x"))
        for _ in range(3):
            writer.open_alike(alike, 1.0, "1f", 1, 2, 1, "", True)
        before = writer.journal.offset
        line = writer.open_alike(alike, 1.0, "1f", 1, 2, 1, "", True)
        self.assertEqual(writer.journal.offset, before)
        writer.settle_all((FinishedRequest(self.kinds.parts_of(self.record(1)), line),))
        forms = [content[:1] for _, content in writer.journal.records(before)]
        self.assertEqual(forms[0], b"o")
        self.assertEqual(len(forms), 2)

    def test_a_secret_that_comes_later(self) -> None:
        """It is masked in what has been clean so far, also of requests that were let go before it was known."""
        secrets = Redactor()
        writer = self.writer(secrets=secrets)
        for number in range(4):
            opening = LedgerLineOpening("", 1.0, f"r{number}-hunter2", "p", "t", "a", "/", "m-hunter3", 1, 1)
            record = self.record(number)._replace(request_id=opening.request_id, model=opening.model)
            ledger_id = writer.open_line(opening)
            if number == 2:
                writer.settle_all((FinishedRequest(self.kinds.parts_of(record), ledger_id),))
                secrets.add("hunter2")
                secrets.add("hunter3")
            else:
                last = ledger_id, record
        writer.settle_all((FinishedRequest(self.kinds.parts_of(last[1]), last[0]),))
        lines, _, _ = self.entered(writer, dead=False)
        self.assertEqual(
            [(line.request_id, line.model) for line in lines],
            [("r2-hunter2", "m-hunter3"), ("r3-[redacted]", "m-[redacted]")],
        )

    def record(self, number: int) -> RequestRecord:
        return RequestRecord(f"r{number}", 1.0, 0.5, "POST", "/", 200, "complete", token_id="t", model="m")

    def test_any_byte_is_wrong(self) -> None:
        """No place that cannot be read takes more than one line with it, be it what all have in common."""
        for place in range(8, 700, 3):
            writer = self.writer()
            for number in range(8):
                writer.settle_all((FinishedRequest(self.kinds.parts_of(self.record(number)), ""),))
            path = writer.journal.segments[0].path
            raw = bytearray(path.read_bytes())
            raw[place] ^= 0x41
            path.write_bytes(raw)
            lines, _, _ = self.entered(writer, dead=True)
            self.assertGreaterEqual(len({line.id for line in lines}), 7, place)

    def test_each_segment_says_what_its_lines_have_in_common(self) -> None:
        """Those before it may be gone."""
        writer = self.writer(2048)
        for number in range(80):
            writer.settle_all((FinishedRequest(self.kinds.parts_of(self.record(number)), ""),))
        self.assertGreater(writer.journal.number, 3)
        for segment in writer.journal.segments_before(writer.journal.offset):
            writer.journal.release(segment)
        count = sum(1 for _, content in writer.journal.records(FIRST_OFFSET) if content[:1] == b"s")
        lines, _, _ = self.entered(writer, dead=True)
        self.assertEqual([line.request_id for line in lines], [f"r{n}" for n in range(80 - count, 80)])
        self.assertGreater(count, 0)

    def test_a_hole(self) -> None:
        """It takes what it hits: what lines have in common stands in other blocks too."""
        writer = self.writer(1 << 20)
        for number in range(200):
            writer.settle_all((FinishedRequest(self.kinds.parts_of(self.record(number)), ""),))
        path = writer.journal.segments[0].path
        with path.open("r+b") as file:
            file.seek(8)
            file.write(bytes(2000))
        lines, _, _ = self.entered(writer, dead=True)
        self.assertGreater(len(lines), 170)
        self.assertEqual(lines[-1].request_id, "r199")
