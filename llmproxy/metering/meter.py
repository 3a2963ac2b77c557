"""The meter of one response: fed with its bytes as they pass, it tells what was used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from llmproxy.http import fields
from llmproxy.http.body_hints import EVENT_STREAM, media_type
from llmproxy.http.content_coding import Decoder, can_decode
from llmproxy.metering import estimating, frames
from llmproxy.metering.body_readers import EventStreamReader, JsonBodyReader, UsageReader
from llmproxy.metering.dialects import registry
from llmproxy.metering.dialects.operation import UNKNOWN_OPERATION, Members, ProviderOperation, Units
from llmproxy.metering.dialects.reported_usage import NO_REPORT, ReportedUsage
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.extraction import count_units, units_by_model, untold_units
from llmproxy.metering.prices import Prices
from llmproxy.metering.sse import LINE_ENDS, HeldByteCounter
from llmproxy.metering.typed_usage import TypedUsage, typed_usage
from llmproxy.model import Usage

_FIELDS = frozenset(
    {"input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "output_reasoning_tokens"}
)
_NONE: Mapping[str, int] = {}
NO_USAGE = Usage()
FREE_USAGE = Usage(cost_usd=0.0)
UNKNOWN_USAGE = Usage(basis="unknown")
"""What costs something that nobody can tell."""
_LINES = (b"application/x-ndjson", b"application/jsonl", b"application/x-jsonlines")


class Dialect(NamedTuple):
    """How the answers of one endpoint are measured.

    @ivar api: The API's name in the settings; C{provider} the provider's in genai-prices, or C{""}.
    @ivar prices: What is counted costs so much.
    @ivar operation: What a request there does.
    @ivar typed: Measures its usual JSON responses; C{None} where nothing does but the general reading.
    """

    api: str
    provider: str
    prices: Prices
    operation: ProviderOperation = UNKNOWN_OPERATION
    typed: TypedUsage | None = None

    @property
    def takes(self) -> bool:
        """Whether a request there is text that counts as input."""
        return self.operation.takes_text

    @property
    def sides(self) -> list[str]:
        """The units of what is taken and made."""
        return ["input_tokens"] * self.takes + ["output_tokens"] * self.makes

    @property
    def makes(self) -> bool:
        """Whether text is made there. What is neither taken nor made is never estimated."""
        return self.operation.makes_text


def dialect(api: str, provider: str, prices: Prices, path: bytes) -> Dialect:
    """The dialect of what an API has at C{path}."""
    operation = registry.operation(provider, path)
    return Dialect(api, provider, prices, operation, typed_usage(api, provider, prices, operation))


class Meter:
    """Measures one response.

    @ivar feed: Takes the next bytes of the body, as they are on the wire; never raises.
    @ivar steps: Likewise, where they are encoded: to be iterated, a little work at a time; C{None} where they are not.
    @ivar error: Once it is measured, the provider's code for the error that the response is or ended in; else C{""}.
    """

    __slots__ = ("_decoder", "_dialect", "_invocation", "_size", "_tap", "_tier", "error", "feed", "steps")

    def __init__(
        self,
        dialect: Dialect,
        lines: Sequence[bytes] = (),
        holding: HeldByteCounter | None = None,
        *,
        decoded: bool = False,
        events: bool = False,
    ) -> None:
        """
        @param lines: The field lines of the response.
        @param holding: Called with what is kept of it. It is given back when the response is measured.
        @param decoded: Whether it is fed with the body as it is without the coding that the lines tell of.
        @param events: Whether it is known to be a stream of events in no coding.
        """
        self._dialect = dialect
        self._decoder: Decoder | None = None
        self._size = 0
        self.error = ""
        self.steps: Callable[[bytes], Iterator[None]] | None = None
        self._invocation = _bedrock_header_counts(lines) if dialect.provider == "aws" else None
        tier = fields.value(lines, b"x-gemini-service-tier") if dialect.provider == "google" else None
        self._tier = b"" if tier is None else tier
        operation = dialect.operation
        self._tap: UsageReader | None = None
        if events:
            self._tap = EventStreamReader(operation.mark, operation.also, holding=holding)
            self.feed = self._tap.feed
            return
        kind, encoding = _media_type_and_coding(lines)
        if kind == EVENT_STREAM:
            self._tap = EventStreamReader(operation.mark, operation.also, holding=holding)
        elif kind in _LINES:
            self._tap = EventStreamReader(operation.mark, operation.also, LINE_ENDS, holding)
        elif kind == frames.MEDIA_TYPE:
            self._tap = EventStreamReader(operation.mark, operation.also, holding=holding)
        elif kind.endswith(b"json"):
            self._tap = JsonBodyReader(holding)
        self.feed = self._count if self._tap is None else self._tap.feed
        if kind == frames.MEDIA_TYPE:
            self.feed = frames.EventStreamDecoder(self.feed).feed
        if self._tap is not None and encoding not in (b"", b"identity") and not decoded:
            if can_decode(encoding):
                self._decoder = Decoder(encoding, self.feed)
                self.feed, self.steps = self._decoder.feed, self._decoder.decode_in_steps
            else:
                self._tap, self.feed = None, self._count

    @property
    def behind(self) -> bool:
        """Whether some of the body waits to be read by L{work}, before it is measured."""
        return self._tap is not None and self._tap.behind

    def work(self) -> None:
        """Read some more of what waits: a few milliseconds."""
        if self._tap is not None:
            self._tap.work()

    def discard(self) -> None:
        """Nobody asks what was used."""
        if self._tap is not None:
            self._tap.discard()

    def _count(self, data: bytes) -> None:
        self._size += len(data)

    def measured(
        self,
        *,
        asked: str,
        given: Callable[[], PromptEstimate],
        complete: bool,
        at: float,
        members: Members = _NONE,
    ) -> Usage:
        """What was used; never raises. To be called once.

        @param asked: The model that the client asked for.
        @param given: Gives how many tokens the request probably was.
        @param complete: Whether the response came to its end.
        @param at: Seconds since the epoch.
        @param members: The request's own top-level members, as far as they are known.
        """
        home = self._dialect
        tap = self._tap
        if tap is not None and self._decoder is not None and self._decoder.failed:
            tap.discard()
            tap = None
        if home.typed is not None and tap.__class__ is JsonBodyReader:
            body = tap.whole()
            if body is not None and (usage := home.typed.measured(body, asked, self._tier, at)) is not None:
                tap.discard()
                return usage
        if complete and home.typed is not None and self._invocation is None and tap.__class__ is EventStreamReader:
            usage = home.typed.measured_stream(tap, asked, self._tier, at, given)
            if usage is not None:
                return usage
        said = NO_REPORT if tap is None else tap.reading()
        self.error = "" if tap is None else tap.error()
        complete = complete and not self.error
        if home.operation.free:
            return FREE_USAGE
        units = None if said.usage is None else count_units(said.usage, home.provider)
        if units is None and self._invocation is not None:
            units, said = self._invocation, said._replace(final=True)
        if units is None and not (home.takes or home.makes):
            return self._requested(said, asked, members, at)
        basis, details, split = "exact", _NONE, list[tuple[str, Units]]()
        if said.usage is not None and "iterations" in said.usage:
            split = units_by_model(said.usage, home.provider)
        if units is None or not (complete if said.final is None else said.final):
            units = units or {}
            doubtful = [unit for unit in home.sides if unit == "output_tokens" or unit not in units]
            basis = "estimated"
        else:
            doubtful = [] if split else untold_units(units, said.usage or {}, home.sides)
        if doubtful:
            units, details = self._estimated(tap, units, doubtful, given)
            basis = "estimated"
        if said.terms.tier == "" and self._tier:
            said = said._replace(terms=said.terms._replace(tier=self._tier.decode("latin-1").lower()))
        called = said.units()
        cost = self._cost(said, asked, {**units, **called} if called else units, split, at)
        if split:
            units = _sum_units(each for _, each in split)
        return _usage({**units, **called} if called else units, cost, basis, said.model, details)

    def _requested(self, said: ReportedUsage, asked: str, members: Members, at: float) -> Usage:
        """What is told by the request alone."""
        home = self._dialect
        units = home.operation.billed_by_request(said.model or asked, members)
        if not units:
            return UNKNOWN_USAGE if units is None else NO_USAGE
        cost = home.prices.cost(home.api, home.provider, said.model, asked, units, at, said.terms)
        return _usage(units, cost, "exact", said.model, _NONE)

    def _cost(
        self, said: ReportedUsage, asked: str, units: Units, split: list[tuple[str, Units]], at: float
    ) -> float | None:
        """USD: as the provider charged it, where it says so, else by its prices.

        @param split: What each model used, where several worked.
        """
        home = self._dialect
        charged = None if said.usage is None else registry.provider_charge(home.provider, said.usage)
        if charged is not None and home.prices.own(home.api, said.model, asked) is None:
            return charged
        if not split and not said.others:
            return home.prices.cost(home.api, home.provider, said.model, asked, units, at, said.terms)
        worked: list[tuple[str, Units]] = [("", units)]
        if split:
            beside = {unit: size for unit, size in units.items() if not unit.endswith("_tokens")}
            worked = [*split, *([("", beside)] if beside else [])]
        for name, usage in said.others:
            found = count_units(usage, home.provider)
            worked.append((name, found or {"image_generations": 1}))
        total = 0.0
        for name, each in worked:
            model, wanted = (name, "") if name else (said.model, asked)
            cost = home.prices.cost(home.api, home.provider, model, wanted, each, at, said.terms)
            if cost is None:
                return None
            total += cost
        return total

    def _estimated(
        self, tap: UsageReader | None, known: Units, doubtful: Sequence[str], given: Callable[[], PromptEstimate]
    ) -> tuple[Units, dict[str, int]]:
        """The most likely counts, and in C{details} what they can be at most.

        @param doubtful: The units that are not known, or of which there may be more.
        """
        units, bounds = dict(known), {}
        if "input_tokens" in doubtful:
            likely, most = given()
            cached = int(known.get("cache_read_tokens", 0) + known.get("cache_write_tokens", 0))
            units["input_tokens"], bounds["input_bound"] = max(likely, cached), max(most, cached)
        if "output_tokens" in doubtful:
            size = self._size if self._decoder is None else self._decoder.received
            text = float(size) if tap is None else tap.text()
            least = known.get("output_tokens", known.get("output_reasoning_tokens", 0))
            units["output_tokens"] = max(least, estimating.tokens(text))
            bounds["output_bound"] = int(max(units["output_tokens"], text))
        return units, bounds


def _sum_units(parts: Iterable[Units]) -> Units:
    """The sum of what several models used for one response."""
    units: Units = {}
    for part in parts:
        for unit, size in part.items():
            units[unit] = units.get(unit, 0) + size
    return units


def usage_without_response(dialect: Dialect, *, asked: str, given: Callable[[], PromptEstimate], at: float) -> Usage:
    """What was probably used of a request that got no response, although its provider may have begun with it.

    The parameters are as in L{Meter.measured}.
    """
    likely, most = given() if dialect.takes else (0, 0)
    if not likely:
        return NO_USAGE
    units: Units = {"input_tokens": likely}
    cost = dialect.prices.cost(dialect.api, dialect.provider, "", asked, units, at)
    return _usage(units, cost, "estimated", "", {"input_bound": most})


def _usage(units: Units, cost: float | None, basis: str, model: str, details: Mapping[str, int]) -> Usage:
    """Counts by unit as the frozen value that travels on."""
    more = _NONE
    if not units.keys() <= _FIELDS:
        more = {unit: int(size) for unit, size in units.items() if unit not in _FIELDS and size}
    get = units.get
    return Usage(
        int(get("input_tokens", 0)),
        int(get("cache_read_tokens", 0)),
        int(get("cache_write_tokens", 0)),
        int(get("output_tokens", 0)),
        int(get("output_reasoning_tokens", 0)),
        cost,
        basis,
        model,
        {**more, **details} if more or details else _NONE,
    )


def _media_type_and_coding(lines: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The media type of a response, and how it is encoded; both in lower case."""
    encoding = b",".join(fields.values(lines, b"content-encoding"))
    return media_type(lines), encoding.lower()


def _bedrock_header_counts(lines: Sequence[bytes]) -> Units | None:
    """What Bedrock tells in the head of a response."""
    given, made = (fields.value(lines, b"x-amzn-bedrock-" + name + b"-token-count") for name in (b"input", b"output"))
    if given is None or made is None or not (given.isdigit() and made.isdigit()) or len(given + made) > 30:
        return None
    return {"input_tokens": int(given), "output_tokens": int(made)}
