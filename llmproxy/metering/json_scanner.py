"""Finds a few members of a JSON text of any size, as its bytes pass, and keeps nothing else of it."""

from __future__ import annotations

import re
from collections.abc import Collection

MAX_DEPTH_LEVELS = 512
MAX_VALUE_BYTES = 64 * 1024  # bytes of a value that is kept
MAX_NAME_BYTES = 64  # bytes of the longest member name that is looked at, with the white space behind it
MAX_FEED_STEPS = 1200  # tokens that are taken one by one in one call: a few milliseconds
MAX_SKIPPED_BYTES = 8 * 1024  # that are skipped at a time; of a longer string the end is looked for
MAX_BEHIND_BYTES = 512 * 1024  # that came and are not read yet, beyond which nothing more is read

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
_SPACE = b" \t\r\n"


class JsonMemberScanner:
    """Keeps the values of the wanted members that stand at the top of the text, or in the objects of a top array.

    Those of an object that stands there under a name of C{entered} are looked for as well.

    The text need not be well-formed, and may come in any chunks. A call takes L{MAX_FEED_STEPS} at most, whatever it is
    given; what is left waits for the next.

    @ivar values: The raw value of each member that was found; the last, where there are several.
    @ivar behind: Whether some of what came waits to be read.
    @ivar failed: Whether too much of it did, so that the rest of the text is not read at all.
    """

    def __init__(self, wanted: Collection[bytes], entered: Collection[bytes] = ()) -> None:
        self._wanted = wanted
        self._entered = entered
        self._enters = False  # the value that comes next, should it be an object
        self._top = 0  # the level where members stand, but for those of what was entered
        self._depth = 0
        self._level = 0  # where the members stand; 0 until the text has begun
        self._in_string = False
        self._odd = False  # whether what came ends with a backslash that is for the next byte
        self._carry = b""
        self._name = b""
        self._value: bytearray | None = None
        self._base = 0
        self.values: dict[bytes, bytes] = {}
        self.behind = False
        self.failed = False

    @property
    def is_list(self) -> bool:
        """Whether the text is an array."""
        return self._top > 1

    @property
    def waiting(self) -> int:
        """Bytes that came and wait to be read."""
        return len(self._carry) if self.behind else 0

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
            if self._depth > self._level > 0 and self._value is None:
                if self._depth > MAX_DEPTH_LEVELS:
                    return  # no response is like that
                at = _SKIPPED.match(data, at, at + MAX_SKIPPED_BYTES).end()  # type: ignore[union-attr]
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
            if not capturing and self._depth == self._level > 0:
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
            if not self._level:
                self._level = self._top = 1 if token == 0x7B else 2
            elif self._enters and token == 0x7B:
                self._level = self._depth
            self._enters = False
        else:
            self._keep(data[at:where])
            if capturing and self._depth == self._base:
                self._found()
            else:
                self._keep(data[where : where + 1])
            self._depth -= 1
            if self._top < self._level > self._depth:
                self._level = self._top
        return where + 1

    def _member(self, data: bytes, where: int) -> int:
        """A string where a member's name may stand; its value begins behind the colon."""
        self._enters = False
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
        if data[behind : behind + 1] == b":" and data[where + 1 : end] in self._wanted:
            self._name, self._value, self._base = data[where + 1 : end], bytearray(), self._depth
            return behind + 1
        self._enters = data[behind : behind + 1] == b":" and data[where + 1 : end] in self._entered
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

    def _found(self) -> None:
        if self._value is not None and self._name:
            self.values[self._name] = bytes(self._value)
        self._value = None
