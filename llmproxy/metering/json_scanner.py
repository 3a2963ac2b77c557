"""Finds a few members of a JSON text of any size, as its bytes pass, and keeps nothing else of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import from_json, to_json

WantedMembers: TypeAlias = "Mapping[bytes, WantedMembers | None]"
"""Members by name: C{None} for one that is kept whole; for an object, or a list of objects, what is wanted of it."""

MAX_DEPTH_LEVELS = 512
MAX_VALUE_BYTES = 64 * 1024  # bytes of a value that is kept
MAX_NAME_BYTES = 64  # bytes of the longest member name that is looked at, with the white space behind it
MAX_FEED_STEPS = 1200  # tokens that are taken one by one in one call: a few milliseconds
MAX_SKIPPED_BYTES = 8 * 1024  # that are skipped at a time; of a longer string the end is looked for
MAX_BEHIND_BYTES = 512 * 1024  # that came and are not read yet, beyond which nothing more is read
MAX_LISTED_OBJECTS = 300  # that are kept of lists
MAX_LISTED_BYTES = 128 * 1024  # of what is kept of them
MAX_WHOLE_BYTES = 16 * 1024  # of an object of a list that is read at once

_TOKEN = re.compile(rb'["{}\[\]]')
_TOKEN_OR_COMMA = re.compile(rb'["{}\[\],]')
# All that needs no look: whole strings, and lists and objects that have at most one more level inside.
# Only what repeats single bytes is possessive: around groups, CPython before 3.11.5 mishandles it (gh-106052), and
# Debian 12 has 3.11.2. Each piece can be read in one way only, so that giving up costs no more than reading did, and so
# many at a time that what `re` remembers of them stays small.
_STRING = rb'[^"\\]*+(?:\\.[^"\\]*+){0,1000}'
_PLAIN = rb'[^"{}\[\]]++|"%b"' % _STRING
_WITHIN = re.compile(_STRING, re.DOTALL)
_INNER = rb"(?:%b|\{(?:%b){0,32}\}|\[(?:%b){0,32}\]){0,32}" % (_PLAIN, _PLAIN, _PLAIN)
_SKIPPED = re.compile(rb"(?:%b|\{%b\}|\[%b\]){0,64}" % (_PLAIN, _INNER, _INNER), re.DOTALL)
_SCALARS = re.compile(rb"(?:%b){0,64}" % _PLAIN, re.DOTALL)
# An object with at most four more levels inside, as a message with the sources that it names.
_MIDDLE = rb"(?:%b|\{%b\}|\[%b\]){0,64}" % (_PLAIN, _INNER, _INNER)
_OUTER = rb"(?:%b|\{%b\}|\[%b\]){0,64}" % (_PLAIN, _MIDDLE, _MIDDLE)
_OBJECT = re.compile(rb"\{(?:%b|\{%b\}|\[%b\]){0,64}\}" % (_PLAIN, _OUTER, _OUTER), re.DOTALL)
_SPACE = b" \t\r\n"


@dataclass(slots=True)
class _Place:
    """An object, or a list of objects, whose members are looked at.

    @ivar depth: How deep its own brackets are; C{level}: how deep the members are.
    @ivar members: What was found in the object, or in the list's object that is being read.
    @ivar in_list: Whether it is a list, or lies in one.
    @ivar bytes_before: What was kept of lists when the list's object began.
    """

    depth: int
    level: int
    wanted: WantedMembers
    members: dict[str, Any]
    items: list[dict[str, Any]] | None = None
    in_list: bool = False
    bytes_before: int = 0


class JsonMemberScanner:
    """Keeps the wanted members of an object; of several, in a top array or one after the other, those of all together.

    The text need not be well-formed, and may come in any chunks. A call takes L{MAX_FEED_STEPS} at most, whatever it is
    given; what is left waits for the next.

    @ivar values: What was found; the last of each, where there are several, but all objects of a list.
    @ivar several: Whether the text is not one object alone.
    @ivar behind: Whether some of what came waits to be read.
    @ivar failed: Whether too much of it did, so that the rest of the text is not read at all.
    @ivar overfull: Whether the lists hold more than is kept of them.
    """

    def __init__(self, wanted: WantedMembers, relevant: Callable[[dict[str, Any]], object] = bool) -> None:
        """
        @param relevant: Whether an object of a list is kept, told by what was found in it.
        """
        self._relevant = relevant
        self._depth = 0
        self._place = _Place(0, 0, wanted, {})  # its level is 0 until the text has begun
        self._outer: list[_Place] = []
        self._entered: tuple[str, WantedMembers] | None = None  # the value that comes next, and what is wanted of it
        self._listed = self._listed_bytes = 0
        self._in_string = False
        self._odd = False  # whether what came ends with a backslash that is for the next byte
        self._carry = b""
        self._name = b""
        self._value: bytearray | None = None
        self._base = 0
        self.values = self._place.members
        self.several = False
        self.behind = False
        self.failed = False
        self.overfull = False

    @property
    def held_bytes(self) -> int:
        """Bytes that came and wait to be read, or are kept of lists."""
        return self._listed_bytes + (len(self._carry) if self.behind else 0)

    def feed(self, data: bytes) -> None:
        """The next bytes of the text; C{b""}: go on with what waits."""
        if self.failed:
            return
        if self._carry:
            data, self._carry = self._carry + data, b""
        self.behind = False
        at, size, steps = 0, len(data), MAX_FEED_STEPS
        while at < size:
            if not steps:
                self._wait(data[at:])
                return
            steps -= 1
            if self._in_string:
                at = self._string(data, at)
                continue
            level = self._place.level
            if self._depth != level > 0 and self._value is None:
                if self._depth > MAX_DEPTH_LEVELS:
                    self.failed = True  # no response is like that
                    return
                skipped = _SKIPPED if self._depth > level else _SCALARS
                at = skipped.match(data, at, at + MAX_SKIPPED_BYTES).end()  # type: ignore[union-attr]
                if self._depth < level and (end := self._whole(data, at)):
                    at = end
                    continue
            at = self._token(data, at)
            if at < 0:
                self._carry = data[-at - 2 :]
                return

    def _wait(self, rest: bytes) -> None:
        self.failed = len(rest) > MAX_BEHIND_BYTES
        self.behind = not self.failed
        self._carry = rest if self.behind else b""

    def _token(self, data: bytes, at: int) -> int:
        """Go on behind the next token; C{-2 - n}: it starts at C{n}, and more is needed to know what it is."""
        capturing = self._value is not None
        found = (_TOKEN_OR_COMMA if capturing else _TOKEN).search(data, at)
        if found is None:
            self._keep(data[at:])
            return len(data)
        where, token = found.start(), data[found.start()]
        if token == 0x22:
            if not capturing and self._depth == self._place.level > 0:
                self._keep(data[at:where])
                return self._member(data, where)
            self._keep(data[at : where + 1])
            self._in_string, self._odd = True, False
        elif token == 0x2C:
            self._keep(data[at:where])
            if self._depth == self._base:
                self._found()
            else:
                self._keep(b",")
        elif token in b"{[":
            self._keep(data[at : where + 1])
            self._depth += 1
            if not capturing:
                self._opened(token == 0x5B)
        else:
            self._keep(data[at:where])
            ends = not capturing or self._depth == self._base
            if capturing and ends:
                self._found()
            else:
                self._keep(data[where : where + 1])
            self._depth -= 1
            if ends:
                self._closed()
        return where + 1

    def _opened(self, is_list: bool) -> None:
        """An object begins, or a list."""
        place, depth, entered = self._place, self._depth, self._entered
        self._entered = None
        if depth == 1 or not place.level:
            self.several = self.several or is_list or place.level > 0
            place.level = 2 if is_list else 1
        elif entered is not None and not (is_list and self.overfull):
            name, wanted = entered
            kind: type[Any] = list if is_list else dict
            inner: Any = place.members.get(name)
            if inner.__class__ is not kind:
                inner = place.members[name] = kind()
            self._outer.append(place)
            if is_list:
                self._place = _Place(depth, depth + 1, wanted, {}, inner, True)
            else:
                self._place = _Place(depth, depth, wanted, inner, None, place.in_list)
        elif place.items is not None and depth == place.level and not is_list:
            place.members, place.bytes_before = {}, self._listed_bytes
            place.items.append(place.members)

    def _whole(self, data: bytes, at: int) -> int:
        """Go on behind an object of a list, if it is a usual one and all there; C{0} if not."""
        place = self._place
        if place.items is None or self._depth != place.depth:
            return 0
        found = _OBJECT.match(data, at, at + MAX_WHOLE_BYTES)
        if found is None:
            return 0
        try:
            members = self._wanted_of(from_json(found[0]), place.wanted)
        except ValueError:
            return 0
        if self._relevant(members):
            place.items.append(members)
            self._listed_bytes += len(to_json(members))
            self._count_listed()
        return found.end()

    def _wanted_of(self, value: dict[str, Any], wanted: WantedMembers) -> dict[str, Any]:
        """What is kept of an object of a list."""
        found: dict[str, Any] = {}
        for key, within in wanted.items():
            name = key.decode()
            each = value.get(name)
            if within is None:
                if each is not None:
                    found[name] = each
            elif isinstance(each, dict):
                found[name] = self._wanted_of(each, within)
            elif isinstance(each, list):
                items = [self._wanted_of(item, within) for item in each if isinstance(item, dict)]
                found[name] = [item for item in items if self._relevant(item)]
        return found

    def _closed(self) -> None:
        """An object has ended, or a list."""
        place = self._place
        self._entered = None
        if self._depth < place.depth and self._outer:
            self._place = self._outer.pop()
        elif place.items and self._depth == place.depth and place.items[-1] is place.members:
            if self._relevant(place.members):
                self._count_listed()
            else:
                place.items.pop()
                self._listed_bytes = place.bytes_before
            place.members = {}

    def _count_listed(self) -> None:
        self._listed += 1
        if self._listed == MAX_LISTED_OBJECTS or self._listed_bytes > MAX_LISTED_BYTES:
            self._leave_lists()

    def _leave_lists(self) -> None:
        """No more is kept of them."""
        self.overfull = True
        while self._place.in_list:
            self._place = self._outer.pop()

    def _member(self, data: bytes, where: int) -> int:
        """A string where a member's name may stand; its value begins behind the colon."""
        self._entered = None
        end = data.find(b'"', where + 1, where + MAX_NAME_BYTES)
        escaped = b"\\" in data[where : where + MAX_NAME_BYTES if end < 0 else end]
        if end < 0 or escaped:
            if len(data) - where < MAX_NAME_BYTES and not escaped:
                return -2 - where
            self._in_string, self._odd = True, False
            return where + 1
        behind = end + 1
        while behind < len(data) and data[behind] in _SPACE and behind - where < MAX_NAME_BYTES:
            behind += 1
        if behind >= len(data) and behind - where < MAX_NAME_BYTES:
            return -2 - where
        name, wanted = data[where + 1 : end], self._place.wanted
        if data[behind : behind + 1] == b":" and name in wanted:
            within = wanted[name]
            if within is None:
                self._name, self._value, self._base = name, bytearray(), self._depth
                return behind + 1
            self._entered = name.decode(), within
        return end + 1

    def _string(self, data: bytes, at: int) -> int:
        """Go on behind the end of the string that this is in, if that has come."""
        start = at + self._odd
        end = data.find(b'"', start)
        if data.find(b"\\", start, len(data) if end < 0 else end) >= 0:
            end = start
            while (more := _WITHIN.match(data, end).end()) > end:  # type: ignore[union-attr]
                end = more
        end = len(data) if end < 0 else end
        if end < len(data) and data[end] == 0x22:
            self._in_string = False
            end += 1
        else:
            self._odd = end < len(data)  # a backslash, and what it is for is yet to come
            end = len(data)
        self._keep(data[at:end])
        return end

    def _keep(self, data: bytes) -> None:
        if self._value is not None and data:
            if len(self._value) + len(data) <= MAX_VALUE_BYTES:
                self._value += data
            else:
                self._name, self._value = b"", bytearray()  # of a length that nothing wanted has
                self.overfull = self.overfull or self._place.in_list

    def _found(self) -> None:
        value, place = self._value, self._place
        self._value = None
        if value is None or not self._name:
            return
        if place.in_list:
            self._listed_bytes += len(value)
            if self._listed_bytes > MAX_LISTED_BYTES:
                self._leave_lists()
        try:
            found = from_json(bytes(value))
        except ValueError:
            found = None
        if found is not None or not place.in_list:
            place.members[self._name.decode()] = found
