"""What a count of tokens costs: by the operator's own prices, else by C{genai-prices}' list, which came with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from math import inf
from typing import Any, NamedTuple

from genai_prices.data_snapshot import get_snapshot
from genai_prices.decompose import is_descendant_or_self
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import Usage as Counts
from genai_prices.units import UnitDef

from llmproxy.metering.extraction import Units

REMEMBERED = 4096  # models
MAIN = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "output_reasoning_tokens")


class OwnPrice(NamedTuple):
    """What an operator says that a model costs, in USD for a million tokens.

    @ivar api: A glob for the API's name; C{model} one for the model's.
    @ivar cached: For input read from the provider's cache; C{None}: as any input. Likewise C{cache_write}.
    """

    api: str
    model: str
    input: float = 0.0
    output: float = 0.0
    cached: float | None = None
    cache_write: float | None = None

    def cost(self, units: Mapping[str, int | float], at: float) -> float:
        read, written = units.get("cache_read_tokens", 0), units.get("cache_write_tokens", 0)
        fresh = max(units.get("input_tokens", 0) - read - written, 0)
        return (
            fresh * self.input
            + read * (self.input if self.cached is None else self.cached)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + units.get("output_tokens", 0) * self.output
        ) / 1e6


class _Step(NamedTuple):
    """One priced unit: how many of it are left when those that are priced more closely are taken away."""

    unit: str
    closer: tuple[str, ...]
    price: float
    tiers: tuple[tuple[int, float], ...]


class Listed(NamedTuple):
    """A model of the list, and the sum that its price is for requests of one kind.

    @ivar context: What the price hangs on besides: C{service_tier}, C{speed}.
    @ivar since: The sum holds from then on, C{until} then; seconds since the epoch.
    """

    model: ModelInfo
    provider: Provider
    context: Mapping[str, str]
    steps: tuple[_Step, ...]
    since: float
    until: float

    def cost(self, units: Mapping[str, int | float], at: float) -> float | None:
        """As genai-prices' own C{calc_price}, but with what can be done beforehand done once."""
        if self.provider.id != "groq" and (cost := _sum(self.steps, units)) is not None:
            return cost
        moment = datetime.fromtimestamp(at, UTC)
        for keys in (units, MAIN):
            counts = Counts(**{key: units[key] for key in keys if key in units})
            try:
                found = self.model.calc_price(
                    counts, self.provider, genai_request_timestamp=moment, price_context=self.context
                )
            except (ValueError, ArithmeticError):
                continue  # details that do not add up: then without them
            return float(found.total_price)
        return None


class Prices:
    """Prices by API, provider and model."""

    def __init__(self, own: Iterable[OwnPrice] = ()) -> None:
        self._own = tuple(own)
        self._known: dict[tuple[str, str, str, str, str, str], OwnPrice | Listed | None] = {}

    def cost(
        self,
        api: str,
        provider: str,
        answered: str,
        asked: str,
        units: Mapping[str, int | float],
        at: float,
        tier: str = "",
        speed: str = "",
    ) -> float | None:
        """USD for these counts, or C{None} where no price is known; never 0 for that.

        @param provider: The provider's name in genai-prices, or C{""}.
        @param answered: The model that answered; where that has no price, the one that was C{asked} for.
        @param at: Seconds since the epoch.
        @param tier: The service tier that it was answered with.
        """
        key = (api, provider, answered, asked, tier, speed)
        try:
            price = self._known[key]
        except KeyError:
            price = self._learn(key, at)
        if price.__class__ is Listed and not price.since <= at < price.until:
            price = self._learn(key, at)
        return None if price is None else price.cost(units, at)

    def _learn(self, key: tuple[str, str, str, str, str, str], at: float) -> OwnPrice | Listed | None:
        if len(self._known) >= REMEMBERED:
            self._known.clear()  # only clients that make up models get here
        found = self._known[key] = self._look_up(*key, at)
        return found

    def _look_up(
        self, api: str, provider: str, answered: str, asked: str, tier: str, speed: str, at: float
    ) -> OwnPrice | Listed | None:
        models = [name for name in (answered, asked) if name]
        for name in models:
            for own in self._own:
                if fnmatchcase(api, own.api) and fnmatchcase(name, own.model):
                    return own
        everyone = get_snapshot().providers
        home = next((each for each in everyone if each.id == provider), None)
        if home is None:
            return None
        for name in models:
            if (model := home.find_model(name, all_providers=everyone)) is not None:
                return listed(model, home, at, {"service_tier": tier, "speed": speed})
        return None


def listed(model: ModelInfo, provider: Provider, at: float, context: Mapping[str, str]) -> Listed:
    """What a model of the list costs at a time."""
    moment = datetime.fromtimestamp(at, UTC)
    variants = _matching(model, provider, context)
    conditions = [variant.constraint for variant in variants]
    if not isinstance(model.prices, ModelPrice):
        conditions += [each.constraint for each in model.prices]
    since, until = 0.0, inf
    if any(isinstance(condition, StartDateConstraint) for condition in conditions):
        since = at - at % 86400
        until = since + 86400
    if any(isinstance(condition, TimeOfDateConstraint) for condition in conditions):
        since = until = at
    held = [v for v in variants if v.constraint is None or v.constraint.active(moment)]
    price = _overridden(model.get_prices(moment), held)
    return Listed(model, provider, context, _steps(price), since, until)


def _matching(model: ModelInfo, provider: Provider, context: Mapping[str, str]) -> tuple[PriceVariant, ...]:
    """Those whose words are those of the request; a model that is another provider's has none here."""
    if not any(model is own for own in provider.models):
        return ()
    variants = model.price_variants or ()
    return tuple(v for v in variants if all(context.get(name) == value for name, value in v.when.items()))


def _overridden(price: ModelPrice, variants: Sequence[PriceVariant]) -> ModelPrice:
    prices = dict(price.__dict__)
    for variant in reversed(variants):
        prices |= {key: value for key, value in variant.prices.__dict__.items() if value is not None}
    return ModelPrice(**prices)


def _steps(price: ModelPrice) -> tuple[_Step, ...]:
    units = sorted(_priced(price), key=lambda found: -len(found[0].dimensions))
    return tuple(
        _Step(
            unit.usage_key,
            tuple(o.usage_key for o, _ in units if o is not unit and is_descendant_or_self(unit, o)),
            float(_base(value) / unit.per),
            tuple((tier.start, float(tier.price / unit.per)) for tier in reversed(value.tiers))
            if isinstance(value, TieredPrices)
            else (),
        )
        for unit, value in units
    )


def _priced(price: ModelPrice) -> list[tuple[UnitDef, Decimal | TieredPrices]]:
    from genai_prices.units import _get_registry

    registry = _get_registry()
    return [
        (registry.unit_for_price_key(key), value)
        for key, value in price.__dict__.items()
        if value is not None and not key.startswith("_")
    ]


def _base(value: Any) -> Decimal:
    return value.base if isinstance(value, TieredPrices) else value


def _sum(plan: tuple[_Step, ...], units: Mapping[str, int | float]) -> float | None:
    """The cost, or C{None} where the counts do not add up."""
    total, given = 0.0, units.get("input_tokens", 0)
    left: dict[str, int | float] = {}
    for unit, closer, price, tiers in plan:
        count = units.get(unit, 0) if unit != "requests" else 1
        for other in closer:
            count -= left[other]
        if count < 0:
            return None
        left[unit] = count
        if count:
            for start, above in tiers:
                if given > start:
                    price = above
                    break
            total += price * count
    return total


__all__ = ["OwnPrice", "Prices", "Units"]
