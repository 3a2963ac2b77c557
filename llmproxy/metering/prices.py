"""What a count of tokens costs: by the operator's own prices, else by C{genai-prices}' list, which came with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar

from genai_prices.data_snapshot import get_snapshot
from genai_prices.decompose import is_descendant_or_self
from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, Provider, TieredPrices
from genai_prices.types import Usage as Counts
from genai_prices.units import UnitDef

from llmproxy.metering.extraction import Units

T = TypeVar("T")

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

    def cost(self, units: Mapping[str, int | float]) -> float:
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


class _Priced(NamedTuple):
    model: ModelInfo
    provider: Provider


class Prices:
    """Prices by API, provider and model."""

    def __init__(self, own: Iterable[OwnPrice] = ()) -> None:
        self._own = tuple(own)
        self._known: dict[tuple[str, str, str], Any] = {}
        self._matching: dict[tuple[object, ...], tuple[PriceVariant, ...]] = {}
        self._plans: dict[tuple[int, ...], tuple[object, tuple[_Step, ...]]] = {}

    def cost(
        self,
        api: str,
        provider: str,
        models: Sequence[str],
        units: Mapping[str, int | float],
        at: float,
        context: Mapping[str, str] | None = None,
    ) -> float | None:
        """USD for these counts, or C{None} where no price is known; never 0 for that.

        @param provider: The provider's name in genai-prices, or C{""}.
        @param models: Names of the model, the most telling first; the first that has a price counts.
        @param at: Seconds since the epoch.
        @param context: What the price may hang on besides: C{service_tier}, C{speed}.
        """
        if self._own:
            for model in models:
                if (own := self._found(self._agreed, api, model)) is not None:
                    return own.cost(units)
        for model in models:
            if (listed := self._found(self._listed, provider, model)) is not None:
                return self._by_list(listed, units, at, context)
        return None

    def _found(self, look_up: Callable[[str, str], T | None], whose: str, model: str) -> T | None:
        key = (look_up.__name__, whose, model)
        try:
            return self._known[key]  # type: ignore[no-any-return]
        except KeyError:
            pass
        if len(self._known) >= REMEMBERED:
            self._known.clear()  # only clients that make up models get here
        found = self._known[key] = look_up(whose, model) if model else None
        return found

    def _agreed(self, api: str, model: str) -> OwnPrice | None:
        return next((own for own in self._own if fnmatchcase(api, own.api) and fnmatchcase(model, own.model)), None)

    def _listed(self, provider: str, model: str) -> _Priced | None:
        everyone = get_snapshot().providers
        known = next((each for each in everyone if each.id == provider), None)
        listed = None if known is None else known.find_model(model, all_providers=everyone)
        return None if known is None or listed is None else _Priced(listed, known)

    def _by_list(
        self, priced: _Priced, units: Mapping[str, int | float], at: float, context: Mapping[str, str] | None
    ) -> float | None:
        """As genai-prices' own C{calc_price}, but with what can be done beforehand done once."""
        model, provider = priced
        moment = datetime.fromtimestamp(at, UTC)
        if provider.id != "groq":
            price = model.prices if isinstance(model.prices, ModelPrice) else model.get_prices(moment)
            cost = _sum(self._plan(priced, price, context, moment), units)
            if cost is not None:
                return cost
        for keys in (units, MAIN):
            counts = Counts(**{key: units[key] for key in keys if key in units})
            try:
                found = model.calc_price(counts, provider, genai_request_timestamp=moment, price_context=context)
            except ValueError:
                continue  # details that do not add up: then without them
            return float(found.total_price)
        return None

    def _plan(
        self, priced: _Priced, price: ModelPrice, context: Mapping[str, str] | None, moment: datetime
    ) -> tuple[_Step, ...]:
        """What is to be summed up. Prices are kept with their plans, so that their identities stay their own."""
        variants = self._variants(priced, context, moment) if context else ()
        key = (id(price), *map(id, variants))
        known = self._plans.get(key)
        if known is None:
            known = self._plans[key] = (price, variants), _steps(_overridden(price, variants))
        return known[1]

    def _variants(self, priced: _Priced, context: Mapping[str, str], moment: datetime) -> tuple[PriceVariant, ...]:
        """Those that hold for a request, the most important first."""
        if not priced.model.price_variants:
            return ()
        key = (id(priced.model), priced.provider.id, *context.items())
        found = self._matching.get(key)
        if found is None:
            if len(self._matching) >= REMEMBERED:
                self._matching.clear()
            found = self._matching[key] = _matching(priced, context)
        return tuple(v for v in found if v.constraint is None or v.constraint.active(moment)) if found else ()


def _matching(priced: _Priced, context: Mapping[str, str]) -> tuple[PriceVariant, ...]:
    """Those whose words are those of the request; a model that is another provider's has none here."""
    if not any(priced.model is model for model in priced.provider.models):
        return ()
    variants = priced.model.price_variants or ()
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
