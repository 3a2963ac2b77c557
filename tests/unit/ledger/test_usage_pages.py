"""Pages of reports that tell tokens or values apart have, one after the other, all that the report as a whole has."""

from __future__ import annotations

from itertools import permutations
from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert

from llmproxy.base.attribution import CLAIMED
from llmproxy.ledger.usage_pages import report_page
from llmproxy.ledger.usage_queries import SUM_COLUMNS, Report, UsageQuery, ordered_sums
from llmproxy.model import PageRequest
from llmproxy.store.tables import attributed_usage, metadata, project_groups, project_usage, projects, usage

PROJECTS = ["p1", "p2", "p3", ""]
PERIODS = ["2026-10", "2026-11-01", "2026-11-02", "2026-12-01"]
NAMES = ("token", "day", "project", "group", "model", "month", "api")
QUESTIONS = [by for count in (1, 2, 3) for by in permutations(NAMES, count) if "token" in by]
QUESTIONS += [tuple("user" if name == "token" else name for name in by) for by in QUESTIONS]  # of an attribution

KEYS = st.tuples(
    st.sampled_from(PERIODS),
    st.sampled_from(PROJECTS),
    st.sampled_from(["t1", "t2", "t3", "t4", ""]),
    st.sampled_from(["openai", "anthropic"]),
    st.sampled_from(["a", "b"]),
)


class UsagePagesTests(TestCase):
    def setUp(self) -> None:
        engine = create_engine("sqlite://")
        self.connection = engine.connect()
        self.addCleanup(engine.dispose)
        self.addCleanup(self.connection.close)
        metadata.create_all(self.connection, tables=[project_groups, projects, usage, project_usage, attributed_usage])
        plain: dict[str, Any] = {"active": True, "created_at": 1.0, "updated_at": 1.0, "revision": 1}
        for number, name in enumerate(("p1", "p2")):
            row = {"id": name, "name": name, "group_id": ("g", None)[number], **plain}
            named = {column.name: row[column.name] for column in projects.c if column.name in row}
            self.connection.execute(insert(projects).values(named))

    def fill(self, keys: set[tuple[str, ...]]) -> None:
        for table in (usage, project_usage, attributed_usage):
            self.connection.execute(table.delete())
        without: dict[tuple[str, str, str, str], int] = {}
        for number, (period, project, token, api, model) in enumerate(sorted(keys)):
            sums = dict.fromkeys(SUM_COLUMNS, number + 1)
            row = {"period": period, "project_id": project, "token_id": token, "api": api, "model": model, **sums}
            self.connection.execute(insert(usage).values(row))
            # The values of one attribution, as its tokens; one that clients claim is another one than that of a token.
            named = {"name": "user", "value": "t1" if token == "t2" else token, "source": CLAIMED * (token == "t1")}
            row = {"period": period, "project_id": project, "api": api, "model": model, **named, **sums}
            self.connection.execute(insert(attributed_usage).values(row))
            self.connection.execute(insert(attributed_usage).values({**row, "name": "another"}))
            key = (period, project, api, model)
            without[key] = without.get(key, 0) + number + 1
        for key, count in without.items():
            row = dict(zip(("period", "project_id", "api", "model"), key, strict=True))
            self.connection.execute(insert(project_usage).values({**row, **dict.fromkeys(SUM_COLUMNS, count)}))

    @given(
        st.sets(KEYS, max_size=40),
        st.sampled_from(QUESTIONS),
        st.integers(1, 7),
        st.sampled_from(["", "2026-10-01", "2026-11-01", "2026-11-02"]),
        st.sampled_from(["", "2026-11-02", "2026-12-01"]),
        st.sampled_from([None, ("p1",), ("p2", "p3"), ()]),
    )
    def test_all_of_it(
        self,
        keys: set[tuple[str, ...]],
        by: tuple[str, ...],
        limit: int,
        since: str,
        until: str,
        only: tuple[str, ...] | None,
    ) -> None:
        self.fill(keys)
        question = UsageQuery(by, since, until, only, attribution="user" if "user" in by else "")
        whole = [dict(row) for row in self.connection.execute(ordered_sums(question)).mappings()]
        rows: list[dict[str, Any]] = []
        cursor, pages = "", 0
        while True:
            page = report_page(self.connection, question._replace(part=PageRequest(limit=limit, cursor=cursor)))
            self.assertLessEqual(len(page.items), limit)
            if page.total is not None:
                self.assertEqual(page.total, len(whole))
            rows += page.items
            cursor, pages = page.next_cursor, pages + 1
            if not cursor:
                break
        self.assertEqual(rows, whole)
        self.assertEqual(pages, max(1, -(-len(whole) // limit)), "every page but the last is full")

    def test_each_page_of_groups_has_the_tokens_of_their_projects(self) -> None:
        """And no sums of others, which the same tokens and people have."""
        self.fill({
            (period, project, token, "openai", model)
            for period in PERIODS[1:3] for project in PROJECTS for token in ("t1", "t2", "t3") for model in "ab"
        })  # fmt: skip
        asked = [by for by in QUESTIONS if {"group"} < set(by) <= {"group", "project", "model", "token", "user"}]
        self.assertEqual(len(asked), 28)
        for by in asked:
            question = UsageQuery(by, "2026-11-01", attribution="user" if "user" in by else "")
            whole = [dict(row) for row in self.connection.execute(ordered_sums(question)).mappings()]
            rows: list[dict[str, Any]] = []
            cursor = ""
            for _ in range(-(-len(whole) // 5)):
                page = report_page(self.connection, question._replace(part=PageRequest(5, 0, cursor)))
                rows += page.items
                cursor = page.next_cursor
            self.assertEqual([list(row.items()) for row in rows], [list(row.items()) for row in whole], by)

    def test_many_projects_without_a_group(self) -> None:
        """Whose few tokens are far between those of all others: these are not read to find them."""
        plain: dict[str, Any] = {"active": True, "created_at": 1.0, "updated_at": 1.0, "revision": 1}
        names = [f"g{n}" for n in range(40)] + [f"n{n}" for n in range(30)]
        rows = [{"id": each, "name": each, "group_id": "g" if each[0] == "g" else None, **plain} for each in names]
        self.connection.execute(insert(projects), rows)
        sums = dict.fromkeys(SUM_COLUMNS, 1)
        tokens = [(f"t{n:04}", f"g{n % 40}") for n in range(1000)] + [(f"t{n * 30:04}x", f"n{n}") for n in range(30)]
        days = [f"2026-11-{day:02}" for day in range(1, 21)]
        keys = [{"api": "a", "model": "m", "period": day, **sums} for day in days]
        of_tokens = [{**key, "project_id": of, "token_id": token} for token, of in tokens for key in keys]
        self.connection.execute(insert(usage), of_tokens)
        self.connection.execute(insert(project_usage), [{**key, "project_id": name} for name in names for key in keys])
        self.connection.exec_driver_sql("ANALYZE")
        for question in (
            UsageQuery(("group", "token"), part=PageRequest(14)),
            UsageQuery(("group", "token", "model"), "2026-11-02", "2026-11-12", part=PageRequest(14)),
        ):
            whole = [dict(row) for row in self.connection.execute(ordered_sums(question)).mappings()]
            page = report_page(self.connection, question)
            self.assertEqual(page.items, whole[:14])
            following = question._replace(part=PageRequest(14, cursor=page.next_cursor))  # which counts nothing
            self.assertEqual(self.page_of_few_steps(following, len(of_tokens)).items, whole[14:28])
            last = report_page(self.connection, question._replace(part=PageRequest(14, 0, page.next_cursor)))
            following = question._replace(part=PageRequest(14, cursor=last.next_cursor))
            self.assertEqual(report_page(self.connection, following).items, whole[28:42])

    def page_of_few_steps(self, question: UsageQuery, rows: int) -> Report:
        """It, for which SQLite does less than six things for each row that there is."""
        report_page(self.connection, question)  # what it has to prepare is prepared
        steps: list[int] = []
        driver: Any = self.connection.connection.driver_connection
        driver.set_progress_handler(lambda: steps.append(1), 100)
        try:
            page = report_page(self.connection, question)
        finally:
            driver.set_progress_handler(None, 0)
        self.assertLess(len(steps) * 100, rows * 6)
        return page
