"""Passes over a stretch of JSON (RFC 8259) inside of a value at once, and proves that it is what may stand there.

The bytes say which lists and objects the stretch would leave open, should it be valid. Put between what opened those
that are open before it and what closes those after it, it is a whole text, which is parsed in C: where that is valid,
so was the stretch, and what it left open is what was thought. A stretch with something that this parser refuses and
RFC 8259 does not, such as half of a surrogate pair, is not passed over.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic_core import from_json

MIN_BYTES = 1024  # of a stretch; a shorter one is not worth it
MAX_PASSES = 24  # over its brackets, which is how deeply it may be nested itself

# A string, or the beginning of one at the end; one that is not closed would else be looked at from each quote in it.
_STRING = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*(?:"|\\?\Z))', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_OPENED = {0x5B: b"[0,", 0x7B: b'{"":'}  # what a list or an object begins with that holds another


class Stretch(NamedTuple):
    """What was passed over.

    @ivar size: Its bytes.
    @ivar closed: How many of the lists and objects that were open it closes.
    @ivar opened: The brackets of those that it leaves open.
    @ivar last: Its last byte, a comma or a bracket.
    """

    size: int
    closed: int
    opened: bytes
    last: int


_NOT_WORTH_IT = Stretch(0, 0, b"", 0)


def stretch(data: bytes, containers: bytes, before: bytes) -> Stretch | None:
    """The longest stretch of C{data} from its beginning, which is between tokens; C{None} where it is not certain that
    it is valid, and where it closes one of the two outermost of what is open. One of no bytes: where it is not worth
    it, nor any of less C{data} would be.

    @param containers: The brackets of the lists and objects that are open there.
    @param before: What may stand before it in the innermost of them.
    """
    parts = _STRING.split(data)
    for index in range(len(parts) - 1, -1, -2):
        part = parts[index]
        cut = max(part.rfind(b","), part.rfind(b"]"), part.rfind(b"}"), part.rfind(b"["), part.rfind(b"{"))
        if cut >= 0:
            break
    else:
        return _NOT_WORTH_IT
    size = len(data) - (len(part) - cut - 1) - sum(map(len, parts[index + 1 :]))
    if size < MIN_BYTES:
        return _NOT_WORTH_IT
    if (opened := _unmatched(b"".join(parts[::2]).translate(None, _NO_BRACKETS))) is None:
        return None
    closed = len(opened) - len(opened.lstrip(b"]}"))
    opened = opened[closed:]
    if closed > len(containers) - 2:
        return None
    left = containers[len(containers) - closed - 1 :]  # from what holds all that is closed
    outer = (_OPENED[byte] for byte in left[:-1])
    text = b"".join((*outer, left[-1:], before, data[:size], _rest(part[cut], left[:1] + opened)))
    try:
        from_json(text, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        return None
    return Stretch(size, closed, opened, part[cut])


def _unmatched(brackets: bytes) -> bytes | None:
    """Those that have no counterpart; C{None} where they are nested too deeply."""
    for _ in range(MAX_PASSES):
        fewer = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(fewer) == len(brackets):
            return brackets
        brackets = fewer
    return None


_CLOSING = bytes.maketrans(b"[{", b"]}")


def _rest(last: int, containers: bytes) -> bytes:
    """What makes a whole of a text that has come up to a byte with so much open."""
    wanted = b"" if last != 0x2C else b"0" if containers.endswith(b"[") else b'"":0'
    return wanted + containers[::-1].translate(_CLOSING)
