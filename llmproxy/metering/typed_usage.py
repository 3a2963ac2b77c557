"""Measures the usual JSON responses of one endpoint: a typed decoder, and a price that is made ready.

What it tells is to the bit what the general reading tells (L{body_readers}, L{extraction}, L{prices}); where it tells
nothing, that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from math import inf
from typing import NamedTuple

from msgspec import MsgspecError
from pydantic_core import from_json

from llmproxy.base.memo import BoundedMemo
from llmproxy.metering.body_readers import EventStreamReader, model_in
from llmproxy.metering.dialects.generic import CHARGES
from llmproxy.metering.dialects.operation import ProviderOperation, Units
from llmproxy.metering.dialects.reported_usage import MAX_WORD_CHARS, Terms, word
from llmproxy.metering.estimating import PromptEstimate, text_share, tokens
from llmproxy.metering.extraction import count_units
from llmproxy.metering.linear_price import LinearPrice, OwnLinearPrice, linear_price, own_linear_price
from llmproxy.metering.prices import Prices
from llmproxy.metering.sse import SAMPLE_BYTES
from llmproxy.metering.typed_responses import TYPED_RESPONSES, TypedCounts
from llmproxy.metering.typed_streams import TYPED_STREAMS
from llmproxy.model import Usage

MAX_PREPARED_PRICES = 256  # of one endpoint, by models and terms
MAX_NESTED_VALUES = 200  # lists and objects of a body: the general parser gives up on more within each other
MAX_DIGITS = 4300  # of an integer, likewise

Read = Callable[[bytes], TypedCounts | None]
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class _PreparedPrice(NamedTuple):
    """What all responses of a model on the same terms have in common.

    @ivar model: As it is shown; C{""} where only the general reading can tell.
    @ivar linear: C{None} where only the price list can tell.
    """

    model: str
    terms: Terms
    linear: LinearPrice | OwnLinearPrice | None
    since: float
    until: float


class TypedUsage:
    """Measures the usual JSON responses of one endpoint."""

    def __init__(
        self, api: str, provider: str, prices: Prices, read: Read, read_events: Read, *, makes_text: bool
    ) -> None:
        """
        @param read: Reads a response; C{read_events}: the events of a stream that report usage, a line for each.
        @param makes_text: Whether its responses are text that counts as output; its requests are text in any case.
        """
        self._makes_text = makes_text
        self._api = api
        self._provider = provider
        self._prices = prices
        self._read = read
        self._read_events = read_events
        self._prepared: BoundedMemo[tuple[str, str, str, str, str, bytes], _PreparedPrice] = BoundedMemo(
            MAX_PREPARED_PRICES
        )

    def measured(self, body: bytes, asked: str, tier: bytes, at: float, reader: Read | None = None) -> Usage | None:
        """What was used; C{None} where this is not a usual response.

        @param asked: The model that the client asked for.
        @param tier: What the response's head says of its tier, which holds where its body says nothing.
        @param at: Seconds since the epoch.
        @param reader: Reads the body, where that is not one response.
        """
        if not is_plain(body):
            return None
        try:
            counts = (reader or self._read)(body)
        except (MsgspecError, RecursionError):
            return None
        if counts is None:
            return None
        model, said_tier, speed, geo, given, read, written, made, reasoning, details = counts
        price = self._price((model, asked, said_tier, speed, geo, tier), at)
        shown, _, linear, _, _ = price
        if not shown:
            return None
        cost = None
        if linear is not None and (not details or details.keys() <= linear.unpriced):
            cost = linear.cost(given, read, written, made, reasoning)
        if cost is None:
            cost = self._listed_cost(counts, asked, price, at)
        return _new(Usage, (given, read, written, made, reasoning, cost, "exact", shown, details))

    def measured_stream(
        self, stream: EventStreamReader, asked: str, tier: bytes, at: float, prompt: Callable[[], PromptEstimate]
    ) -> Usage | None:
        """What was used for a stream that came to its end: as its events with a usage say, or, where there are none,
        probably; C{None} where it is not a usual one, and then nothing was done.

        @param prompt: Tells how many tokens the request probably was. The others are as in L{measured}.
        """
        data = stream.usage_data() if stream.tells_nothing_else else None
        if data is None:
            return None
        if data:
            usage = self.measured(data, asked, tier, at, self._read_events)
        else:
            price = self._price((stream.model(), asked, "", "", "", tier), at)
            usage = self._estimated(price, stream.text, prompt)
        if usage is not None:
            stream.discard()
        return usage

    def measured_text(
        self, events: bytes, asked: str, tier: bytes, at: float, prompt: Callable[[], PromptEstimate]
    ) -> Usage | None:
        """As L{measured_stream}, of a whole stream that L{tells_text_alone}."""
        sample = events[:SAMPLE_BYTES]
        samples = [sample] if len(events) <= SAMPLE_BYTES else [sample, events[-SAMPLE_BYTES:]]
        price = self._price((model_in(sample), asked, "", "", "", tier), at)
        return self._estimated(price, lambda: len(events) * text_share(samples), prompt)

    def _estimated(
        self, price: _PreparedPrice, size: Callable[[], float], prompt: Callable[[], PromptEstimate]
    ) -> Usage | None:
        """
        @param size: Tells how many bytes of text there probably are.
        """
        linear = price.linear
        if not price.model or linear is None:
            return None
        given, most_given = prompt()
        details = {"input_bound": most_given}
        made = 0
        if self._makes_text:
            text = size()
            made = tokens(text)
            details["output_bound"] = int(max(made, text))
        cost = linear.cost(given, 0, 0, made, 0)
        if cost is None:
            return None
        return Usage(given, 0, 0, made, 0, cost, "estimated", price.model, details)

    def _price(self, key: tuple[str, str, str, str, str, bytes], at: float) -> _PreparedPrice:
        price = self._prepared.get(key)
        return price if price is not None and price.since <= at < price.until else self._prepare(key, at)

    def _listed_cost(self, counts: TypedCounts, asked: str, price: _PreparedPrice, at: float) -> float | None:
        return self._prices.cost(self._api, self._provider, price.model, asked, _units(counts), at, price.terms)

    def _prepare(self, key: tuple[str, str, str, str, str, bytes], at: float) -> _PreparedPrice:
        """What the general reading makes of such words, and the price for them."""
        said_model, asked, said_tier, speed, geo, header = key
        model = word(said_model)
        if not model or "-search-" in model or max(map(len, (asked, said_tier, speed, geo, header))) > MAX_WORD_CHARS:
            return _UNUSUAL  # not kept, as it may be long
        tier = said_tier.lower() if word(said_tier) else ""
        batch = tier == "batch"
        tier = "" if batch else tier
        terms = Terms(tier or header.decode("latin-1").lower(), word(speed), word(geo), batch)
        own, listed = self._prices.listed(self._api, self._provider, model, asked, at, terms)
        linear: LinearPrice | OwnLinearPrice | None = None
        if own is not None:
            linear = own_linear_price(own)
        elif listed is not None:
            linear = linear_price(listed)
        since, until = (-inf, inf) if linear is None else (linear.since, linear.until)
        price = self._prepared[key] = _PreparedPrice(model, terms, linear, since, until)
        return price


_UNUSUAL = _PreparedPrice("", Terms(), None, -inf, inf)


def typed_usage(api: str, provider: str, prices: Prices, operation: ProviderOperation) -> TypedUsage | None:
    """For an endpoint; C{None} where its responses have no type, or where its provider counts in a way of its own."""
    if operation.free or not operation.takes_text:
        return None
    readers = _readers(operation.name, provider)
    return None if readers is None else TypedUsage(api, provider, prices, *readers, makes_text=operation.makes_text)


@cache
def _readers(operation: str, provider: str) -> tuple[Read, Read] | None:
    """What reads responses, and what reads the events of streams."""
    typed = TYPED_RESPONSES.get(operation)
    if typed is None or provider in CHARGES:
        return None
    counts = typed.read(b'{"%b": %b}' % (typed.place.encode(), typed.sample.encode()))
    assert counts is not None
    typed_units, events = _units(counts), TYPED_STREAMS.get(operation, typed.read)
    units = {unit: count for unit, count in (count_units(from_json(typed.sample), provider) or {}).items() if count}
    if units == typed_units:
        return typed.read, events
    if units == {unit: count for unit, count in typed_units.items() if unit != "cache_write_tokens"}:
        # A provider that counts no writing
        return partial(_read_unwritten, typed.read), partial(_read_unwritten, events)
    return None


def _read_unwritten(read: Read, body: bytes) -> TypedCounts | None:
    counts = read(body)
    return None if counts is None or counts.written else counts


def _units(counts: TypedCounts) -> Units:
    """All counts that are not zero, by unit."""
    units: Units = {
        "input_tokens": counts.input,
        "cache_read_tokens": counts.read,
        "cache_write_tokens": counts.written,
        "output_tokens": counts.output,
        "output_reasoning_tokens": counts.reasoning,
        **counts.details,
    }
    return {unit: count for unit, count in units.items() if count}


def is_plain(body: bytes) -> bool:
    """Whether the general parser takes every JSON text that the typed decoder takes, as far as that looks at it.

    The decoder skips strings that are no UTF-8, integers of any length, and what is nested more deeply.
    """
    if body.count(b"{") + body.count(b"[") > MAX_NESTED_VALUES:
        return False
    if len(body) > MAX_DIGITS:
        # So many digits in a row would fill one of these places, whatever their beginning.
        step = MAX_DIGITS // 2
        if any(body[place : place + step // 2].isdigit() for place in range(0, len(body), step)):
            return False
    return body.isascii() or _is_utf8(body)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
