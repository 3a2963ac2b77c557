from __future__ import annotations

from unittest import TestCase

from llmproxy.web.admin import formats


class FormatsTests(TestCase):
    def test_figures(self) -> None:
        for make, value, shown in (
            (formats.number, 1234567, "1,234,567"),
            (formats.number, None, "–"),
            (formats.compact, 0, "0"),
            (formats.compact, 999, "999"),
            (formats.compact, 12_345, "12.3k"),
            (formats.compact, 4_500_000, "4.5M"),
            (formats.usd, 0, "$0"),
            (formats.usd, 1234.5, "$1,234.50"),
            (formats.usd, 0.25, "$0.2500"),
            (formats.usd, 0.00042, "$0.000420"),
            (formats.usd, 0.0000000001, "$0.000000000"),
            (formats.usd_tick, 0.25, "$0.25"),
            (formats.usd_tick, 4.0, "$4"),
            (formats.seconds, 0.0, "0 ms"),
            (formats.seconds, 0.00004, "< 0.1 ms"),
            (formats.seconds, 0.0008, "0.8 ms"),
            (formats.seconds, 0.12, "120 ms"),
            (formats.seconds, 1.239, "1.24 s"),
            (formats.seconds, 125, "2 m 05 s"),
            (formats.size, 12, "12 B"),
            (formats.size, 3482, "3.4 KiB"),
            (formats.size, 256 * 1024 * 1024, "256 MiB"),
        ):
            self.assertEqual(make(value), shown)  # type: ignore[operator]

    def test_amounts_below_each_other(self) -> None:
        """As many digits for all of them, so that the points line up."""
        for amounts, shown in (
            ([1234.5, 0.001, 0.0, 2], ["$1,234.50", "< $0.01", "$0.00", "$2.00"]),
            ([1.5, 0.00042, None], ["$1.5000", "$0.0004", "–"]),
            ([0.00042, 0.1, 1e-9], ["$0.000420", "$0.100000", "< $0.000001"]),
            ([None, 0], ["–", "$0.000000"]),
        ):
            make = formats.usd_column(amounts)
            self.assertEqual([make(each) for each in amounts], shown)

    def test_shares_and_changes(self) -> None:
        self.assertEqual((formats.percent(1, 3), formats.percent(1, 0)), ("33.3 %", "–"))
        self.assertEqual(
            [formats.share(each) for each in (0, 0.04, 99.96, 2500.0)], ["0 %", "0.0 %", "100.0 %", "2,500 %"]
        )
        self.assertEqual((formats.change(100.2, 100), formats.change(10, 100)), ("±0 %", "\N{MINUS SIGN}90 %"))
        self.assertEqual((formats.change(112, 100), formats.change(1, 0), formats.change(None, 3)), ("+12 %", "", ""))

    def test_budgets_and_settings(self) -> None:
        for text, shown in (
            ("20/month", "$20 per month"),
            ("1234.5/day", "$1,234.50 per day"),
            ("0.5/lifetime", "$0.5 in all"),
            ("0.0001/day", "$0.0001 per day"),
        ):
            self.assertEqual(formats.budget(text), shown)
        for value, shown in (
            (True, "true"),
            (None, "–"),
            ([1, "a", False], "1, a, false"),
            ({"changed": ["name"], "of": {}}, "changed: name, of: –"),
            (0, "0"),
        ):
            self.assertEqual(formats.setting(value), shown)

    def test_days_and_months_under_a_plot(self) -> None:
        for period, shown in (("2026-11-02", "02 Nov"), ("2026-11", "Nov’26"), ("", ""), ("odd", "odd")):
            self.assertEqual(formats.period_label(period), shown)

    def test_times(self) -> None:
        now = formats.parsed("2026-11-29T12:00:00Z").timestamp()
        for at, shown in (
            ("2026-11-29T12:00:00Z", "now"),
            ("2026-11-29T11:59:18Z", "42 s ago"),
            ("2026-11-29T11:15:00Z", "45 min ago"),
            ("2026-11-29T15:00:00Z", "in 3 h"),
            ("2026-11-20T12:00:00Z", "9 d ago"),
            ("2026-01-29T12:00:00Z", "10 months ago"),
        ):
            self.assertEqual(
                formats.relative(at, now),
                f'<time datetime="{at}" title="{at[:10]} {at[11:19]} UTC">{shown}</time>',
            )
        self.assertEqual(formats.relative(None, now), "–")
