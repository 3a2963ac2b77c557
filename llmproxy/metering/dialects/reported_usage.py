"""What a response, or one event of a stream, says of its usage, whatever its shape; and what several say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from llmproxy.metering.dialects.operation import Units
from llmproxy.metering.json_scanner import WantedMembers

MAX_WORD_CHARS = 128  # of a model's name, a tier

Counts = Mapping[str, Any]
Call = tuple[str, str]
"""A call that is billed by itself: its unit, and what tells it from others."""


class Terms(NamedTuple):
    """What a price hangs on beside the model; all as it was answered, C{""} where the response does not say.

    @ivar tier: The service tier; C{speed}: C{fast} or C{standard}; C{geo}: where the model ran.
    @ivar batch: Whether it was one of a batch.
    """

    tier: str = ""
    speed: str = ""
    geo: str = ""
    batch: bool = False


class ReportedUsage(NamedTuple):
    """What was read, in the provider's own words.

    @ivar usage: The usage object, or C{None}.
    @ivar final: Whether the counts can no longer change; C{None}: if the response came to its end.
    @ivar calls: Calls that are billed beside tokens.
    @ivar counted_calls: How many of them there were by the provider's own count, by unit; holds where it is told.
    @ivar others: Usage objects of other models that worked for the same response, with the models' names.
    """

    usage: Counts | None = None
    model: str = ""
    terms: Terms = Terms()
    final: bool | None = None
    calls: frozenset[Call] = frozenset()
    counted_calls: Mapping[str, int] = {}
    others: tuple[tuple[str, Counts], ...] = ()

    def units(self) -> Units:
        """What is billed by the call."""
        if not (self.calls or self.counted_calls):
            return {}
        units: Units = {}
        for unit, _ in self.calls:
            units[unit] = units.get(unit, 0) + 1
        units.update(self.counted_calls)
        return {unit: count for unit, count in units.items() if count}


NO_REPORT = ReportedUsage()
_NO_CALLS: frozenset[Call] = frozenset()
_NONE: Mapping[str, int] = {}


class UsageSyntax(NamedTuple):
    """How one provider's responses are read.

    @ivar places: Members of a response that hold a usage object.
    @ivar wrappers: Members of an event that hold the response it tells of.
    @ivar elsewhere: Finds a usage object that stands in none of these places.
    @ivar calls: Finds calls that are billed by themselves, in a response or an event.
    @ivar counted_calls: What a response says of how many there were.
    @ivar others: Finds usage objects of other models.
    @ivar final: Whether a response or event with a usage object has the last of it; C{None} where it cannot tell.
    @ivar looked_through: Members of a response that is too long to be kept in which something is looked for.
    """

    places: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    elsewhere: Callable[[Counts], Counts | None] | None = None
    calls: Callable[[Counts, Counts], frozenset[Call]] | None = None
    counted_calls: Callable[[Counts], Mapping[str, int]] | None = None
    others: Callable[[Counts], tuple[tuple[str, Counts], ...]] | None = None
    final: Callable[[Counts], bool | None] | None = None
    looked_through: WantedMembers = MappingProxyType({})


class UsageExtractorChain:
    """Reads responses and events of any of these kinds."""

    def __init__(self, wires: Sequence[UsageSyntax]) -> None:
        self._places = tuple({place: None for wire in wires for place in wire.places})
        self._wrappers = tuple({name: None for wire in wires for name in wire.wrappers})
        self._elsewhere = [wire.elsewhere for wire in wires if wire.elsewhere is not None]
        self._calls = [wire.calls for wire in wires if wire.calls is not None]
        self._called = [wire.counted_calls for wire in wires if wire.counted_calls is not None]
        self._others = [wire.others for wire in wires if wire.others is not None]
        self._final = [wire.final for wire in wires if wire.final is not None]

    def read(self, said: Any, whole: bool = False) -> ReportedUsage:
        """What C{said} tells, which is parsed JSON of any shape.

        @param whole: Whether it is a response, and not one of several that follow one another.
        """
        if not isinstance(said, dict):
            return NO_REPORT
        answer, usage = self._found(said)
        calls, counted_calls, others = _NO_CALLS, _NONE, ()
        for find in self._calls:
            calls |= find(said, answer)
        if "tool_usage" in answer:
            for tell in self._called:
                counted_calls = {**counted_calls, **tell(answer)}
            for name in self._others:
                others += name(answer)  # type: ignore[assignment]
        model = word(answer.get("model")) or word(answer.get("modelVersion")).removeprefix("models/")
        if usage is None:
            return ReportedUsage(
                None, model, Terms(word(answer.get("service_tier"))), None, calls, counted_calls, others
            )
        final = True if whole else self._is_final(said)
        return ReportedUsage(usage, model, _terms(answer, usage), final, calls, counted_calls, others)

    def _found(self, said: Counts) -> tuple[Counts, Counts | None]:
        """The response that is told of, and its usage object."""
        usage = self._placed(said)
        if usage is not None:
            return said, usage
        named: Counts | None = None
        for name in self._wrappers:
            inner = said.get(name)
            if isinstance(inner, dict):
                if (usage := self._placed(inner)) is not None:
                    return inner, usage
                if named is None and "model" in inner:
                    named = inner
        return said if named is None else named, None

    def _placed(self, answer: Counts) -> Counts | None:
        for place in self._places:
            found = answer.get(place)
            if isinstance(found, dict) and found:
                return found
        for find in self._elsewhere:
            if (found := find(answer)) is not None:
                return found
        return None

    def _is_final(self, said: Counts) -> bool | None:
        for tell in self._final:
            if (known := tell(said)) is not None:
                return known
        for name, reason in (("choices", "finish_reason"), ("candidates", "finishReason")):
            items = said.get(name)
            if isinstance(items, list) and (items or name == "candidates"):
                return any(isinstance(item, dict) and item.get(reason) for item in items) or None
        return None if "usageMetadata" in said else True


def merge(before: ReportedUsage, after: ReportedUsage) -> ReportedUsage:
    """What two events of a stream tell together.

    Counts are of all so far. What a later event does not say, or says to be zero or nothing, does not erase what was
    known: some servers send a zero for what an event has nothing to say about.
    """
    if before is NO_REPORT:
        return after
    return ReportedUsage(
        _merge_values(before.usage, after.usage),
        after.model or before.model,
        Terms(
            after.terms.tier or before.terms.tier,
            after.terms.speed or before.terms.speed,
            after.terms.geo or before.terms.geo,
            after.terms.batch or before.terms.batch,
        ),
        before.final if after.usage is None or (before.final and after.final is None) else after.final,
        before.calls | after.calls,
        {
            **before.counted_calls,
            **{unit: count for unit, count in after.counted_calls.items() if count or unit not in before.counted_calls},
        },
        after.others or before.others,
    )


def word(value: Any) -> str:
    """A name that can be shown and kept; any other is none."""
    return value if isinstance(value, str) and len(value) <= MAX_WORD_CHARS and value.isprintable() else ""


def _terms(answer: Counts, usage: Counts) -> Terms:
    tier = word(answer.get("service_tier")) or word(usage.get("service_tier")) or word(usage.get("serviceTier"))
    tier = (tier or word(usage.get("trafficType"))).lower()
    return Terms(
        "" if tier == "batch" else tier, word(usage.get("speed")), word(usage.get("inference_geo")), tier == "batch"
    )


def _merge_values(before: Any, after: Any) -> Any:
    """Two usage objects, or two of their values."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {**before, **{name: _merge_values(before.get(name), value) for name, value in after.items()}}
    return before if not after and before is not None else after
