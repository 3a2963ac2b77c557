"""The heads of messages that differ only where fields differ each time: in holes.

Pure. A head that was parsed in full is cut into the lines that stay and the lines with holes; another head that has the
same lines, and values in its holes that the parser would have let pass, means the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# Fields whose values are made anew for each request, and which nothing here goes by but for their own value.
HOLES = frozenset(
    b"content-length traceparent tracestate baggage sentry-trace b3 x-b3-traceid x-b3-spanid x-cloud-trace-context "
    b"x-amzn-trace-id x-datadog-trace-id x-datadog-parent-id uber-trace-id idempotency-key x-idempotency-key "
    b"x-request-id x-client-request-id x-correlation-id x-stainless-retry-count".split()
)
# What the parser lets pass in a value, and not yet all of it: no white space but single spaces, no bytes above 0x7e.
_VALUE = re.compile(rb":[ \t]?[!-~]+(?: [!-~]+)*")
_LENGTH = re.compile(rb":[ \t]?([0-9]{1,15})")


class HeadShape(NamedTuple):
    """Where a head has its holes.

    @ivar size: How many lines it has, the request line included.
    @ivar holes: The index of each line with a hole, and the line's name as it is written.
    @ivar length: Which of the holes is C{Content-Length}.
    """

    size: int
    holes: tuple[tuple[int, bytes], ...]
    length: int

    def fill(self, lines: list[bytes]) -> list[bytes] | None:
        """Take the lines with holes out of C{lines}, and return them; C{None} where the head has another shape.

        Leaves C{b""} in their places. The lines that stay are for the caller to compare.
        """
        if len(lines) != self.size:
            return None
        filled = []
        for index, name in self.holes:
            line = lines[index]
            if not line.startswith(name) or not _VALUE.fullmatch(line, len(name)):
                return None
            filled.append(line)
        for index, _ in self.holes:
            lines[index] = b""
        return filled

    def body_length(self, filled: Sequence[bytes]) -> int:
        """What C{Content-Length} says; C{-1} where it says nothing that is clear."""
        found = _LENGTH.fullmatch(filled[self.length], len(self.holes[self.length][1]))
        return -1 if found is None else int(found[1])


def head_shape(lines: Sequence[bytes], further: frozenset[bytes] = frozenset()) -> HeadShape | None:
    """The shape of a request's head that was parsed in full.

    @param lines: The request line and the field lines.
    @param further: Names of further fields that have holes, in lower case.
    @return: C{None} where it has no C{Content-Length}, or a field with a hole more than once.
    """
    holes: list[tuple[int, bytes]] = []
    length, seen = -1, set()
    for index, line in enumerate(lines):
        name, colon, _ = line.partition(b":")
        lower = name.lower()
        if index and colon and (lower in HOLES or lower in further):
            if lower in seen:
                return None
            seen.add(lower)
            if lower == b"content-length":
                length = len(holes)
            holes.append((index, name))
    return None if length < 0 else HeadShape(len(lines), tuple(holes), length)
