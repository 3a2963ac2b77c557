"""What is used of C{genai-prices}: fails loudly where a version has another shape."""

from __future__ import annotations

from decimal import Decimal

from genai_prices.data_snapshot import get_snapshot
from genai_prices.data_units import unit_data
from genai_prices.types import ArrayMatch, ModelPrice, PriceVariant, TieredPrices
from genai_prices.units import UnitRegistry


def test_units_have_a_name_a_price_and_dimensions() -> None:
    """Prices are looked up by them; each price of every model is for one of them."""
    units = UnitRegistry(unit_data)
    token = units.unit_for_price_key("input_mtok")
    assert (token.usage_key, token.per, dict(token.dimensions)) == (
        "input_tokens",
        1_000_000,
        {"family": "tokens", "direction": "input"},
    )
    for provider in get_snapshot().providers:
        for model in provider.models:
            for price in [model.prices] if isinstance(model.prices, ModelPrice) else [p.prices for p in model.prices]:
                for key, value in price.__dict__.items():
                    assert units.unit_for_price_key(key).price_key == key
                    assert value is None or isinstance(value, Decimal | TieredPrices)


def test_prices_of_other_kinds_say_what_for() -> None:
    """Tiers, fast modes and batches: the words that are asked for."""
    words = set()
    for provider in get_snapshot().providers:
        if provider.id in ("openai", "anthropic", "google"):
            for model in provider.models:
                for variant in model.price_variants or ():
                    assert isinstance(variant, PriceVariant)
                    words |= set(variant.when.items())
    assert words >= {
        ("processing", "batch"),
        ("service_tier", "flex"),
        ("service_tier", "priority"),
        ("speed", "fast"),
    }


def test_extractors_have_paths_and_destinations() -> None:
    known = {provider.id: provider for provider in get_snapshot().providers}
    for name in ("openai", "anthropic", "google", "mistral", "aws"):
        for extractor in known[name].extractors or ():
            for mapping in extractor.mappings:
                assert isinstance(mapping.dest, str)
                steps = [mapping.path] if isinstance(mapping.path, str) else mapping.path
                assert all(isinstance(step, str | ArrayMatch) for step in steps)
