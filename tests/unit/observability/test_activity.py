"""What goes on, added up: in memory, in the store, and told by periods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from llmproxy.brief_record import RecordKinds, parts_of
from llmproxy.errors import StoreUnavailable
from llmproxy.model import RequestRecord
from llmproxy.observability import activity as module
from llmproxy.observability.activity import Activity
from tests.support.databases import migrated_sqlite
from tests.unit.store.contract import Calendar, new_store

AT = 1_764_072_000.0  # 2025-11-25T12:00:00Z


def record(at: float = AT, **more: Any) -> RequestRecord:
    usual = RequestRecord("r", at, 0.1, "POST", "/v1/chat/completions", 200, "complete", project_id="p1", api="openai")
    return usual._replace(**more)


class ActivityContract:
    """Mixed into a trial C{TestCase} that says where the store is."""

    assertEqual: Any
    assertIsNone: Any
    assertTrue: Any
    addCleanup: Any
    url: Any

    async def setUp(self) -> None:
        self.store = new_store(self.url(), Calendar())
        await self.store.open()
        self.addCleanup(self.store.close)
        self.activity = self.another()

    def another(self) -> Activity:
        return Activity(self.store, Clock(), lambda: AT)

    async def test_what_is_counted(self) -> None:
        for each in (
            record(input_tokens=10, output_tokens=5, cost_usd=0.25, first_byte=0.3),
            record(status=502, outcome="failed"),
            record(status=429, outcome="refused", project_id="p2"),
            record(status=499, outcome="cancelled"),
            record(cache="hit", first_byte=0.01),
        ):
            self.activity.observe_all([parts_of(each)])
        report = await self.activity.report("1h")
        total = report.total
        self.assertEqual((total.requests, total.failed, total.refused, total.cache_hits), (5, 1, 1, 1))
        self.assertEqual((total.input_tokens, total.output_tokens, total.cost_usd), (10, 5, 0.25))
        self.assertTrue(total.p95 is not None and 0.2 < total.p95 < 0.33, total)
        self.assertEqual((len(report.points), report.points[-1].requests, report.before.requests), (12, 5, 0))
        self.assertEqual((await self.activity.report("1h", ("p2",))).total.requests, 1)
        self.assertEqual((await self.activity.report("1h", ())).total.requests, 0)
        self.assertEqual((await self.activity.report("1h", api="google")).total.requests, 0)

    async def test_what_most_was_spent_on(self) -> None:
        for each in (
            record(answered="small", cost_usd=0.5),
            record(answered="large", cost_usd=1.5, project_id="p2"),
            record(answered="small", cost_usd=0.25),
            record(model="made up", status=404, outcome="failed"),
        ):
            self.activity.observe_all([parts_of(each)])
        models = await self.activity.most_active("model", "1h", 10)
        self.assertEqual([(n, s.requests, s.cost_usd) for n, s in models], [("large", 1, 1.5), ("small", 2, 0.75)])
        projects = await self.activity.most_active("project", "24h", 1)
        self.assertEqual([(name, total.cost_usd) for name, total in projects], [("p2", 1.5)])
        self.assertEqual(await self.activity.most_active("api", "7d", 10, ("p3",)), [])

    async def test_days_within_a_period_are_whole(self) -> None:
        """Sums of days stand for their hours, and of the days at both ends only the hours within it count."""
        days = 86400
        for back in (-3600, -1, 0, 600, 11 * 3600, 13 * 3600, 2 * days, 6 * days, 7 * days - 7201, 7 * days + 10801):
            for project in ("p1", "p2"):
                self.activity.observe_all([parts_of(record(at=AT - back, project_id=project, answered="m"))])
        for period in ("24h", "7d", "30d"):
            report = await self.activity.report(period)
            every = (await self.activity.most_active("model", period, 10))[0][1].requests
            self.assertEqual(every, report.total.requests, period)
            one = (await self.activity.most_active("model", period, 10, ("p1",)))[0][1].requests
            self.assertEqual(one, (await self.activity.report(period, ("p1",))).total.requests)
            self.assertEqual(2 * one, every)
            many = [f"p{number}" for number in range(1, 40)]
            self.assertEqual((await self.activity.report(period, many)).total.requests, every)

    async def test_two_processes_add_to_one_sum(self) -> None:
        other = self.another()
        for each in (self.activity, other, self.activity):
            each.observe_all([parts_of(record())])
            await each.flush()
        self.assertEqual((await other.report("24h")).total.requests, 3)

    async def test_every_period_has_its_points_and_the_one_before(self) -> None:
        """One request now, and two as long ago as the period is."""
        for name, period in module.PERIODS.items():
            self.activity.observe_all([parts_of(record(api=name))])
            self.activity.observe_all([parts_of(record(AT - period.seconds, api=name))])
            self.activity.observe_all([parts_of(record(AT - period.seconds, api=name))])
            report = await self.activity.report(name, api=name)
            points = [point.requests for point in report.points]
            self.assertEqual((len(points), sum(points), points[-1]), (period.seconds // period.point, 1, 1), name)
            self.assertEqual(report.before.requests, 2, name)

    async def test_what_is_old_goes(self) -> None:
        for age in (0, 3, 41, 801):
            self.activity.observe_all([parts_of(record(AT - age * 86400))])
        await self.activity.flush()
        await self.activity._purge()

        def steps(connection: Connection) -> list[int]:
            rows = connection.exec_driver_sql(
                "SELECT step, count(*) FROM activity WHERE api = 'openai' GROUP BY step ORDER BY step"
            )
            return [row[1] for row in rows]

        self.assertEqual(await self.store.read(steps), [1, 2, 3])

    async def test_texts_that_no_database_takes(self) -> None:
        self.activity.observe_all([parts_of(record(project_id="a\0\ud800" + "x" * 300))])
        self.assertEqual((await self.activity.report("1h")).total.requests, 1)


class SQLiteActivityTests(ActivityContract, TestCase):
    def url(self) -> str:
        return migrated_sqlite(Path(self.mktemp()).absolute() / "llmproxy.db")


class AwayStore:
    """Takes nothing."""

    def write(self, work: object) -> Deferred[Any]:
        return fail(StoreUnavailable())

    report = write


class AwayTests(TestCase):
    async def test_what_many_have_in_common(self) -> None:
        """Requests of one kind count where they belong, whatever has been added up, written or kept before."""
        activity, kinds = Activity(AwayStore(), Clock(), lambda: AT), RecordKinds()
        for at in (AT, AT, AT, AT + 300, AT, AT + 300):
            activity.observe_all([kinds.parts_of(record(at, input_tokens=1)), kinds.parts_of(record(at, cache="hit"))])
            await activity.flush()
            activity.observe_all([kinds.parts_of(record(at, input_tokens=2, status=500))])
        self.assertEqual([values[:5] for values in activity._sums.values()], [[12, 4, 0, 4, 12], [6, 2, 0, 2, 6]])

    async def test_it_is_kept_then_dropped_and_counted(self) -> None:
        activity = Activity(AwayStore(), Clock(), lambda: AT)
        activity.observe_all([parts_of(record())])
        await activity.flush()
        activity.observe_all([parts_of(record())])
        await activity.flush()
        self.assertEqual(activity.dropped, 0)
        for number in range(module.MAX_WAITING_KEYS + 4):
            activity.observe_all([parts_of(record(api=str(number)))])
        self.assertEqual(activity.dropped, 5)
        await activity.stopService()
        self.assertEqual(activity.dropped, module.MAX_WAITING_KEYS + 6)
