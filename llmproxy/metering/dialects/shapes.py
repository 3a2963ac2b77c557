"""Whose words a usage object is in, and which of its members counts what.

Most of that is C{genai-prices}' knowledge; what it has no words for is written in the dialects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llmproxy.metering.dialects.operation import Units

Counts = Mapping[str, Any]
Members = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
"""Paths into a usage object, each with the units that what stands there counts for."""

MAX_COUNT = 2**40  # a million million tokens; a count beyond it is none, and sums of all below it can be kept


def uncorrected(units: Units, usage: Counts) -> Units:
    """Counts that need no second look."""
    return units


def says_nothing(unit: str, usage: Counts) -> bool:
    """What is left out is not known."""
    return False


class Shape(NamedTuple):
    """One kind of usage object.

    @ivar fits: Whether a usage object is of this kind; asked in the order of L{registry}.
    @ivar listed: Where genai-prices knows how to read it: providers and flavours, the first that is there; C{""} stands
        for the provider of the request.
    @ivar members: How it is read where genai-prices does not know, or beside what it knows.
    @ivar correct: The counts as they are billed, where that is not what the members say at once.
    @ivar leaves_out: Whether there was none of a unit where the counts have none: some leave out what is zero.
    @ivar parts: The usage objects of the models that worked for the response, with their names (C{""}: the one that
        answered), where the members tell of one alone; empty where they tell all.
    """

    name: str
    fits: Callable[[Counts], bool]
    listed: tuple[tuple[str, str], ...] = ()
    members: Members = ()
    correct: Callable[[Units, Counts], Units] = uncorrected
    parts: Callable[[Counts], list[tuple[str, Counts]]] | None = None
    leaves_out: Callable[[str, Counts], bool] = says_nothing


def left_out(**members: str) -> Callable[[str, Counts], bool]:
    """There was none of a unit where its member is not there."""
    return lambda unit, usage: unit in members and usage.get(members[unit]) is None


def without_doubtful(units: Units, usage: Counts, **members: str) -> Units:
    """The counts but for units whose main member cannot be believed: what other members add to them is a part."""
    for unit, member in members.items():
        if number(usage.get(member)) is None:
            units.pop(unit, None)
    return units


def each_side(given: str, made: str) -> Callable[[Units, Counts], Units]:
    """L{without_doubtful} for the members that count the input and the output."""
    return lambda units, usage: without_doubtful(units, usage, input_tokens=given, output_tokens=made)


def has_any(*members: str) -> Callable[[Counts], bool]:
    """Fits what has one of these members."""
    return lambda usage: any(name in usage for name in members)


def number(value: Any, most: float = MAX_COUNT) -> int | float | None:
    """A count that can be believed; or whatever else is not negative, and not more than C{most}."""
    plain = value.__class__ is int or value.__class__ is float
    return value if plain and 0 <= value <= most else None
