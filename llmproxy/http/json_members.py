"""Reads the top-level members of a JSON object of any size as its bytes pass, and checks that it is JSON (RFC 8259).

The text is checked strictly, so that no provider's parser can read another value in it: nothing behind the object, no
C{NaN}, no comments, no control characters in strings, no comma too many. Only wanted members are kept. The work of a
call is bounded: whole runs of shallow values are matched in C, and what needs too many steps beside that waits for the
next call, or is given up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from llmproxy.http.json_stretch import MIN_BYTES as MIN_STRETCH_BYTES
from llmproxy.http.json_stretch import stretch

MAX_DEPTH = 512
MAX_NAME_BYTES = 1024  # of a member's name, as written; none that is wanted is longer
MAX_VALUE_BYTES = 128 * 1024  # of a value that is kept
MAX_UNIQUE_BYTES = 16 * 1024  # of a value in which names are looked at for one that is there twice
MAX_STEPS = 200_000  # tokens that are taken one by one
MAX_FEED_STEPS = 400  # of these in one call: two or three milliseconds
MAX_ATOM_BYTES = 1024  # of a number
MAX_STRETCH_BYTES = 64 * 1024  # that are given to one call
MAX_STRING_BYTES = 64 * 1024  # likewise, of one string
FIRST_STRETCH_BYTES = 16 * 1024  # that are tried first: twice as many behind those that could be passed, else half
STEPS_BETWEEN = 16  # before it is tried again, where L{MIN_STRETCH_BYTES} could not be passed
MAX_RUN_BYTES = 4096  # that are matched at a time, since what does not match may be looked at several times
MIN_RUN_BYTES = 256  # of a string that are worth a call of their own
MAX_QUOTES_TRIED = 64  # escaped ones, within a string
MAX_ESCAPE_BYTES = 12  # of a character that is written as two escapes

_SPACE = rb"[ \t\r\n]*"
_STRING = rb'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SCALAR = rb"(?:%b|%b|true|false|null)" % (_STRING, _NUMBER)


def _deeper(value: bytes) -> bytes:
    """A value that may hold C{value}s, which stands in the expression but twice: it takes long to be compiled."""
    item = rb"%b%b%b" % (_SPACE, value, _SPACE)
    member = rb"%b%b%b:%b" % (_SPACE, _STRING, _SPACE, item)
    several = rb"(?:%b(?:,(?!%b%b)|(?=%b)))*%b"  # a comma is between two of them
    array = rb"\[" + several % (item, _SPACE, rb"\]", rb"\]", _SPACE) + rb"\]"
    members = rb"\{" + several % (member, _SPACE, rb"\}", rb"\}", _SPACE) + rb"\}"
    return rb"(?:%b|%b|%b)" % (_SCALAR, array, members)


_SHALLOW = _deeper(_deeper(_SCALAR))
_ITEMS = re.compile(rb"(?:%b%b%b,)*" % (_SPACE, _SHALLOW, _SPACE))
_MEMBERS = re.compile(rb"(?:%b%b%b:%b%b%b,)*" % (_SPACE, _STRING, _SPACE, _SPACE, _SHALLOW, _SPACE))
_SPACES = re.compile(_SPACE)
_INSIDE = re.compile(rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*')
_ATOM = re.compile(rb"(?:%b|true|false|null)(?![0-9A-Za-z+.-])" % _NUMBER)
_ATOM_BYTES = re.compile(rb"[0-9A-Za-z+.-]*")

# What may come next.
_VALUE, _VALUE_OR_END, _NAME, _NAME_OR_END, _COLON, _AFTER = range(6)
_QUOTE, _OBJECT, _ARRAY, _OBJECT_END, _ARRAY_END = b'"{[}]'
# What may stand in a list, and in an object, before each of these.
_BEFORE = ((b"0,", b'"":'), (b"", b""), (b"", b'"":0,'), (b"", b""), (b"", b'""'), (b"0", b'"":0'))


class JsonMembers:
    """Keeps the wanted top-level members.

    @ivar members: Their decoded values; of a name that is there several times, the last.
    @ivar repeated: Names of wanted members that are there several times, or whose value names one twice itself.
    @ivar oversize: Names of wanted members whose value is too long to be kept.
    @ivar is_object: Whether the text is an object.
    @ivar problem: Why it is not JSON, a sentence; C{""} so far.
    @ivar steps: Tokens taken one by one so far, a measure of the work.
    @ivar behind: Whether some of what came waits to be read: then C{feed(b"")} goes on.
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._containers = bytearray()
        self._expected = _VALUE
        self._in_string = False
        self._carry = b""
        self._name: str | None = None  # of the member that is being kept
        self._kept: bytearray | None = None  # a name or a value, while it comes
        self._from = 0  # where what is to be kept begins in the bytes at hand
        self._longest = FIRST_STRETCH_BYTES  # that is tried next
        self._has_runs = True  # whether what comes next may be matched, which no long string is
        self._ended = False
        self.members: dict[str, Any] = {}
        self.repeated: set[str] = set()
        self.oversize: set[str] = set()
        self.is_object = False
        self.problem = ""
        self.steps = 0
        self.behind = False

    def feed(self, data: bytes) -> None:
        """The next bytes of the text, as much of it as one call may read."""
        self.behind = False
        if self.problem:
            return
        if self._carry:
            data, self._carry = self._carry + data, b""
        size, most = len(data), self.steps + MAX_FEED_STEPS
        at = self._from = 0
        rest = 0  # steps before the next stretch is tried
        while 0 <= at < size and self.steps < most and not self.problem:
            if self._in_string:
                begin, at = at, self._string(data, at)
                if at - begin > MIN_STRETCH_BYTES:
                    rest = 0  # the string that was in the way is over
                continue
            if rest:
                rest -= 1
            elif len(self._containers) > 1 and size - at >= MIN_STRETCH_BYTES:
                found = self._stretch(data, at, at + self._longest)
                if found:
                    at += found
                    self._longest = min(2 * self._longest, MAX_STRETCH_BYTES)
                    continue
                if found is None and self._longest > MIN_STRETCH_BYTES:
                    self._longest //= 2
                    continue
                rest, self._has_runs = STEPS_BETWEEN, found is None
            at = self._step(data, at)
        taken = ~at if at < 0 else at
        if self.problem:
            return
        if self._kept is not None:
            self._keep(data[self._from : taken])
        self._carry = data[taken:]
        self.behind = 0 <= at < size
        if not self.behind and len(self._carry) > MAX_ATOM_BYTES:
            self.problem = "The request body holds a number that is too long."

    def ahead(self, data: bytes, at: int) -> int:
        """Up to where C{data} may come from C{at} in one call: as far as it is likely to be read by few looks at it."""
        if self._in_string and not self._carry:
            return min(_quote(data, at), at + MAX_STRING_BYTES)
        return at + MAX_STRETCH_BYTES if len(self._containers) > 1 else at

    def end(self) -> None:
        """There is no more."""
        while self.behind:
            self.feed(b"")
        if self._carry and not self._in_string and not self.problem:
            self.feed(b" ")  # a number at the very end
        if not self.problem and (self._containers or self._expected != _AFTER):
            self.problem = "The request body is not valid JSON: it ends too early."

    @property
    def complete(self) -> bool:
        """Whether the value that the text is has come to its end."""
        return not self._containers and self._expected == _AFTER and not self.problem

    def _step(self, data: bytes, at: int) -> int:
        """Go on behind the next token; C{~n}: more is needed to know the one at C{n}."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            return self._wrong("holds more values than this proxy reads")
        containers, expected = self._containers, self._expected
        if self._has_runs and (len(containers) > 1 or (containers and containers[0] == _ARRAY)):
            at = self._run(data, at, containers[-1], expected)
            expected = self._expected
        at = _SPACES.match(data, at).end()  # type: ignore[union-attr]
        if at == len(data):
            return at
        byte = data[at]
        if expected <= _VALUE_OR_END:
            return self._value(data, at, byte)
        if expected <= _NAME_OR_END and byte == _QUOTE:
            if len(containers) == 1:
                self._name, self._kept, self._from = None, bytearray(), at
            self._in_string = True
            return at + 1
        if expected == _COLON and byte == 0x3A:
            self._expected = _VALUE
            if self._name is not None and len(containers) == 1:
                self._kept, self._from = bytearray(), at + 1
            return at + 1
        return self._punctuation(data, at, byte)

    def _stretch(self, data: bytes, at: int, end: int) -> int | None:
        """Pass over all but the last tokens, where they belong to one top-level value: how many bytes.

        C{0}: none, since a string follows that is longer; C{None}: less may be passed.
        """
        containers = self._containers
        before = _BEFORE[self._expected]
        found = stretch(data[at:end], bytes(containers), before[containers[-1] == _OBJECT])
        if found is None or not found.size:
            return found and 0
        if found.closed:
            del containers[-found.closed :]
        containers += found.opened
        if found.last == 0x2C:
            self._expected = _NAME if containers[-1] == _OBJECT else _VALUE
        else:
            self._expected = {_ARRAY: _VALUE_OR_END, _OBJECT: _NAME_OR_END}.get(found.last, _AFTER)
        return found.size

    def _run(self, data: bytes, at: int, container: int, expected: int) -> int:
        """Pass over all shallow values that are there whole, each with its comma."""
        if container == _ARRAY and expected <= _VALUE_OR_END:
            end = _ITEMS.match(data, at, at + MAX_RUN_BYTES).end()  # type: ignore[union-attr]
            if end > at:
                self._expected = _VALUE
        elif container == _OBJECT and _NAME <= expected <= _NAME_OR_END:
            end = _MEMBERS.match(data, at, at + MAX_RUN_BYTES).end()  # type: ignore[union-attr]
            if end > at:
                self._expected = _NAME
        else:
            return at
        return end

    def _value(self, data: bytes, at: int, byte: int) -> int:
        containers = self._containers
        if byte == _QUOTE:
            self._in_string = True
            return at + 1
        if byte in b"{[":
            if not containers:
                self.is_object = byte == _OBJECT
            containers.append(byte)
            if len(containers) > MAX_DEPTH:
                return self._wrong(f"is nested deeper than {MAX_DEPTH} levels")
            self._expected = _NAME_OR_END if byte == _OBJECT else _VALUE_OR_END
            return at + 1
        if byte == _ARRAY_END and self._expected == _VALUE_OR_END:
            return self._close(data, at)
        end = _ATOM_BYTES.match(data, at).end()  # type: ignore[union-attr]
        if end == len(data):
            return ~at
        found = _ATOM.match(data, at)
        if found is None:
            return self._wrong("is not valid JSON")
        self._after(data, found.end())
        return found.end()

    def _punctuation(self, data: bytes, at: int, byte: int) -> int:
        containers, expected = self._containers, self._expected
        container = containers[-1] if containers else 0
        if expected == _AFTER and byte == 0x2C and container:
            self._expected = _NAME if container == _OBJECT else _VALUE
            return at + 1
        ends = expected in (_AFTER, _NAME_OR_END) if container == _OBJECT else expected == _AFTER
        if ends and container and byte == (_OBJECT_END if container == _OBJECT else _ARRAY_END):
            return self._close(data, at)
        return self._wrong("is not valid JSON")

    def _close(self, data: bytes, at: int) -> int:
        self._containers.pop()
        self._after(data, at + 1)
        return at + 1

    def _after(self, data: bytes, end: int) -> None:
        """A value has ended."""
        self._expected = _AFTER
        if self._kept is not None and len(self._containers) == 1:
            self._keep(data[self._from : end])
            name, kept, self._name, self._kept = self._name, self._kept, None, None
            if name is not None and kept is not None:
                self._found(name, bytes(kept))

    def _string(self, data: bytes, at: int) -> int:
        """Go on behind the end of the string that this is in, if that has come."""
        end = _INSIDE.match(data, _behind_run(data, at)).end()  # type: ignore[union-attr]
        if end == len(data):
            return end
        if data[end] != _QUOTE:
            if data[end] == 0x5C and len(data) - end < 6:
                return ~end
            return self._wrong("is not valid JSON: a string holds what it may not")
        self._in_string = False
        if self._expected in (_NAME, _NAME_OR_END):
            self._expected = _COLON
            if len(self._containers) == 1:
                self._named(data, end + 1)
        else:
            self._after(data, end + 1)
        return end + 1

    def _named(self, data: bytes, end: int) -> None:
        """A top-level member's name has ended."""
        self._keep(data[self._from : end])
        kept, self._kept = self._kept, None
        if kept is None or len(kept) > MAX_NAME_BYTES:
            return
        name = json.loads(bytes(kept).decode("utf-8", "replace"))
        if self._wanted(name):
            self._name = name

    def _keep(self, data: bytes) -> None:
        if self._kept is not None and len(self._kept) <= MAX_VALUE_BYTES:
            self._kept += data[: MAX_VALUE_BYTES + 1]

    def _found(self, name: str, raw: bytes) -> None:
        if name in self.members or name in self.oversize:
            self.repeated.add(name)
        if len(raw) > MAX_VALUE_BYTES:
            self.members.pop(name, None)
            self.oversize.add(name)
            return

        try:
            self.members[name], twice = read_value(raw)
        except (ValueError, RecursionError):
            self.oversize.add(name)  # a number of more digits than can be read, or nested too deep
            return
        if twice:
            self.repeated.add(name)

    def _wrong(self, what: str) -> int:
        self.problem = f"The request body {what}."
        return 0


def read_value(raw: bytes) -> tuple[Any, bool]:
    """A value that is JSON, and whether an object in it names a member twice, as far as that is looked at.

    C{ValueError} or C{RecursionError} where it cannot be read.
    """
    twice = False

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        value = dict(pairs)
        twice = twice or len(value) != len(pairs)
        return value

    hook = unique if len(raw) <= MAX_UNIQUE_BYTES else None
    return json.loads(raw.decode("utf-8", "replace"), object_pairs_hook=hook), twice


def _quote(data: bytes, at: int) -> int:
    """Where the next quotation mark stands that is behind no backslash, or one that is behind many others."""
    end = data.find(b'"', at)
    for _ in range(MAX_QUOTES_TRIED):
        if end <= at or data[end - 1] != 0x5C:
            break
        end = data.find(b'"', end + 1)
    return end if end >= 0 else len(data)


def _behind_run(data: bytes, at: int) -> int:
    """A place in the string that C{data} is within at C{at}, up to which it is as a string may be; C{at} where that is
    better found out in another way.

    What is taken for a part of a string is parsed as one, which takes a twentieth of the time of a regular expression,
    and fails where it is none, or has a half of a surrogate pair.
    """
    start, end = at, _quote(data, at)
    if end - at < MIN_RUN_BYTES:
        return at
    while data[start] & 0xC0 == 0x80 and start - at < 3:  # the rest of a character that was cut in two
        start += 1
    if end == len(data):
        while data[end - 1] & 0xC0 == 0x80 and len(data) - end < 3:
            end -= 1
        end -= data[end - 1] >= 0xC0
        backslash = data.find(b"\\", max(at, end - MAX_ESCAPE_BYTES), end)
        end = end if backslash < 0 else backslash
    try:
        from_json(b'"%b"' % data[start:end], cache_strings="none")
    except ValueError:
        return at
    return end
