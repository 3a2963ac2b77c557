"""The bill of each response, and the invoice over all of them, as the providers' price pages say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.simulator.prices import PRICES, Price, Rates
from llmproxy.simulator.use import Use

US_TENTHS = 11
"""Anthropic, "Data residency": what runs in the US costs 1.1 times as much, tokens only."""
_PER_CALL = ("searches", "preview_searches", "file_searches", "grounded")


@dataclass(frozen=True)
class Bill:
    """What one response costs.

    @ivar tier: C{standard}, or the kind of work that has a price of its own: C{flex}, C{priority}, C{batch}, C{fast}.
    @ivar region: C{us} where that costs more.
    @ivar pico: Pico-dollars; C{None} for what is not on the price list.
    """

    provider: str
    model: str
    use: Use
    tier: str
    region: str
    pico: int | None

    def shown(self) -> dict[str, Any]:
        """As JSON; money in nano-dollars."""
        return {
            "provider": self.provider,
            "model": self.model,
            "tier": self.tier,
            "region": self.region,
            "units": self.use.counts(),
            "nano_usd": None if self.pico is None else self.pico / 1000,
        }


def bill(provider: str, model: str, use: Use, tier: str = "standard", region: str = "") -> Bill:
    """Charge for C{use} what the price page says."""
    price = PRICES.get(provider, {}).get(model)
    pico = None if price is None else _amount(price, use, tier, region)
    return Bill(provider, model, use, tier, region, pico)


def offered(provider: str, model: str, tier: str) -> bool:
    """Whether the provider has a price for a model's work of this kind."""
    price = PRICES.get(provider, {}).get(model)
    return price is not None and tier in price.tiers


def _amount(price: Price, use: Use, tier: str, region: str) -> int | None:
    if tier == "standard":
        rates: Rates | None = price.long if price.above and use.prompt > price.above else price.rates
    else:
        rates = price.tiers.get(tier)
    counts = use.counts()
    if rates is None or not counts.keys() <= rates.keys():
        return None
    calls = sum(count * rates[unit] for unit, count in counts.items() if unit in _PER_CALL)
    rest = sum(count * rates[unit] for unit, count in counts.items() if unit not in _PER_CALL)
    return calls + (rest * US_TENTHS // 10 if region == "us" else rest)


def invoice(bills: Iterable[tuple[Mapping[str, Any], Bill]]) -> dict[str, Any]:
    """Lines, their sum, and the sum of each provider's models; what has no price is counted as C{unlisted}.

    @param bills: Each with what says which request it belongs to.
    """
    listed = list(bills)
    models: dict[str, list[Bill]] = {}
    for _, each in listed:
        models.setdefault(f"{each.provider}/{each.model}", []).append(each)
    return {
        "currency": "USD",
        **_sum(each for _, each in listed),
        "models": {name: _sum(of) for name, of in models.items()},
        "lines": [{**request, **each.shown()} for request, each in listed],
    }


def _sum(bills: Iterable[Bill]) -> dict[str, Any]:
    amounts = [each.pico for each in bills]
    known = [pico for pico in amounts if pico is not None]
    return {"calls": len(amounts), "unlisted": len(amounts) - len(known), "nano_usd": sum(known) / 1000}
