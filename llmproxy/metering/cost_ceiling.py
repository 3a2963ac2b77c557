"""What a request can use and cost at most, before anybody knows what it will use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from marshal import dumps
from operator import mul
from typing import Any, NamedTuple

from pydantic_core import to_json

from llmproxy.base.memo import BoundedMemo
from llmproxy.http.request_reader import RequestContent
from llmproxy.metering import estimating, media
from llmproxy.metering.catalog import Operations
from llmproxy.metering.deferred import BATCH_FACTOR
from llmproxy.metering.dialects.anthropic import MESSAGES, max_tool_calls
from llmproxy.metering.dialects.operation import (
    UNKNOWN_OPERATION,
    Members,
    ProviderOperation,
    Units,
    member,
    whole_number,
)
from llmproxy.metering.dialects.registry import possible_terms
from llmproxy.metering.dialects.reported_usage import Terms
from llmproxy.metering.prices import USUAL_TERMS, Prices

MAX_REMEMBERED_MODELS = 4096  # models
MAX_REMEMBERED_CEILINGS = 1024  # of requests that say the same of themselves
MAX_KEY_BYTES = 256  # of what such say of themselves, beside their text: of more, the digest is kept
KEY_DIGEST_BYTES = 16
FLAT_RATE_TOKENS = 100_000  # tokens of input up to which the price of so many is that of fewer, too
RATES_TTL_SECONDS = 60.0  # seconds for which a price is remembered: some change with the hour
MAX_COUNTED_TOKENS = 10**9  # what is beyond is not meant
TRANSCRIPT_TOKENS_PER_SECOND = 6  # for a second of speech, at most
MAX_TOKENS_PER_PICTURE = 6500  # that one picture is read as, at most, to make another of it

# Where an endpoint is not known, whatever bounds the output of any.
UNKNOWN_MAXIMA: tuple[tuple[str, ...], ...] = (
    ("max_tokens",),
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("max_tokens_to_sample",),
    ("max_gen_len",),
    ("options", "num_predict"),
    ("generationConfig", "maxOutputTokens"),
    ("inferenceConfig", "maxTokens"),
    ("inferenceConfig", "max_new_tokens"),
    ("textGenerationConfig", "maxTokenCount"),
    ("parameters", "max_new_tokens"),
    ("completion_args", "max_tokens"),
)
UNKNOWN_CHOICES = (("n",), ("best_of",), ("generationConfig", "candidateCount"))
UNKNOWN_MEMBERS = frozenset(path[0] for path in (*UNKNOWN_MAXIMA, *UNKNOWN_CHOICES))


class UsageCeiling(NamedTuple):
    """What one request can use at most.

    @ivar input: Tokens of input; C{output}: of output, of all C{choices} together.
    @ivar units: What it is billed beside, or instead, by unit; C{None} where that is unknown.
    @ivar maximum: The member that bounds the output of one choice; C{""} where there is none.
    @ivar free: Whether nothing is billed, whatever it says.
    @ivar terms: The terms that it may be answered with.
    @ivar parts: The requests of a batch, each with its model; what else is said here is the sum of theirs.
    """

    input: int = 0
    output: int = 0
    units: Mapping[str, int | float] | None = None
    choices: int = 1
    maximum: str = ""
    free: bool = False
    terms: Sequence[Terms] = (USUAL_TERMS,)
    parts: Sequence[tuple[str, UsageCeiling]] = ()

    @property
    def tokens(self) -> int:
        """All of them."""
        more = self.units or _NOTHING
        return self.input + self.output + int(more.get("input_tokens", 0) + more.get("output_tokens", 0))


_NOTHING: Mapping[str, int | float] = {}
FREE_OF_CHARGE = UsageCeiling(units=_NOTHING, free=True)


Rates = tuple[float, float, float]
"""USD for a request, and for a token of its input and of its output."""


class UsualCeiling(NamedTuple):
    """What requests can use at most that say the same of themselves, but for their text.

    @ivar tokenizer: Counts their text; C{None} where that is no input.
    @ivar window: Tokens of input that there can be.
    @ivar output: Tokens of output.
    @ivar rates: By the terms that they may be answered with; C{None} where one of these has no known price. Good until
        C{until}, in seconds since the epoch.
    """

    tokenizer: estimating.Tokenizer | None
    window: int
    output: int
    rates: tuple[Rates, ...] | None
    until: float


class CostCeiling:
    """Bounds what requests use, and prices that: all input as what costs most, be it read anew or written to the
    provider's cache, at the dearest of the terms that it may be answered with.

    @param providers: The providers' names in genai-prices, by the names of the APIs.
    """

    def __init__(self, prices: Prices, providers: Mapping[str, str], operations: Operations) -> None:
        self._operations = operations
        self._rates: BoundedMemo[tuple[str, str, Terms], tuple[float, Rates | None]] = BoundedMemo(
            MAX_REMEMBERED_MODELS
        )
        self._usual: BoundedMemo[tuple[object, ...], UsualCeiling] = BoundedMemo(MAX_REMEMBERED_CEILINGS)
        self._providers: dict[str, str] = {}
        self.reconfigure(prices, providers)

    def reconfigure(self, prices: Prices, providers: Mapping[str, str]) -> None:
        """Follow other prices from now on; APIs that are gone stay known to requests under way."""
        self._prices = prices
        self._providers |= providers
        self._rates.clear()
        self._usual.clear()

    def usual(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, output: int, at: float
    ) -> tuple[int, float | None] | None:
        """Tokens that a request can use at most, and what they cost: as L{bound} and L{cost} have it.

        C{None} where that hangs on more than its text and plain members, or is more than its tokens.
        """
        form, members, complete, problem, repeated, oversize, _, text, media, unseen_media = content
        if form != "json" or not (complete and model) or problem or repeated or oversize or media or unseen_media:
            return None
        said = dumps(members if type(members) is dict else dict(members), 2)  # which tells True from 1, as counts do
        if len(said) > MAX_KEY_BYTES:
            said = blake2b(said, digest_size=KEY_DIGEST_BYTES).digest()
        key = (method, api, path, model, output, said)
        known = self._usual.get(key)
        if known is None or at >= known.until:
            made = self._made_usual(method, api, path, model, content, output, at)
            if made is None:
                return None
            known = self._usual[key] = made
        tokenizer, window, made_output, rates, _ = known
        given = 0
        if tokenizer is not None:
            likely = sum(map(mul, text, tokenizer.rates))  # as estimating.estimate_prompt has it, in one go
            given = round(max(likely, 0.0) * tokenizer.margin + estimating.RESERVE_TOKENS)
            if given > window:
                given = window
            if given > FLAT_RATE_TOKENS:
                return None
        if rates is None:
            return given + made_output, None
        dearest = 0.0
        for first, each, other in rates:
            cost = first + given * each + made_output * other
            if cost > dearest:
                dearest = cost
        return given + made_output, dearest

    def _made_usual(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, output: int, at: float
    ) -> UsualCeiling | None:
        bound = self.bound(method, api, path, model, content, content.size, output)
        if bound.free or bound.parts or bound.units is None or bound.units:
            return None
        operation, provider = self._operations.operation(method, api, path), self._providers[api]
        takes = operation.takes_text or operation is UNKNOWN_OPERATION
        rates = [self._rates_at(api, model, at, terms) for terms in bound.terms]
        known = [each for each in rates if each is not None]
        return UsualCeiling(
            estimating.tokenizer_of(provider, model) if takes else None,
            estimating.context_window(provider, model),
            bound.output,
            tuple(known) if len(known) == len(rates) else None,
            min(self._rates[api, model, terms][0] for terms in bound.terms),
        )

    def bound(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, size: int, output: int
    ) -> UsageCeiling:
        """What a request can use at most.

        @param model: The model that it names, in its body or its path.
        @param size: Bytes of its body.
        @param output: Tokens of output where it sets no maximum of its own.
        """
        operation = self._operations.operation(method, api, path)
        if operation.free or content.form == "none":
            return FREE_OF_CHARGE
        if operation.requests is not None:
            return self._bound_of_batch(operation, api, content, size, output)
        provider, members = self._providers[api], content.members
        known = operation is not UNKNOWN_OPERATION
        choices = max(1, *(_counts(members, operation.choices if known else UNKNOWN_CHOICES) or (1,)))
        maxima = operation.maxima if known else UNKNOWN_MAXIMA
        most = max(_counts(members, maxima), default=output)
        makes = operation.makes_text or not known
        given = 0
        if operation.takes_text or not known:
            given = estimating.estimate_prompt(content, size, provider, model, operation.media).most
        return UsageCeiling(
            given,
            min(most * choices, MAX_COUNTED_TOKENS) if makes else 0,
            _beside(operation, model, content) if known else _NOTHING,
            choices,
            _maximum(members, maxima) if makes and maxima else "",
            terms=possible_terms(provider, members),
        )

    def _bound_of_batch(
        self, operation: ProviderOperation, api: str, content: RequestContent, size: int, output: int
    ) -> UsageCeiling:
        """The bounds of all its requests; unknown where they stand in a file, or are too many to be read.

        Input is that of the whole body, shared out by their lengths.
        """
        assert operation.requests is not None
        requests = operation.requests(content.members)
        if not requests or not content.complete:
            return UsageCeiling(maximum="max_tokens")
        provider = self._providers[api]
        given = estimating.estimate_prompt(content, size, provider, "", MESSAGES.media).most
        lengths = [len(to_json(members)) for _, members in requests]
        parts = [
            (
                model,
                UsageCeiling(
                    -(-given * length // sum(lengths)),
                    max(_counts(members, MESSAGES.maxima), default=output),
                    max_tool_calls(model, members),
                    terms=possible_terms(provider, members),
                ),
            )
            for (model, members), length in zip(requests, lengths, strict=True)
        ]
        made = min(sum(part.output for _, part in parts), MAX_COUNTED_TOKENS)
        return UsageCeiling(given, made, _NOTHING, len(parts), "max_tokens", parts=parts)

    def _cost_of_batch(self, api: str, parts: Sequence[tuple[str, UsageCeiling]], at: float) -> float | None:
        """Batches cost half, but what tools they call; an operator's own price is taken as it is."""
        total = 0.0
        for model, part in parts:
            cost = self.cost(api, model, part, at)
            if cost is None:
                return None
            whole = bool(part.units) or self._prices.own(api, "", model) is not None
            total += cost if whole else cost * BATCH_FACTOR
        return total

    def cost(self, api: str, model: str, bound: UsageCeiling, at: float) -> float | None:
        """USD at most; C{None} where that is unknown."""
        if bound.free:
            return 0.0
        if bound.parts:
            return self._cost_of_batch(api, bound.parts, at)
        if bound.units is None:
            return None
        dearest = 0.0
        for terms in bound.terms:
            cost = self._cost_at(api, model, bound, at, terms)
            if cost is None:
                return None
            dearest = max(dearest, cost)
        return dearest

    def _cost_at(self, api: str, model: str, bound: UsageCeiling, at: float, terms: Terms) -> float | None:
        if bound.units or bound.input > FLAT_RATE_TOKENS:
            return self._cost(api, model, bound.input, bound.output, at, terms, bound.units or _NOTHING)
        rates = self._rates_at(api, model, at, terms)
        return None if rates is None else rates[0] + bound.input * rates[1] + bound.output * rates[2]

    def _rates_at(self, api: str, model: str, at: float, terms: Terms) -> Rates | None:
        until, rates = self._rates.get((api, model, terms), (0.0, None))
        if at >= until:
            rates = self._rated(api, model, at, terms)
            self._rates[api, model, terms] = (at + RATES_TTL_SECONDS, rates)
        return rates

    def _rated(self, api: str, model: str, at: float, terms: Terms) -> Rates | None:
        """What a request costs by its tokens at most: long ones may be dearer by the token."""
        none = self._cost(api, model, 0, 0, at, terms)
        given = self._cost(api, model, FLAT_RATE_TOKENS, 0, at, terms)
        both = self._cost(api, model, FLAT_RATE_TOKENS, FLAT_RATE_TOKENS, at, terms)
        if none is None or given is None:
            return None
        # A model that makes no output, such as one for embeddings, has no price for it.
        return none, (given - none) / FLAT_RATE_TOKENS, 0.0 if both is None else (both - given) / FLAT_RATE_TOKENS

    def _cost(
        self,
        api: str,
        model: str,
        given: int,
        made: int,
        at: float,
        terms: Terms,
        more: Mapping[str, int | float] = _NOTHING,
    ) -> float | None:
        plain = {name: size for name, size in (("input_tokens", given), ("output_tokens", made)) if size or not more}
        for unit, size in more.items():
            plain[unit] = plain.get(unit, 0) + size  # type: ignore[assignment]
        provider = self._providers[api]
        costs = [
            self._prices.cost(api, provider, "", model, units, at, terms)
            for units in (plain, *([{**plain, "cache_write_tokens": given}] if given else []))
        ]
        return max((cost for cost in costs if cost is not None), default=None)


# Tools as they may be in a member that is too long to be read.
_UNSEEN_TOOLS: Sequence[Mapping[str, Any]] = (
    {"type": "web_search"},
    {"type": "web_search_20250305"},
    {"googleSearch": {}},
)


def _beside(operation: ProviderOperation, model: str, content: RequestContent) -> Units | None:
    """What is billed beside the tokens of the text, or instead of them."""
    if operation.name == "transcription":
        return _transcribed(model, content)
    members: Members = content.members
    if "tools" in content.oversize:
        members = {**members, "tools": list(_UNSEEN_TOOLS)}
    units = (operation.at_most or operation.billed_by_request)(model, members)
    if units and units.get("input_image_tokens") and content.form == "multipart":
        pictures = sum(medium.kind in ("image", "unknown") for medium in content.media)
        beyond = units["input_image_tokens"] - MAX_TOKENS_PER_PICTURE * pictures
        if beyond > 0:
            units["input_image_tokens"] -= beyond
            units["input_tokens"] -= beyond
    return units


def _transcribed(model: str, content: RequestContent) -> Units | None:
    """Speech is billed by its seconds (whisper-1), or by its tokens and those of the text."""
    if content.form != "multipart" or not content.complete:
        return None
    seconds = media.seconds(content.media)
    if model.startswith("whisper"):
        return {"audio_seconds": seconds}
    spoken = round(seconds * 10) + 500  # and a prompt
    return {
        "input_tokens": spoken,
        "input_audio_tokens": spoken,
        "output_tokens": round(seconds * TRANSCRIPT_TOKENS_PER_SECOND) + 100,
    }


def _counts(members: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> list[int]:
    found: list[int] = []
    for path in paths:
        # Nearly all paths are of one member; those that are absent need no further look.
        value = members.get(path[0]) if len(path) == 1 else member(members, path)
        if value is not None and (count := _count(value)) is not None:
            found.append(count)
    return found


def _maximum(members: Mapping[str, Any], maxima: tuple[tuple[str, ...], ...]) -> str:
    """The member that bounds the output: the first that is there, else the first that could be."""
    for path in maxima:
        if path[0] in members and member(members, path) is not None:
            return ".".join(path)
    return ".".join(maxima[0])


def _count(value: Any) -> int | None:
    """A count, however large; C{None} for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= MAX_COUNTED_TOKENS:
        return MAX_COUNTED_TOKENS
    return whole_number(value)
