"""What the ledger's tables must do, on every database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select
from twisted.internet.defer import Deferred, gatherResults

from llmproxy.base.attribution import CLAIMED, NO_VALUE, OF_TOKEN, encode
from llmproxy.errors import Invalid, StoreUnavailable
from llmproxy.ledger.line_rows import LineRows
from llmproxy.ledger.pending import PendingResult, pending_result
from llmproxy.ledger.records import Deferral, HeldBudget
from llmproxy.ledger.sql import CLOSED_OFFSET, JournalBatch, LedgerTable, UsageQuery
from llmproxy.limits.plan import charges
from llmproxy.model import LedgerLine, PageRequest
from llmproxy.store import budgets
from llmproxy.store.store import Store
from llmproxy.store.tables import journals, ledger, ledger_kinds, ledger_lines, ledger_runs, project_usage, usage
from tests.unit.store.contract import Calendar, new_store

DAY = 86400.0
LINES = select(*(ledger.c[name] for name in LedgerLine._fields))
AT = 1_764_072_000.0  # 2025-11-25T12:00:00Z


def line(number: int, **more: Any) -> LedgerLine:
    given = {"project_id": "p1", "token_id": "t1", "api": "openai", "model": "gpt-4o", "outcome": "exact", **more}
    return LedgerLine(f"run-{number}", given.pop("at", AT), **given)


class BooksContract:
    """Mixed into a trial C{TestCase} that says where the store is."""

    assertEqual: Any
    assertIsNone: Any
    assertTrue: Any
    assertRaises: Any
    assertIn: Any
    assertNotRegex: Any
    assertFailure: Any
    addCleanup: Any
    store: Store
    books: LedgerTable
    url: Callable[[], str]

    async def setUp(self) -> None:
        self.store = new_store(self.url(), Calendar())
        await self.store.open()
        self.addCleanup(self.store.close)
        self.books = LedgerTable(self.store, lambda: AT)

    def append(
        self, before: int, after: int, *lines: LedgerLine, journal: str = "run"
    ) -> Deferred[JournalBatch | None]:
        return self.books.append(journal, lambda: JournalBatch(before, after, lines))

    async def plan(self, statement: Any) -> str:
        """How the database would read this if its tables were long."""

        def explain(connection: Any) -> str:
            text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
            if connection.dialect.name == "sqlite":
                return "\n".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
            connection.exec_driver_sql("SET enable_seqscan = off")
            try:
                return "\n".join(str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {text}"))
            finally:
                connection.exec_driver_sql("RESET enable_seqscan")

        return str(await self.store.read(explain))

    async def test_one_line_is_found_by_index(self) -> None:
        """By its run and its number, of which its id is made."""
        await self.append(0, 10, *(LedgerLine(f"run-{n:010x}", AT, project_id="p1") for n in range(300)))
        wanted = select(ledger.c.id).where(ledger.c.run == "run", ledger.c.number == 0xAB)
        self.assertEqual(await self.store.read(lambda c: list(c.scalars(wanted))), ["run-00000000ab"])
        plan = await self.plan(wanted)
        self.assertNotRegex(plan, "SCAN|Seq Scan")
        self.assertIn("ledger_runs_by_name", plan)

    async def test_tokens_of_a_project_are_found_by_index(self) -> None:
        """In their order, however many other tokens there are."""
        wanted = select(usage.c.token_id).where(usage.c.project_id == "p1").distinct().order_by(usage.c.token_id)
        plan = await self.plan(wanted)
        self.assertIn("usage_of_project_by_token", plan)
        self.assertNotRegex(plan, "TEMP B-TREE|Sort")

    async def sums(self, by: str, **more: Any) -> list[tuple[Any, ...]]:
        report = await self.books.report(UsageQuery(tuple(by.split(",")) if by else (), **more))
        names = [*(by.split(",") if by else ()), "requests", "input_tokens", "output_tokens", "cost_usd"]
        return [tuple(row[name] for name in names) for row in report.items]

    async def ids(self) -> list[str]:
        found: list[str] = await self.store.read(lambda c: list(c.scalars(select(ledger.c.id).order_by(ledger.c.id))))
        return found

    async def test_a_line_as_it_was(self) -> None:
        """Every field comes back."""
        told = LedgerLine(
            "run-1", AT, 0.25, "r1", "p1", "t1", "openai", "/v1/*", "gpt-4o", "gpt-4o-2024", "exact", "exact", "code",
            200, 201, True, 2**40, 1, 2, 3, 4, 0.000125, 5, 6,
        )  # fmt: skip
        await self.append(0, 10, told)
        (row,) = await self.store.read(lambda c: [tuple(row) for row in c.execute(LINES)])
        self.assertEqual(row, tuple(told))

    async def test_any_text(self) -> None:
        """What is too long for its column, and what a database cannot keep, is shortened and not refused."""
        await self.append(0, 10, line(1, endpoint="x" * 1000, request_id="a\0b\ud800c", error="é" * 100))
        (row,) = await self.store.read(lambda c: [row._mapping for row in c.execute(LINES)])
        self.assertEqual((row["endpoint"], row["request_id"], row["error"]), ("x" * 255, "ab?c", "é" * 64))

    async def test_only_from_where_it_was(self) -> None:
        """The same part, or one further on, is not entered; another journal does not matter."""
        self.assertEqual(await self.books.offset("run"), None)
        self.assertEqual((await self.append(0, 10, line(1))), JournalBatch(0, 10, (line(1),)))
        self.assertIsNone(await self.append(0, 10, line(1)))
        self.assertIsNone(await self.append(20, 30, line(2)))
        await self.append(5, 6, line(3), journal="other")
        await self.append(10, 20, line(2))
        self.assertEqual((await self.ids(), await self.books.offset("run")), (["run-1", "run-2", "run-3"], 20))
        self.assertEqual(await self.sums(""), [(3, 0, 0, 0.0)])

    async def test_two_at_once(self) -> None:
        """Of two that enter the same part at the same time, one does."""
        await self.append(0, 10)
        parts = await gatherResults([self.append(10, 20, line(1), line(2)) for _ in range(4)], consumeErrors=True)
        self.assertEqual(sum(part is not None for part in parts), 1)
        self.assertEqual((await self.sums(""))[0][0], 2)

    async def test_nothing_of_a_part_that_fails(self) -> None:
        """A line that is there already: nothing is entered, and the journal's place stays."""
        await self.append(0, 10, line(1))
        try:
            await self.append(10, 20, line(2), line(1))
        except Exception:
            pass
        self.assertEqual((await self.ids(), await self.books.offset("run")), (["run-1"], 10))

    async def test_forgotten(self) -> None:
        """A journal that is gone leaves nothing behind."""
        await self.append(0, 10)
        await self.books.forget("run")
        self.assertIsNone(await self.books.offset("run"))

    async def test_sums(self) -> None:
        """By whatever is asked for, in order, with the model that answered."""
        used: dict[str, Any] = {"input_tokens": 10, "output_tokens": 5, "cost_usd": 0.5}
        await self.append(
            0,
            10,
            line(1, **used, answered="gpt-4o-2024"),
            line(2, **used, answered="gpt-4o-2024", at=AT + DAY),
            line(3, **used, project_id="p2", token_id="t2", api="anthropic", model="claude"),
        )
        await self.append(10, 20, line(4, **{**used, "cost_usd": None}, answered="gpt-4o-2024"))
        self.assertEqual(await self.sums("project"), [("p1", 3, 30, 15, 1.0), ("p2", 1, 10, 5, 0.5)])
        self.assertEqual(
            await self.sums("model,day"),
            [
                ("claude", "2025-11-25", 1, 10, 5, 0.5),
                ("gpt-4o-2024", "2025-11-25", 2, 20, 10, 0.5),
                ("gpt-4o-2024", "2025-11-26", 1, 10, 5, 0.5),
            ],
        )
        self.assertEqual(await self.sums("month,api", projects=("p1",)), [("2025-11", "openai", 3, 30, 15, 1.0)])
        self.assertEqual(await self.sums("day", since="2025-11-26"), [("2025-11-26", 1, 10, 5, 0.5)])
        self.assertEqual(await self.sums("day", until="2025-11-26"), [("2025-11-25", 3, 30, 15, 1.0)])
        self.assertEqual(await self.sums("token", part=PageRequest(1, 1)), [("t2", 1, 10, 5, 0.5)])
        report = await self.books.report(UsageQuery(("token",), part=PageRequest(1)))
        self.assertEqual((len(report.items), report.total), (1, 2))

    async def test_pages_of_a_report(self) -> None:
        """In the order of the groups; a cursor goes on behind the last one, and counts nothing again."""
        days = [line(n, at=AT + n // 4 * DAY, token_id=f"t{n % 4}", input_tokens=n) for n in range(12)]
        await self.append(0, 9, *days)
        for by in ("token,day", "day,token", "token", "month,token"):
            whole = (await self.books.report(UsageQuery(tuple(by.split(","))))).items
            seen: list[Any] = []
            question = UsageQuery(tuple(by.split(",")), part=PageRequest(3))
            while True:
                page = await self.books.report(question)
                self.assertEqual(page.total, None if question.part.cursor else len(whole))
                seen += page.items
                if not page.next_cursor:
                    break
                question = question._replace(part=PageRequest(3, cursor=page.next_cursor))
            self.assertEqual(seen, whole)
        await self.assertFailure(self.books.report(UsageQuery(("day",), part=PageRequest(cursor="x"))), Invalid)
        self.assertEqual((await self.books.report(UsageQuery(("day",), part=PageRequest(3, 3)))), ([], 3, ""))

    async def test_an_export(self) -> None:
        """All rows of a report, as they were when it began; only so many at once, and each must be closed."""
        await self.append(0, 9, *(line(n, at=AT, token_id=f"t{n:04d}", input_tokens=n) for n in range(2500)))
        question = UsageQuery(("token",), part=PageRequest(3))
        exports = [self.books.export(question) for _ in range(2)]
        with self.assertRaises(StoreUnavailable):
            self.books.export(question)
        rows: list[Any] = []

        def keep(part: list[Any]) -> bytes:
            rows.extend(part)
            return b"%d" % len(part)

        self.assertEqual(await exports[0].part(keep), b"1000")
        await self.append(9, 10, line(9999, token_id="t9999"))
        while await exports[0].part(keep):
            pass
        self.assertEqual([row[0] for row in rows], [f"t{n:04d}" for n in range(2500)])
        self.assertEqual(rows[699].input_tokens, 699)
        for each in exports:
            await each.close()
        self.assertEqual(await exports[0].part(keep), b"")
        last = self.books.export(question)
        self.assertTrue(await last.part(keep))
        await last.close()

    async def test_what_is_counted_besides(self) -> None:
        """Failures, estimates, and what has no price although it used something."""
        await self.append(
            0,
            9,
            line(1, outcome="failed"),
            line(2, basis="estimated", input_tokens=3),
            line(3, basis="exact", output_tokens=3, cost_usd=0.0),
            line(4),
        )
        (row,) = (await self.books.report(UsageQuery(()))).items
        told = (row["requests"], row["failed"], row["estimated"], row["unpriced"])
        self.assertEqual(told, (4, 1, 1, 1))

    async def test_what_is_held_to_budgets(self) -> None:
        """Lines account for what their process took in advance, whoever enters them; with the last, the rest is given
        back; all or nothing with the lines."""
        taking = new_store(self.store._database.url, Calendar(), run="run")
        await taking.open()
        self.addCleanup(taking.close)
        self.books = LedgerTable(self.store, lambda: AT, charges)
        usd, month = "token:t1:budget_usd:day:2025-11-25", "project:p1:budget_tokens:month:2025-11"
        for key in (usd, month):
            await taking.take_budget(key, 1, 10**9, 10**12, 0.0)
        await self.append(0, 10, line(1, cost_usd=0.25, input_tokens=10, output_tokens=5), line(2, cost_usd=None))
        self.assertEqual(await self.store.budgets_spent([usd, month]), {usd: 10**9, month: 10**9})
        await self.append(
            10, CLOSED_OFFSET, line(3, cost_usd=0.125, input_tokens=1), line(4, token_id="t2", input_tokens=1)
        )
        self.assertEqual(await self.store.budgets_spent([usd, month]), {usd: 375_000_000, month: 17})

    async def test_no_lines(self) -> None:
        """A report of nothing."""
        self.assertEqual((await self.books.report(UsageQuery(("project",)))), ([], 0, ""))
        self.assertEqual(await self.sums(""), [(0, 0, 0, 0.0)])

    async def test_old_lines_go(self) -> None:
        """The oldest first, so many at once; their sums stay."""
        await self.append(0, 10, *(line(n, at=AT + n * DAY, input_tokens=1) for n in range(5)))
        self.assertEqual(await self.books.roll_up(AT + 3 * DAY, "", 2), (2, 0))
        self.assertEqual(await self.ids(), ["run-2", "run-3", "run-4"])
        self.assertEqual(await self.books.roll_up(AT + 3 * DAY, "", 2), (1, 0))
        self.assertEqual((await self.ids(), (await self.sums(""))[0][1]), (["run-3", "run-4"], 5))

    async def stored(self) -> tuple[int, int, int]:
        """How many lines, kinds and runs there are."""
        tables = ledger_lines, ledger_kinds, ledger_runs
        counts = [select(func.count()).select_from(table) for table in tables]
        lines, kinds, runs = await self.store.read(lambda c: [int(c.scalar(each) or 0) for each in counts])
        return lines, kinds, runs

    async def test_what_lines_have_in_common_is_there_once(self) -> None:
        """Whichever process enters them; it goes some days after the last of them has gone, and comes again."""
        now = AT
        books, other = (LedgerTable(self.store, lambda: now) for _ in range(2))
        places = {"run": 0, "other": 0}

        async def enter(table: LedgerTable, journal: str, *lines: LedgerLine) -> None:
            before, places[journal] = places[journal], places[journal] + 10
            rows = LineRows().with_lines(lines)
            part = await table.append(journal, lambda: JournalBatch(before, before + 10, (), rows=rows))
            assert part is not None
            self.assertEqual(part.line_count, len(lines))

        lines = [line(n)._replace(id=f"run-{n:010x}") for n in range(6)]
        await enter(books, "run", *lines[:2])
        await enter(books, "run", *lines[2:4], line(7, model="old"))
        await enter(other, "other", *lines[4:])
        self.assertEqual(await self.stored(), (7, 2, 2))
        now = AT + 5 * DAY
        await enter(other, "other", line(8, at=now))
        self.assertEqual(await self.ids(), [*(each.id for each in lines), "run-7", "run-8"])
        await books.roll_up(AT + DAY, "", 7)
        self.assertEqual(await self.stored(), (1, 2, 3))
        await books.roll_up(AT + 3 * DAY, "", 7)
        self.assertEqual(await self.stored(), (1, 1, 1))
        await enter(books, "run", line(9, at=now, model="old"))  # which this process has made before
        self.assertEqual(await self.stored(), (2, 2, 2))
        found = await self.store.read(lambda c: [tuple(row) for row in c.execute(select(ledger.c.id, ledger.c.model))])
        self.assertEqual(sorted(found), [("run-8", "gpt-4o"), ("run-9", "old")])

    async def test_old_days_become_months(self) -> None:
        """No sum changes by it, and a month belongs to a range that has its first day."""
        used: dict[str, Any] = {"input_tokens": 1, "output_tokens": 2, "cost_usd": 0.25}
        await self.append(0, 10, *(line(n, at=AT + n * 10 * DAY, **used) for n in range(6)))
        before = await self.sums("month,model")
        self.assertEqual((await self.books.roll_up(0.0, "2026-01-01", 3))[1], 3)
        self.assertEqual((await self.books.roll_up(0.0, "2026-01-01", 3))[1], 1)
        self.assertEqual(await self.sums("month,model"), before)
        days = [row[:2] for row in await self.sums("day")]
        self.assertEqual(days, [("2025-11", 1), ("2025-12", 3), ("2026-01-04", 1), ("2026-01-14", 1)])
        self.assertEqual([row[0] for row in await self.sums("day", since="2025-12-01", until="2026-01-05")],
                         ["2025-12", "2026-01-04"])  # fmt: skip
        self.assertEqual([row[0] for row in await self.sums("day", until="2025-12-01")], ["2025-11"])
        self.assertEqual([row[0] for row in await self.sums("day", since="2025-12-02")], ["2026-01-04", "2026-01-14"])

    async def test_sums_without_tokens_are_those_of_their_tokens(self) -> None:
        """Also where only some of a day's tokens are folded into its month yet."""
        used: dict[str, Any] = {"input_tokens": 1, "output_tokens": 2, "cost_usd": 0.25}
        lines = [
            line(n, at=AT + n % 2 * DAY, token_id=f"t{n % 5}", model=f"m{n % 3}", project_id=f"p{n % 2}", **used)
            for n in range(40)
        ]
        await self.append(0, 10, *lines[:20])
        await self.append(10, 20, *lines[20:])
        left = 1
        while left:
            for by in ("project", "project,api,model", "day", "month", ""):
                totals: dict[tuple[Any, ...], list[float]] = {}
                tokens = f"token,{by}" if by else "token"
                for _, *row in await self.sums(tokens):
                    known = totals.setdefault(tuple(row[:-4]), [0, 0, 0, 0.0])
                    totals[tuple(row[:-4])] = [a + b for a, b in zip(known, row[-4:], strict=True)]
                expected = [(*key, *values) for key, values in sorted(totals.items())]
                self.assertEqual(await self.sums(by), expected, by)
            left = (await self.books.roll_up(0.0, "2026-01-01", 3))[1]
        months = await self.store.read(lambda c: set(c.scalars(select(project_usage.c.period))))
        self.assertEqual(months, {"2025-11"})

    async def attributed(self, by: str = "user", **more: Any) -> list[tuple[Any, ...]]:
        """Values with their sources and requests, by one attribution."""
        groups = tuple("user" if name == "user" else name for name in by.split(","))
        report = await self.books.report(UsageQuery(groups, attribution="user", **more))
        return [(row["attribution_value"], row["attribution_source"], row["requests"]) for row in report.items]

    async def test_sums_by_attribution(self) -> None:
        """What is claimed and what is fixed are two things; what has no value is there too."""
        values = [("ada", CLAIMED), ("ada", OF_TOKEN), ("ada", CLAIMED), NO_VALUE]
        lines = [
            line(n, attribution=encode([("user", each), ("team", ("x", CLAIMED))])) for n, each in enumerate(values)
        ]
        await self.append(0, 10, *lines, line(9))
        expected = [("", "", 1), ("ada", CLAIMED, 2), ("ada", OF_TOKEN, 1)]
        self.assertEqual(await self.attributed(), expected)
        self.assertEqual(await self.attributed("day,user,model"), expected)
        self.assertEqual(await self.attributed(projects=("p2",)), [])
        first = await self.books.report(UsageQuery(("user",), part=PageRequest(2), attribution="user"))
        rest = await self.books.report(
            UsageQuery(("user",), part=PageRequest(2, 0, first.next_cursor), attribution="user")
        )
        self.assertEqual([row["attribution_source"] for row in (*first.items, *rest.items)], ["", CLAIMED, OF_TOKEN])
        (row,) = await self.store.read(
            lambda c: list(c.scalars(select(ledger.c.attribution).where(ledger.c.id == "run-1")))
        )
        self.assertEqual(row, lines[1].attribution)

    async def test_claims_without_end(self) -> None:
        """Beyond as many as are told apart they are added up together and counted, what tokens fix never is; each day,
        project and attribution has its own."""
        self.books = LedgerTable(self.store, lambda: AT, attribution_values=2)
        claims = [encode([("user", (f"u{n % 4}", CLAIMED))]) for n in range(8)]
        await self.append(0, 10, *(line(n, attribution=each) for n, each in enumerate(claims)))
        self.assertEqual((await self.attributed(), self.books.overflow),
                         ([("(other)", CLAIMED, 4), ("u0", CLAIMED, 2), ("u1", CLAIMED, 2)], 4))  # fmt: skip
        fixed = [line(20 + n, attribution=encode([("user", (f"t{n}", OF_TOKEN))])) for n in range(3)]
        elsewhere = line(30, attribution=claims[3], project_id="p2"), line(31, attribution=claims[3], at=AT + DAY)
        await self.append(10, 20, *fixed, *elsewhere, line(32, attribution=claims[1]))
        found = await self.attributed()
        self.assertEqual([row for row in found if row[0].startswith("t")], [(f"t{n}", OF_TOKEN, 1) for n in range(3)])
        self.assertIn(("u3", CLAIMED, 2), found)
        self.assertIn(("u1", CLAIMED, 3), found)
        self.assertEqual(self.books.overflow, 4)
        self.books = LedgerTable(self.store, lambda: AT, attribution_values=2)  # of a process that knows nothing yet
        await self.append(20, 30, line(40, attribution=claims[0]), line(41, attribution=claims[2]))
        self.assertIn(("u0", CLAIMED, 3), await self.attributed())
        self.assertIn(("(other)", CLAIMED, 5), await self.attributed())

    async def test_old_days_of_attributions_become_months(self) -> None:
        """No sum changes by it."""
        text = encode([("user", ("ada", CLAIMED))])
        await self.append(0, 10, *(line(n, at=AT + n * 2 * DAY, attribution=text) for n in range(6)))
        for left in (2, 2, 2, 0):
            await self.books.roll_up(0.0, "2025-12-01", 2)
            self.assertEqual(sum(row[2] for row in await self.attributed()), 6, left)
        days = (await self.books.report(UsageQuery(("day", "user"), attribution="user"))).items
        self.assertEqual([row["day"] for row in days], ["2025-11", "2025-12-01", "2025-12-03", "2025-12-05"])

    async def test_results_belong_to_those_who_asked(self) -> None:
        """What is told later is not unpriced any more, for whom it was made."""
        text = encode([("user", ("ada", CLAIMED))])
        asked = line(1, basis="pending", outcome="pending", attribution=text)
        results = [pending_result(asked, Deferral("resp", ()))]
        await self.books.append("run", lambda: JournalBatch(0, 10, [asked], pending=results))
        (kept,) = await self.found("resp")
        self.assertEqual(kept.attribution, text)
        await self.books.collect([kept], line(9, cost_usd=0.5, basis="exact", attribution=text))
        (row,) = (await self.books.report(UsageQuery(("user",), attribution="user"))).items
        self.assertEqual((row["requests"], row["unpriced"], row["cost_usd"]), (2, 0, 0.5))

    async def test_places_that_nobody_needs(self) -> None:
        """The place of a journal that was closed long ago goes."""
        await self.append(0, 2**62, journal="closed")
        await self.append(0, 10, journal="living")
        await LedgerTable(self.store, lambda: AT + 8 * DAY).roll_up(0.0, "", 10)
        names: list[str] = await self.store.read(lambda c: list(c.scalars(select(journals.c.name))))
        self.assertEqual(names, ["living"])

    async def announce(self, *results: tuple[str, str], held: tuple[HeldBudget, ...] = ()) -> list[PendingResult]:
        """Lines whose answers announced results: the line's number and the result's id."""
        lines = [line(int(number), basis="pending", outcome="pending") for number, _ in results]
        pending = [pending_result(each, Deferral(name, held)) for each, (_, name) in zip(lines, results, strict=True)]
        start = await self.books.offset("run") or 0
        await self.books.append("run", lambda: JournalBatch(start, start + 10, lines, pending=pending))
        return pending

    async def found(self, name: str) -> list[PendingResult]:
        return await self.books.pending("p1", "openai", name)

    async def test_results_are_collected_once(self) -> None:
        """What is told later is entered by the first who fetches it; until then its cost is missing from the sums."""
        pending = await self.announce(("1", "resp"), ("2", "other"))
        self.assertEqual(await self.found("resp"), pending[:1])
        self.assertEqual(await self.books.pending("p2", "openai", "resp"), [])
        self.assertEqual(await self.books.pending("p1", "azure", "resp"), [])
        (row,) = (await self.books.report(UsageQuery(()))).items
        self.assertEqual((row["requests"], row["unpriced"], row["cost_usd"]), (2, 2, 0.0))
        result = line(9, cost_usd=0.5, input_tokens=7, basis="exact", at=AT + DAY)
        both = gatherResults([self.books.collect(pending[:1], result), self.books.collect(pending[:1], result)])
        self.assertEqual(sorted(map(str, await both)), ["None", "{}"])
        self.assertIsNone(await self.books.collect(pending[:1], result))
        (row,) = (await self.books.report(UsageQuery(()))).items
        self.assertEqual((row["requests"], row["unpriced"], row["cost_usd"], row["input_tokens"]), (3, 1, 0.5, 7))
        self.assertEqual(await self.ids(), ["run-1", "run-2", "run-9"])
        self.assertEqual((await self.found("resp"), await self.found("other")), ([], pending[1:]))

    async def test_what_was_held_goes_back(self) -> None:
        """Budgets are corrected to what the result cost; where its id was announced twice, the second to nothing."""
        await self.store.take_budget("usd:day", 10, 10, 10**12, 0.0)
        await self.store.take_budget("tokens", 10, 10, 10**12, 0.0)
        held = (HeldBudget("usd:day", "usd", 10**9, 0.0), HeldBudget("tokens", "tokens", 100, 0.0))
        await self.store.write(lambda c: budgets.correct(c, {"usd:day": -2 * 10**9, "tokens": -200}))
        pending = await self.announce(("1", "resp"), ("2", "resp"), held=held)
        self.assertEqual(await self.found("resp"), pending)
        given = await self.books.collect(pending, line(9, cost_usd=0.25, input_tokens=100, output_tokens=50))
        self.assertEqual(given, {"usd:day": 10**9 + 750_000_000, "tokens": 50})
        spent = await self.store.budgets_spent(["usd:day", "tokens"])
        self.assertEqual(spent, {"usd:day": 10 + 250_000_000, "tokens": 10 + 150})
        self.assertEqual(await self.found("resp"), [])

    async def test_what_costs_nobody_knows(self) -> None:
        """Stays charged as it was held, but for its tokens."""
        held = (HeldBudget("usd:day", "usd", 10**9, 0.0), HeldBudget("tokens", "tokens", 100, 0.0))
        pending = await self.announce(("1", "resp"), held=held)
        self.assertEqual(await self.books.collect(pending, line(9, input_tokens=90)), {"tokens": 10})

    async def test_any_model(self) -> None:
        """What no column takes is shortened, as on its line."""
        odd = line(1, model="x\0y\ud800" + "z" * 200, basis="pending", outcome="pending")
        result = pending_result(odd, Deferral("resp"))
        await self.books.append("run", lambda: JournalBatch(0, 10, [odd], pending=[result]))
        (found,) = await self.found("resp")
        await self.books.collect([found], line(9, cost_usd=0.5, basis="exact"))
        (row, _) = (await self.books.report(UsageQuery(("model",)))).items[::-1]
        self.assertEqual((row["model"], row["unpriced"]), (found.model, 0))

    async def test_told_by_another_object(self) -> None:
        """A batch that points to its file is found by that."""
        pending = await self.announce(("1", "batch"))
        await self.books.rename(pending, "file")
        self.assertEqual(await self.found("batch"), [])
        self.assertEqual(await self.found("file"), [pending[0]._replace(result_id="file")])

    async def test_results_nobody_fetches(self) -> None:
        """They are forgotten when no provider has them any more."""
        await self.announce(("1", "resp"))
        self.assertEqual(await self.books.pending_count(AT), 1)
        self.assertEqual(await self.books.pending_count(AT + 1), 0)
        self.assertEqual(await self.found("resp"), [])
