"""Finds the counts in a usage object, by unit.

Which member counts what is C{genai-prices}' knowledge, and that of L{dialects}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from llmproxy.metering.dialects.operation import Units
from llmproxy.metering.dialects.registry import SHAPES
from llmproxy.metering.dialects.shapes import Shape, number
from llmproxy.metering.price_list import ArrayMatch, UsageExtractor, get_snapshot

_SHAPES = {shape.name: shape for shape in SHAPES}

MAX_ITEMS = 100  # of a list that is looked through for one


def shape_of(usage: Mapping[str, Any]) -> Shape | None:
    """In whose words a usage object is, told by the members that it has."""
    return next((shape for shape in SHAPES if shape.fits(usage)), None)


def count_units(usage: Mapping[str, Any], provider: str = "") -> Units | None:
    """The counts that stand in a usage object; C{None} where there is none that can be believed.

    @param provider: The provider's name in genai-prices, or C{""}.
    """
    shape = shape_of(usage)
    if shape is None:
        return None
    units: Units = {}
    for path, destinations in mappings(shape.name, provider):
        value: Any = usage
        for step in path:
            if step.__class__ is str:
                value = value.get(step) if isinstance(value, dict) else None
            else:
                value = step.extract(value) if isinstance(value, list) and _sound(value, step.field) else None
            if value is None:
                break
        else:
            if number(value) is not None:
                for unit in destinations:
                    units[unit] = units.get(unit, 0) + value
    return (shape.correct(units, usage) or None) if units else None


def untold_units(units: Units, usage: Mapping[str, Any], wanted: Iterable[str]) -> list[str]:
    """Those of the wanted units of which the usage object has no count that can be believed.

    @param units: What L{count_units} finds in it.
    """
    missing = [unit for unit in wanted if unit not in units]
    shape = shape_of(usage) if missing else None
    return missing if shape is None else [unit for unit in missing if not shape.leaves_out(unit, usage)]


def units_by_model(usage: Mapping[str, Any], provider: str = "") -> list[tuple[str, Units]]:
    """The counts of each model that worked for a response, with its name (C{""}: the one that answered).

    Empty where all that was used stands in the usage object itself.
    """
    shape = shape_of(usage)
    found = shape.parts(usage) if shape is not None and shape.parts is not None else []
    return [(name, units) for name, each in found if (units := count_units(each, provider)) is not None]


@cache
def mappings(name: str, provider: str) -> tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...]:
    """Paths into a usage object of this shape, each with the units that what stands there counts for."""
    shape = _SHAPES[name]
    extractor = _extractor(shape, provider)
    if extractor is None:
        return shape.members
    pairs = [(_steps(mapping.path), mapping.dest) for mapping in extractor.mappings]
    listed = tuple((path, tuple(dest for _, dest in found)) for path, found in groupby(_sorted(pairs), lambda p: p[0]))
    known = [path for path, _ in listed]
    return listed + tuple(each for each in shape.members if each[0] not in known)


def _sound(items: Sequence[Any], field: str) -> bool:
    """Whether genai-prices may look for its item here: it takes what it looks at for text without asking."""
    return len(items) < MAX_ITEMS and all(isinstance(i, dict) and isinstance(i.get(field, ""), str) for i in items)


def _extractor(shape: Shape, provider: str) -> UsageExtractor | None:
    """The provider's own way to tell, or that of those who everybody follows."""
    for home, flavour in shape.listed:
        for known in get_snapshot().providers:
            for extractor in (known.extractors or ()) if known.id == (home or provider) else ():
                if extractor.api_flavor == flavour and (shape.name != "chat" or _counts_prompts(extractor)):
                    return extractor
    return None


def _counts_prompts(extractor: UsageExtractor) -> bool:
    """Whether this reads OpenAI's chat words, in C{usage} itself."""
    return extractor.root in ("usage", ["usage"]) and any(m.path == "prompt_tokens" for m in extractor.mappings)


def _steps(path: str | Sequence[str | ArrayMatch]) -> tuple[Any, ...]:
    return (path,) if isinstance(path, str) else tuple(path)


def _sorted(pairs: list[tuple[tuple[Any, ...], str]]) -> list[tuple[tuple[Any, ...], str]]:
    """Those with the same path next to each other, else in their order."""
    first = [path for path, _ in pairs]
    return sorted(pairs, key=lambda pair: first.index(pair[0]))
