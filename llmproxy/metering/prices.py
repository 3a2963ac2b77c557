"""What a count costs: by the operator's own prices, else by the list of C{genai-prices}, to which the dialects add.

What has no price is unknown, never cheaper: a count that the list has no price for is billed like what it is part of
(reasoning like other output, what was cached without a price of its own like other input) only where that is how
providers bill it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from math import inf
from typing import Any, NamedTuple

from llmproxy.base.memo import BoundedMemo
from llmproxy.metering.dialects import registry
from llmproxy.metering.dialects.operation import Units
from llmproxy.metering.dialects.reported_usage import Terms
from llmproxy.metering.price_list import (
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
    UnitDef,
    UnitRegistry,
    get_snapshot,
    unit_data,
)

MAX_REMEMBERED_MODELS = 4096  # models
USUAL_TERMS = Terms()
MAIN_UNITS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")

_UNITS = UnitRegistry(unit_data)
_TOKENS = frozenset(name for name, unit in _UNITS.units.items() if unit.dimensions.get("family") == "tokens")
_DEARER = frozenset(name for name in _TOKENS if _UNITS.units[name].dimensions.get("modality") in ("audio", "image"))


class OwnPrice(NamedTuple):
    """What an operator says that a model costs, in USD for a million tokens.

    @ivar api: A glob for the API's name; C{model} one for the model's.
    @ivar cached: For input read from the provider's cache; C{None}: as any input. Likewise C{cache_write},
        C{input_audio}, and C{output_audio} for output.
    @ivar per_request: USD for each request, whatever it uses.
    @ivar units: USD for one of each other unit, by its name.
    """

    api: str
    model: str
    input: float = 0.0
    output: float = 0.0
    cached: float | None = None
    cache_write: float | None = None
    input_audio: float | None = None
    output_audio: float | None = None
    per_request: float = 0.0
    units: Mapping[str, float] = {}

    def cost(self, units: Mapping[str, int | float], listed: ListPrice | None = None) -> float | None:
        """USD; C{None} where something was used that this says nothing of, and the list neither.

        @param listed: What the list says of the model.
        """
        get = units.get
        count, read, written = get("input_tokens", 0), get("cache_read_tokens", 0), get("cache_write_tokens", 0)
        heard = 0 if self.input_audio is None else get("input_audio_tokens", 0)
        if heard and read:  # what was both is billed once; where nobody says how much it was, what does not fit
            both = min(max(get("cache_audio_read_tokens", 0), heard + read + written - count), heard, read)
            if self.cached is None:
                read -= both
            else:
                heard -= both
        spoken = 0 if self.output_audio is None else get("output_audio_tokens", 0)
        fresh = max(count - read - written - heard, 0)
        total = (
            fresh * self.input
            + read * (self.input if self.cached is None else self.cached)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + heard * (self.input_audio or 0.0)
            + max(get("output_tokens", 0) - spoken, 0) * self.output
            + spoken * (self.output_audio or 0.0)
        ) / 1e6 + self.per_request
        for unit, size in units.items():
            if unit in _TOKENS or not size:
                continue
            price = self.units.get(unit)
            if price is None:
                price = None if listed is None else listed.price_of(unit)
            if price is None:
                return None
            total += size * price
        return total

    def specificity(self) -> tuple[tuple[bool, int], tuple[bool, int]]:
        """How closely it says what it is for; the greatest holds."""
        return _closeness(self.model), _closeness(self.api)


def _closeness(glob: str) -> tuple[bool, int]:
    """A name comes before any glob, and of two globs that with more that is literal."""
    return not any(sign in glob for sign in "*?["), sum(character not in "*?" for character in glob)


class _Step(NamedTuple):
    """One priced unit: how many of it are left when those that are priced more closely are taken away."""

    unit: str
    closer: tuple[str, ...]
    price: float
    tiers: tuple[tuple[int, float], ...]


class ListPrice(NamedTuple):
    """A model of the list, and the sum that its price is for requests of one kind.

    @ivar steps: What is priced; empty where the price for requests of this kind is not known.
    @ivar covered: Units that the steps price, by themselves or as a part of another; all others have prices of their
        own that are not known.
    @ivar factor: What the price of tokens is multiplied by.
    @ivar since: The sum holds from then on, C{until} then; seconds since the epoch.
    @ivar least: What is billed at least, by unit.
    """

    steps: tuple[_Step, ...]
    covered: frozenset[str]
    factor: float = 1.0
    since: float = 0.0
    until: float = inf
    least: Mapping[str, float] = {}

    def cost(self, units: Mapping[str, int | float]) -> float | None:
        """USD; C{None} where it is not known."""
        if not self.steps:
            return None
        if not units.keys() <= self.covered and any(units[unit] for unit in units.keys() - self.covered):
            return None
        if self.least:
            units = {unit: max(size, self.least.get(unit, 0)) if size else size for unit, size in units.items()}
        cost = _sum(self.steps, units, self.factor)
        if cost is None and not any(size and unit in _DEARER for unit, size in units.items()):
            # Details that do not add up: then without them.
            main = {unit: size for unit, size in units.items() if unit in MAIN_UNITS or unit not in _TOKENS}
            cost = _sum(self.steps, main, self.factor)
        return cost

    def price_of(self, unit: str) -> float | None:
        """USD for one of a unit."""
        return next((step.price for step in self.steps if step.unit == unit), None)


class Prices:
    """Prices by API, provider and model."""

    def __init__(self, own: Iterable[OwnPrice] = ()) -> None:
        self._own = sorted(own, key=OwnPrice.specificity, reverse=True)  # of two that are as close, the first
        self._known: BoundedMemo[tuple[str, str, str, str, Terms], tuple[OwnPrice | None, ListPrice | None]] = (
            BoundedMemo(MAX_REMEMBERED_MODELS)
        )

    def cost(
        self,
        api: str,
        provider: str,
        answered: str,
        asked: str,
        units: Mapping[str, int | float],
        at: float,
        terms: Terms = USUAL_TERMS,
    ) -> float | None:
        """USD for these counts, or C{None} where no price is known; never 0 for that.

        @param provider: The provider's name in genai-prices, or C{""}.
        @param answered: The model that answered; where that has no price, the one that was C{asked} for.
        @param at: Seconds since the epoch.
        """
        own, listed = self.listed(api, provider, answered, asked, at, terms)
        if own is not None:
            return own.cost(units, listed)
        return None if listed is None else listed.cost(units)

    def listed(
        self, api: str, provider: str, answered: str, asked: str, at: float, terms: Terms = USUAL_TERMS
    ) -> tuple[OwnPrice | None, ListPrice | None]:
        """The operator's own price, and what the list says; the parameters are as in L{cost}."""
        key = (api, provider, answered, asked, terms)
        found = self._known.get(key)
        if found is None or (found[1] is not None and not found[1].since <= at < found[1].until):
            found = self._known[key] = self._look_up(*key, at)
        return found

    def own(self, api: str, answered: str, asked: str) -> OwnPrice | None:
        """The operator's own price: the closest one for the name that answered or was asked for."""
        return next(
            (
                own
                for own in self._own
                if fnmatchcase(api, own.api)
                and any(name and fnmatchcase(name, own.model) for name in (answered, asked))
            ),
            None,
        )

    def _look_up(
        self, api: str, provider: str, answered: str, asked: str, terms: Terms, at: float
    ) -> tuple[OwnPrice | None, ListPrice | None]:
        own = self.own(api, answered, asked)
        everyone = get_snapshot().providers
        home = next((each for each in everyone if each.id == provider), None)
        if home is None:
            return own, None
        names = [name.removeprefix("models/") for name in (answered, asked) if name]  # as Google's SDKs say it
        for name in names:
            if (model := home.find_model(name, all_providers=everyone)) is not None:
                return own, list_price(model, home, at, terms, registry.additional_prices(provider, name))
        for name in names:
            if extra := registry.additional_prices(provider, name):
                return own, list_price(None, home, at, terms, extra)
        return own, None


def list_price(
    model: ModelInfo | None,
    provider: Provider,
    at: float,
    terms: Terms = USUAL_TERMS,
    extra: Mapping[str, float] | None = None,
) -> ListPrice:
    """What a model of the list costs at a time.

    @param extra: USD for one of each unit that the list has no price for.
    """
    moment = datetime.fromtimestamp(at, UTC)
    context = registry.price_contexts(provider.id, terms)
    factor = registry.token_price_factor(provider.id, terms)
    if context is None or factor is None:
        return ListPrice((), frozenset())
    variants, conditions = _matching(model, provider, context)
    if variants is None:
        return ListPrice((), frozenset())
    if model is not None and not isinstance(model.prices, ModelPrice):
        conditions = [*conditions, *(each.constraint for each in model.prices)]
    since, until = 0.0, inf
    if any(isinstance(condition, StartDateConstraint) for condition in conditions):
        since = at - at % 86400
        until = since + 86400
    if any(isinstance(condition, TimeOfDateConstraint) for condition in conditions):
        since = until = at
    held = [v for v in variants if v.constraint is None or v.constraint.active(moment)]
    if variants and not held and context:
        return ListPrice((), frozenset(), since=since, until=until)
    base = ModelPrice() if model is None else model.get_prices(moment)
    steps = _steps(_with_variants(base, held), extra or {})
    named = "" if model is None else model.id
    return ListPrice(
        steps,
        _covered_units(steps, provider.id, named),
        factor,
        since,
        until,
        registry.least_billed(provider.id, named),
    )


def _matching(
    model: ModelInfo | None, provider: Provider, context: Sequence[Mapping[str, str]]
) -> tuple[Sequence[PriceVariant] | None, list[Any]]:
    """The prices for requests of this kind; C{None} where it has a price of its own that is not known.

    @param context: The kinds as which it may be priced, the closest first; empty for the usual price.
    """
    if not context:
        return (), []
    own = model is not None and any(model is each for each in provider.models)
    variants = (model.price_variants or ()) if own and model is not None else ()
    for words in context:
        found = [v for v in variants if all(words.get(name) == value for name, value in v.when.items())]
        if found:
            return found, [v.constraint for v in found]
    return None, []


def _with_variants(price: ModelPrice, variants: Sequence[PriceVariant]) -> ModelPrice:
    prices = dict(price.__dict__)
    for variant in reversed(variants):
        prices |= {key: value for key, value in variant.prices.__dict__.items() if value is not None}
    return ModelPrice(**prices)


def _steps(price: ModelPrice, extra: Mapping[str, float]) -> tuple[_Step, ...]:
    priced: list[tuple[UnitDef, Decimal | TieredPrices | float]] = list(_unit_prices(price))
    priced_units = {unit.usage_key for unit, _ in priced}
    free: list[_Step] = []
    for name, usd in extra.items():
        unit = _UNITS.units.get(name)
        if unit is None:
            free.append(_Step(name, (), usd, ()))
        elif name not in priced_units:
            priced.append((unit, usd * unit.per))
    units = sorted(priced, key=lambda found: -len(found[0].dimensions))
    return (
        *(
            _Step(
                unit.usage_key,
                tuple(o.usage_key for o, _ in units if o is not unit and _is_part(o, unit)),
                float(_base(value)) / unit.per,
                tuple((tier.start, float(tier.price / unit.per)) for tier in reversed(value.tiers))
                if isinstance(value, TieredPrices)
                else (),
            )
            for unit, value in units
        ),
        *free,
    )


def _is_part(part: UnitDef, whole: UnitDef) -> bool:
    """Whether what counts as the one counts as the other too."""
    return whole.dimensions.items() <= part.dimensions.items()


def _unit_prices(price: ModelPrice) -> list[tuple[UnitDef, Decimal | TieredPrices]]:
    return [
        (_UNITS.unit_for_price_key(key), value)
        for key, value in price.__dict__.items()
        if value is not None and not key.startswith("_")
    ]


def _covered_units(steps: Sequence[_Step], provider: str, model: str) -> frozenset[str]:
    """Units whose price is known, be it that of what they are part of."""
    priced = {step.unit for step in steps}
    parts = {name for name in _UNITS.units if any(_prices(each, name, provider, model) for each in priced)}
    if "cache_write_tokens" in priced and "cache_write_1h_tokens" not in priced:
        parts.discard("cache_write_1h_tokens")  # an hour costs more than the minutes that this price is for
    return frozenset(priced | parts | {"requests"})


def _prices(priced: str, name: str, provider: str, model: str) -> bool:
    """Whether what counts for one unit is billed as a part of another that has a price."""
    unit, whole = _UNITS.units[name], _UNITS.units.get(priced)
    if whole is None or not _is_part(unit, whole):
        return False
    if unit.dimensions.get("modality") == "audio" and whole.dimensions.get("modality") != "audio":
        return registry.bills_audio_as_text(provider, model, name)
    return True


def _base(value: Any) -> Any:
    return value.base if isinstance(value, TieredPrices) else value


def _sum(plan: tuple[_Step, ...], units: Mapping[str, int | float], factor: float = 1.0) -> float | None:
    """The cost, or C{None} where the counts do not add up."""
    total, read = 0.0, units.get("input_tokens", 0)
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
                if read > start:
                    price = above
                    break
            total += price * count * factor if factor != 1.0 and unit in _TOKENS else price * count
    return total


__all__ = ["OwnPrice", "Prices", "Terms", "Units"]
