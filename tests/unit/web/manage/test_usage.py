"""What was used, over the management API."""

from __future__ import annotations

import csv
import io

from llmproxy.ledger.reports import SUM_NAMES, UsageQuery
from llmproxy.model import PageRequest
from tests.unit.web.manage.management import ManagementTestCase

FIGURES = {**dict.fromkeys(SUM_NAMES, 3), "cost_usd": 0.1 + 0.2}


class UsageTests(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.usage.rows = [
            {"project": "p1", "model": "gpt-4o", **FIGURES},
            {"project": "p2", "model": "=1+1", **FIGURES},
        ]

    def test_a_report(self) -> None:
        """Grouped as it was asked for, within the days that were asked for."""
        reply = self.ask("GET", "/manage/usage?group_by=project,model&from=2026-11-01&to=2026-12-01&project_id=p1")
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.usage.asked, [UsageQuery(("project", "model"), "2026-11-01", "2026-12-01", ("p1",))])
        self.assertEqual(reply.json["total"], 2)
        first = reply.json["data"][0]
        self.assertEqual((first["project_id"], first["model"], first["cost_usd"]), ("p1", "gpt-4o", 0.3))
        self.assertNotIn("project", first)

    def test_by_project_where_nothing_is_said(self) -> None:
        """And one sum of all where that is asked for."""
        self.ask("GET", "/manage/usage")
        self.ask("GET", "/manage/usage?group_by=")
        self.assertEqual([question.by for question in self.usage.asked], [("project",), ()])

    def test_pages(self) -> None:
        """A part of the rows, and how many there are."""
        reply = self.ask("GET", "/manage/usage?limit=1&offset=1")
        self.assertEqual((len(reply.json["data"]), reply.json["total"]), (1, 2))
        self.assertEqual(self.usage.asked[0].part, PageRequest(1, 1))

    def test_pages_behind_a_cursor(self) -> None:
        """Each page says where the next begins; all are counted once, on the first."""
        first = self.ask("GET", "/manage/usage?limit=1").json
        second = self.ask("GET", f"/manage/usage?limit=1&cursor={first['next_cursor']}").json
        self.assertEqual([row["project_id"] for row in (*first["data"], *second["data"])], ["p1", "p2"])
        self.assertEqual((first["total"], second["total"], second["next_cursor"]), (2, None, None))
        self.refused(self.ask("GET", "/manage/usage?cursor=1&offset=1"), 422, "offset")

    def test_csv(self) -> None:
        """With a line of headings; what a spreadsheet would calculate is text."""
        reply = self.ask("GET", "/manage/usage?group_by=project,model&format=csv")
        self.assertEqual(reply.status, 200)
        head, first, second = csv.reader(io.StringIO(reply.body.decode()))
        self.assertEqual(head, ["project_id", "model", *SUM_NAMES])
        self.assertEqual(first, ["p1", "gpt-4o", *["3"] * 9, "0.3"])
        self.assertEqual(second[1], "'=1+1")
        self.assertEqual(reply["Content-Type"], "text/csv; charset=utf-8; header=present")

    def test_all_of_a_csv_reads_as_a_page(self) -> None:
        """The rows that come at once are written as those of a page: formulas, costs and all."""
        self.usage.rows.append({"project": "@p3", "model": 'a,"b"', **FIGURES, "cost_usd": 1.25e-07})
        whole = self.ask("GET", "/manage/usage?group_by=project,model&format=csv").body
        paged = self.ask("GET", "/manage/usage?group_by=project,model&format=csv&limit=10").body
        self.assertEqual(whole, paged)
        self.assertIn(b"0.000000125\r\n", whole)

    def test_all_of_a_csv(self) -> None:
        """It ends with the last row, however many there are; a page of it is as long as was asked for."""
        self.usage.rows = [{"project": f"p{n:04d}", **FIGURES} for n in range(1001)]
        reply = self.ask("GET", "/manage/usage?format=csv")
        self.assertEqual(reply["Transfer-Encoding"], "chunked")
        body = reply.body.decode()
        rows = list(csv.reader(io.StringIO(body)))
        self.assertEqual([row[0] for row in rows], ["project_id", *(f"p{n:04d}" for n in range(1001))])
        self.assertEqual(self.usage.open, 0)
        page = self.ask("GET", "/manage/usage?format=csv&limit=2")
        self.assertEqual(len(page.body.splitlines()), 3)
        self.assertEqual(page["X-Next-Cursor"], "2")
        self.assertEqual(self.ask("HEAD", "/manage/usage?format=csv").body, b"")
        self.assertEqual(self.usage.open, 0)

    def test_one_project(self) -> None:
        """Its own alone; 404 for one that is not there."""
        project = self.project()
        self.assertEqual(self.ask("GET", f"/manage/projects/{project}/usage?group_by=day").status, 200)
        self.assertEqual(self.usage.asked, [UsageQuery(("day",), projects=(project,))])
        self.refused(self.ask("GET", "/manage/projects/nobody/usage"), 404)

    def test_what_is_no_question(self) -> None:
        """Groups, days, formats and parameters that there are not."""
        for query, said in (
            ("group_by=colour", "group_by"),
            ("group_by=day,day", "group_by"),
            ("group_by=day,month", "group_by"),
            ("from=yesterday", "from"),
            ("to=2026-02-30", "to"),
            ("from=20261101", "from"),
            ("format=xml", "format"),
            ("limit=0", "limit"),
            ("project_id=a%20b", "project_id"),
            ("colour=red", "query"),
        ):
            self.refused(self.ask("GET", f"/manage/usage?{query}"), 422, said)
        self.assertEqual(self.usage.asked, [])

    def test_who_may_ask(self) -> None:
        """Whoever has the management token."""
        self.refused(self.ask("GET", "/manage/usage", token="wrong"), 401)
