"""Parses a JSON object (RFC 8259) in which no name is there twice: parsers differ in which of the two they take.

The parser in C keeps the last one and does not say so. That there was none is proved from the bytes, which takes less
time than to have each object looked at by Python; where that proves nothing, each is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic_core import from_json

MAX_VALUES = 20_000  # in a text that is parsed by one call
FEW = 200  # of these


def parse_strictly(body: bytes) -> dict[str, Any]:
    """The object that a text is; C{ValueError} or C{RecursionError} where it is none, and where L{check_names} rejects
    it."""
    values: dict[str, Any] = from_json(body, allow_inf_nan=False)
    check_names(body, values)
    return values


def check_names(body: bytes, values: Mapping[str, Any]) -> None:
    """C{ValueError} where a name is there twice in an object of a JSON text, and where it has more than L{MAX_VALUES}
    values.

    @param values: What was read of it.
    """
    if not names_once(body, values):
        _STRICT.decode(body.decode("utf-8"))


def members_once(body: bytes, members: Mapping[str, Any]) -> bool:
    """Whether it is certain, whatever else is there twice, that none of these members of a JSON text is: they are plain
    values, and their names stand once in its bytes, where none can be written in another way."""
    if b"\\u" in body:
        return False
    for name, value in members.items():
        if not name.isidentifier():  # some of the others have signs that JSON writes in two ways
            return False
        if type(value) is dict or type(value) is list or body.count(f'"{name}"'.encode()) != 1:
            return False
    return True


def names_once(body: bytes, values: Mapping[str, Any]) -> bool:
    """Whether it is certain that no object in a JSON text has a name twice, from its bytes and from what was read of
    it, in which the second has taken the place of the first. C{ValueError} where that is too much to look at.

    There are at most as many names as colons, and as there are quotes with a colon behind. Some of these may stand
    within strings: those behind a single backslash certainly do.
    """
    names, unread = 0, [values]
    while unread:
        value: Any = unread.pop()
        if type(value) is dict:
            names += len(value)
            unread.extend(value.values())
        elif type(value) is list:
            unread.extend(value)
        if len(unread) + names > MAX_VALUES:
            raise ValueError("It holds too many values.")
    if names == body.count(b":"):
        return True
    most = len(_NAME_ENDS.findall(body))
    if most > MAX_VALUES:
        raise ValueError("It holds too many names.")
    return names == most or names == most - len(_ESCAPED_NAME_ENDS.findall(body))


_NAME_ENDS = re.compile(rb'"[ \t\r\n]*:')
_ESCAPED_NAME_ENDS = re.compile(rb'"(?<=[^\\]\\")[ \t\r\n]*:')


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("A name is there twice.")
    return values


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON.")


_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def is_flat(body: bytes) -> bool:
    """Whether a body holds no more than L{MAX_VALUES} objects and lists. Prompts are long and hold few, which are found
    in a tenth of the time that it takes to count them."""
    for opening in (b"{", b"["):
        at = body.find(opening)
        for _ in range(FEW):
            if at < 0:
                break
            at = body.find(opening, at + 1)
        if at >= 0:
            return body.count(b"{") + body.count(b"[") <= MAX_VALUES
    return True
