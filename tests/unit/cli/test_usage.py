"""C{llmproxy usage report}."""

from __future__ import annotations

import json

from llmproxy.ledger.reports import SUM_NAMES, UsageQuery
from llmproxy.model import PageRequest
from tests.unit.cli.daemon import DaemonTestCase

ROW = {**dict.fromkeys(SUM_NAMES, 1234), "cost_usd": 1.5}


class ReportTests(DaemonTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.usage.rows = [{"project": "p1", "day": "2026-11-25", **ROW}]

    async def test_a_table(self) -> None:
        """For people: a column for each group, figures that can be read."""
        result = await self.ok("usage", "report", "--by", "project", "--by", "day")
        head, row = result.splitlines()
        self.assertEqual(head.split()[:3], ["PROJECT", "DAY", "REQUESTS"])
        self.assertEqual(row.split()[:3], ["p1", "2026-11-25", "1,234"])
        self.assertEqual(row.split()[-1], "1.500000")

    async def test_csv(self) -> None:
        """For spreadsheets."""
        result = await self.ok("usage", "report", "--by", "project", "--by", "day", "--csv")
        head, row = result.splitlines()
        self.assertEqual(head, ",".join(["project_id", "day", *SUM_NAMES]))
        self.assertTrue(row.startswith("p1,2026-11-25,1234,"), row)

    async def test_json(self) -> None:
        """For scripts: the daemon's own answer, with all its pages."""
        self.usage.rows = [{"project": f"p{n}", **ROW} for n in range(1500)]
        result = await self.ok("usage", "report", "--output", "json")
        self.assertEqual(len(json.loads(result)["data"]), 1500)

    async def test_what_is_asked(self) -> None:
        """The options reach the daemon."""
        self.usage.rows = [{"api": "openai", **ROW}]
        gone = "3a84962b-58f1-48c0-a076-494cbd7dd7da"  # of a project that is not there any more
        await self.ok("usage", "report", "--by", "api", "--from", "2026-11-01", "--to", "2026-12-01", "--project", gone)
        self.assertEqual(
            self.usage.asked, [UsageQuery(("api",), "2026-11-01", "2026-12-01", (gone,), PageRequest(1000))]
        )

    async def test_nothing_was_used(self) -> None:
        """Headings alone."""
        self.usage.rows = []
        self.assertEqual(await self.ok("usage", "report", "--csv"), "project_id\n")
        self.assertTrue((await self.ok("usage", "report")).startswith("PROJECT"))

    async def test_no_days(self) -> None:
        """The two ends the wrong way round are no report of nothing."""
        for command in ("report", "export"):
            for until in ("2026-11-01", "2026-10-31"):
                said = await self.fails(2, "usage", command, "--from", "2026-11-01", "--to", until)
                self.assertIn("--to must be later than --from", said)

    async def test_no_such_group(self) -> None:
        """A group that there is not is refused by the daemon, who knows what requests are attributed to."""
        self.assertEqual((await self.run_cli("usage", "report", "--by", "colour")).exit_code, 1)
