"""A price that is a sum of four products, as that of nearly all requests is: made ready once, equal to the bit."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from llmproxy.metering.prices import MAIN_UNITS, ListPrice, OwnPrice

_CACHED = ("cache_read_tokens", "cache_write_tokens")
_NONE: frozenset[str] = frozenset()


class LinearPrice(NamedTuple):
    """USD for one token of each kind, where a request used nothing else that is priced.

    @ivar read_apart: 1 where what was read from the cache has a price of its own, 0 where it is billed as other input;
        C{write_apart} likewise.
    @ivar has_output: Whether there is a price for output; C{reasoning_within}: whether reasoning has none of its own.
    @ivar max_input: Tokens of input, beyond which another price holds.
    @ivar unpriced: Further units that cost nothing by themselves.
    @ivar since: The sum holds from then on, C{until} then; seconds since the epoch.
    """

    input: float
    cache_read: float
    cache_write: float
    output: float
    read_apart: int
    write_apart: int
    has_output: bool
    reasoning_within: bool
    max_input: float
    unpriced: frozenset[str]
    since: float
    until: float

    def cost(self, count: int, read: int, written: int, output: int, reasoning: int) -> float | None:
        """What L{ListPrice.cost} says; C{None} where only that can tell.

        @param count: Tokens of all input, those included that were C{read} from the cache and C{written} to it.
        """
        # fmt: off
        (
            own, cache_read, cache_write, of_output, read_apart, write_apart, has_output, reasoning_within, max_input,
            _, _, _,
        ) = self
        # fmt: on
        fresh = count - read * read_apart - written * write_apart
        if fresh < 0 or count > max_input or (output and not has_output) or (reasoning and not reasoning_within):
            return None
        # In the order of ListPrice's steps, since sums of binary fractions hang on it.
        return read * cache_read + written * cache_write + fresh * own + output * of_output


class OwnLinearPrice(NamedTuple):
    """As L{LinearPrice}, of an operator's own price: in USD for a million tokens, and for a request."""

    input: float
    cached: float
    cache_write: float
    output: float
    per_request: float
    unpriced: frozenset[str] = _NONE
    since: float = -inf
    until: float = inf

    def cost(self, count: int, read: int, written: int, output: int, reasoning: int) -> float:
        """What L{OwnPrice.cost} says of these, whatever share of the output was C{reasoning}."""
        own, cached, cache_write, of_output, per_request, _, _, _ = self  # faster than their names
        fresh = count - read - written
        if fresh < 0:
            fresh = 0
        return (fresh * own + read * cached + written * cache_write + output * of_output) / 1e6 + per_request


def own_linear_price(own: OwnPrice) -> OwnLinearPrice:
    """For requests that used nothing but text."""
    cached, written = own.cached, own.cache_write
    return OwnLinearPrice(
        own.input,
        own.input if cached is None else cached,
        own.input if written is None else written,
        own.output,
        own.per_request,
    )


def linear_price(listed: ListPrice) -> LinearPrice | None:
    """A price as such a sum; C{None} where it is none."""
    if listed.least or listed.factor != 1.0 or not {"input_tokens", *_CACHED} <= listed.covered:
        return None
    places = {step.unit: place for place, step in enumerate(listed.steps)}
    if "requests" in places or "input_tokens" not in places:
        return None
    apart = {unit for unit in _CACHED if unit in places}
    for step in listed.steps:
        # Of all other units nothing was used: nothing is left of them, as long as they hold none of these.
        if apart.union(("input_tokens", "output_tokens")).intersection(step.closer) != (
            apart if step.unit == "input_tokens" else _NONE
        ):
            return None
    in_order = [places[unit] for unit in (*_CACHED, "input_tokens", "output_tokens") if unit in places]
    cached = [places[unit] for unit in apart]
    if in_order[len(cached) :] != sorted(in_order[len(cached) :]) or max(cached, default=-1) > places["input_tokens"]:
        return None
    prices = {step.unit: step.price for step in listed.steps}
    return LinearPrice(
        prices["input_tokens"],
        prices.get("cache_read_tokens", 0.0),
        prices.get("cache_write_tokens", 0.0),
        prices.get("output_tokens", 0.0),
        int("cache_read_tokens" in places),
        int("cache_write_tokens" in places),
        "output_tokens" in places,
        "output_reasoning_tokens" in listed.covered and "output_reasoning_tokens" not in places,
        min((start for step in listed.steps for start, _ in step.tiers), default=inf),
        listed.covered.difference(places, MAIN_UNITS),
        listed.since,
        listed.until,
    )
