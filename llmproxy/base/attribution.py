"""Who or what a request is attributed to: values by name, each with where it comes from, as one short text. Pure.

The text is JSON, C{{"user":["ada","claimed"],"session":["",""]}}: all configured names in their order; C{""} where
there is no value. It passes through records, journals and tables as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

CLAIMED = "claimed"  # by the client, with a header field that it may set as it likes
OF_TOKEN = "token"  # fixed by the metadata of its token

MAX_ATTRIBUTIONS = 8  # names that the settings may have
MAX_VALUE_CHARACTERS = 128
NO_VALUE = ("", "")
OTHER = "(other)"  # under which values are added up that are too many to be told apart


class Attributed(NamedTuple):
    """One value of a request; C{source} is L{CLAIMED} or L{OF_TOKEN}."""

    name: str
    value: str
    source: str


def encode(values: Iterable[tuple[str, tuple[str, str]]]) -> str:
    """Names, each with its value and source, as text."""
    return json.dumps(dict(values), ensure_ascii=False, separators=(",", ":"))


@lru_cache(4096)
def decode(text: str) -> tuple[Attributed, ...]:
    """What L{encode} has made this text of, and nothing where it is another one."""
    try:
        return tuple(Attributed(str(name), str(value), str(source)) for name, (value, source) in _members(text))
    except (ValueError, TypeError, RecursionError):
        return ()


def _members(text: str) -> Iterable[tuple[str, tuple[str, str]]]:
    found = json.loads(text) if text else {}
    if not isinstance(found, dict):
        raise ValueError("is no attribution")
    return found.items()


def as_shown(text: str) -> dict[str, dict[str, object]]:
    """The same for people and programs: C{{"user": {"value": "ada", "claimed": true}}}, without what has no value."""
    return {each.name: {"value": each.value, "claimed": each.source == CLAIMED} for each in decode(text) if each.value}


def redacted(text: str, redact: Callable[[str], str]) -> str:
    """The same text, its values as C{redact} leaves them."""
    clean = encode((each.name, (redact(each.value)[:MAX_VALUE_CHARACTERS], each.source)) for each in decode(text))
    return clean if text else ""
