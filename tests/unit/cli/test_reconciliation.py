"""What a provider counted beside what the ledger has."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.cli.provider_exports import FORMATS, ProviderExport
from llmproxy.cli.reconciliation import Tolerance, compare, plain_name

COSTS, USAGE = FORMATS[0], FORMATS[3]


def row(model: str, day: str = "2026-11-01", **figures: Any) -> dict[str, Any]:
    return {"day": day, "model": model, "unpriced": 0, **figures}


def costs(**by_model: str) -> ProviderExport:
    return ProviderExport(
        COSTS,
        {("2026-11-01", model.replace("_", "-")): {"cost_usd": Decimal(usd)} for model, usd in by_model.items()},
    )


class CompareTests(SynchronousTestCase):
    def test_tolerance(self) -> None:
        """A percent of what the provider says, or a cent."""
        for ours, differs in (("100.99", False), ("101.01", True), ("99.0", False), ("98.9", True)):
            (found,) = compare(costs(gpt="100"), [row("gpt", cost_usd=ours)], Tolerance())
            self.assertEqual(found.differs, differs, ours)
        (small,) = compare(costs(gpt="0.001"), [row("gpt", cost_usd="0.0105")], Tolerance())
        self.assertFalse(small.differs)
        (exact,) = compare(costs(gpt="0.001"), [row("gpt", cost_usd="0.0011")], Tolerance(Decimal(0), Decimal(0)))
        self.assertTrue(exact.differs)

    def test_tokens(self) -> None:
        """Each measure that the file has by itself; a cent is nothing to tokens."""
        export = ProviderExport(
            USAGE, {("2026-11-01", "m"): {"input_tokens": Decimal(1000), "output_tokens": Decimal(7)}}
        )
        found = compare(export, [row("m", input_tokens=1000, output_tokens=8)], Tolerance())
        self.assertEqual(
            [(each.measure, each.differs) for each in found], [("input_tokens", False), ("output_tokens", True)]
        )

    def test_only_one_side(self) -> None:
        """What only the provider has, and what only the ledger has."""
        found = compare(costs(a="5"), [row("b", cost_usd=3.0)], Tolerance())
        self.assertEqual(
            [(each.model, each.difference, each.differs) for each in found], [("a", -5, True), ("b", 3, True)]
        )

    def test_names_of_models(self) -> None:
        """A name that has a date is that version alone; one without is all of them."""
        ours = [row("gpt-4o-2024-05-13", cost_usd=1.0), row("gpt-4o-2024-08-06", cost_usd=2.0)]
        found = compare(costs(gpt_4o="3"), ours, Tolerance())
        self.assertEqual([(each.model, each.differs) for each in found], [("gpt-4o", False)])
        dated = ProviderExport(COSTS, {("2026-11-01", "gpt-4o-2024-05-13"): {"cost_usd": Decimal(1)}})
        self.assertEqual(len(compare(dated, ours, Tolerance())), 2)

    def test_names_for_people(self) -> None:
        """Anthropic's costs name models as its pages do."""
        for name in ("claude-3-5-haiku-20241022", "Claude Haiku 3.5", "claude-haiku-3-5", "claude-3-5-haiku-latest"):
            self.assertEqual(plain_name(name), "claude-haiku-3-5")
        self.assertEqual(plain_name("Claude Sonnet 4"), plain_name("claude-sonnet-4-20250514"))
        self.assertNotEqual(plain_name("claude-opus-4-5"), plain_name("claude-opus-5-4"))

    def test_a_file_without_models(self) -> None:
        """Then days are compared as wholes."""
        export = ProviderExport(COSTS, {("2026-11-01", ""): {"cost_usd": Decimal(3)}})
        (found,) = compare(export, [row("a", cost_usd=1.0), row("b", cost_usd=2.0)], Tolerance())
        self.assertEqual((found.ledger, found.differs), (3, False))

    def test_unpriced(self) -> None:
        """Requests of unknown cost are shown beside a difference."""
        (found,) = compare(costs(gpt="1"), [{**row("gpt", cost_usd=0.5), "unpriced": 2}], Tolerance())
        self.assertEqual(found.unpriced, 2)
