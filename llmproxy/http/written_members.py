"""The top-level members of a JSON object (RFC 8259) as they are written, without anything else of it being made.

A parser in C finds them, which keeps the last of several of one name and does not say so. So they are looked for in the
text once more, one behind the other, with what belongs between them: where that is all of the text, there are no
others, and each is there once.
"""

from __future__ import annotations

import json
import re

from msgspec import MsgspecError, Raw
from msgspec.json import Decoder
from pydantic_core import from_json

from llmproxy.http.json_members import MAX_DEPTH, MAX_NAME_BYTES

MAX_MEMBERS = 1000
MAX_NAMES = 50_000  # in all of a text, each of which may take 0.2 us to be read
MAX_VALUES = 100_000  # in a text of which all is made, to prove that it is not nested too deeply

_SPACE = rb"[ \t\r\n]*"
_NAME = re.compile(rb'%b("[^"\\]*(?:\\.[^"\\]*)*")%b:' % (_SPACE, _SPACE))
_BEFORE_VALUE = re.compile(_SPACE)
_BEHIND_VALUE = re.compile(rb"%b([,}])" % _SPACE)
_END = re.compile(rb"%b\Z" % _SPACE)
_SPACED_COLONS = (b" :", b"\t:", b"\n:", b"\r:")


def written_members(body: bytes, *, of_any_depth: bool = False) -> dict[str, bytes] | None:
    """Each top-level member's value, with the white space before it; C{None} for what is no JSON object or not in
    UTF-8, where a member is there twice, and where to tell takes long.

    @param of_any_depth: Whether something in it may be nested more than L{MAX_DEPTH} deep.
    """
    if body[:1] != b"{" or not _has_few_names(body):
        return None
    try:
        if not body.isascii():
            body.decode()  # strings that are passed over are not checked for that
        members = _decode(body)
        if len(members) > MAX_MEMBERS or not (of_any_depth or _is_shallow(body)):
            return None
        return _proved(body, members)
    except (ValueError, MsgspecError, RecursionError):
        return None


def _proved(body: bytes, members: dict[str, Raw]) -> dict[str, bytes] | None:
    """C{None} where there are others; C{ValueError} where a name is not what it seems."""
    found, at = {}, 1
    for name, raw in members.items():
        start = _NAME.match(body, at)
        if start is None or len(start[1]) > MAX_NAME_BYTES or json.loads(start[1]) != name:
            return None
        begin = _BEFORE_VALUE.match(body, start.end()).end()  # type: ignore[union-attr]
        value = bytes(raw)
        end = _BEHIND_VALUE.match(body, begin + len(value))  # so that no number goes on
        if end is None or not body.startswith(value, begin):
            return None
        found[name] = body[start.end() : begin + len(value)]
        at = end.end()
        if (end[1] == b"}") != (len(found) == len(members)):
            return None
    return found if _END.match(body, at) is not None else None


def _has_few_names(body: bytes) -> bool:
    """A name has a colon behind it, next to its quotation mark or behind white space. Quotation marks within strings
    stand behind an odd number of backslashes: of all, those behind one at least are taken off, those behind two are put
    back, and so on. What is left after each that is put back is never too few."""
    if body.count(b":") <= MAX_NAMES:
        return True
    names = sum(map(body.count, _SPACED_COLONS))
    for backslashes in range(5):
        behind = body.count(b"\\" * backslashes + b'":')
        names += -behind if backslashes % 2 else behind
        if backslashes % 2 == 0 and names <= MAX_NAMES:
            return True
    return False


def _is_shallow(body: bytes) -> bool:
    """Whether it is certain that nothing is nested more than L{MAX_DEPTH} deep; C{ValueError} where it is not."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return True
    if body.count(b",") > MAX_VALUES:
        return False
    from_json(body, cache_strings="none")  # which goes 200 deep
    return True


_decode = Decoder(dict[str, Raw]).decode
