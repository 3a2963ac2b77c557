"""The chain of audit entries: whoever alters, removes or reorders one breaks it, and cannot mend it without the key.

An entry is a JSON object on one line. Chained it has further members at its end: C{seq}, its number; C{prev}, the
hash of the entry before; and C{hash}, the HMAC-SHA-256 of both and of its text, keyed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

_CHAINED = re.compile(r'(\{.*),"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64}|)","hash":"([0-9a-f]{64})"\}', re.DOTALL)


class ChainLink(NamedTuple):
    """An entry's number and hash; those of the beginning, before there is an entry."""

    seq: int = 0
    hash: str = ""


class ChainedEntry(NamedTuple):
    """An entry as it stands in a log."""

    text: str
    seq: int
    prev: str
    hash: str

    def is_whole(self, key: bytes) -> bool:
        """Whether nothing of it was altered."""
        return hmac.compare_digest(self.hash, _hash(self.text, self.seq, self.prev, key))


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a log is found to be.

    @ivar entries: How many of its entries are in the chain, and C{last} the last of these.
    @ivar unchained: Entries before the first one of the chain, of a version that had none; C{unfinished}: lines that a
        crash has broken off, which nobody was told of.
    @ivar problem: The first that is wrong; C{""} where nothing is.
    """

    entries: int
    last: ChainLink
    unchained: int
    unfinished: int
    problem: str


def chained(text: str, before: ChainLink, key: bytes) -> tuple[str, ChainLink]:
    """The entry of this text behind another one, as a line without its end; and the link that it is."""
    link = ChainLink(before.seq + 1, _hash(text, before.seq + 1, before.hash, key))
    return f'{text[:-1]},"seq":{link.seq},"prev":"{before.hash}","hash":"{link.hash}"}}', link


def parse_chained(line: str) -> ChainedEntry | None:
    """The entry on this line; C{None} where it is in no chain."""
    found = _CHAINED.fullmatch(line)
    return None if found is None else ChainedEntry(found[1] + "}", int(found[2]), found[3], found[4])


def verify(
    lines: Callable[[], Iterable[tuple[str, str]]], key: bytes, *, head: ChainLink | None = None, first: int = 0
) -> ChainReport:
    """Look at every entry of a log, in the order in which they stand.

    @param lines: The log's lines, each with its place, such as C{line 5}; called twice.
    @param head: The last entry that is known to have been written.
    @param first: The number of the first entry that must be there; 0: the log may begin anywhere.
    """
    there = {entry.seq for _, line in lines() if (entry := parse_chained(line))}
    last, entries, unchained, unfinished, stray = ChainLink(), 0, 0, 0, ""
    for place, line in lines():
        entry = parse_chained(line)
        if entry is None:
            if not line.endswith("}"):
                unfinished += 1
            else:
                stray, unchained = stray or place, unchained + 1
            continue
        if stray and (entries or entry.seq != 1):  # only what was written before there was a chain is in none
            return ChainReport(entries, last, unchained, unfinished, f"{stray} was altered: it is in no chain")
        stray = ""
        problem = _problem(place, entry, last if entries or first else None, first, there, key)
        if problem:
            return ChainReport(entries, last, unchained, unfinished, problem)
        last, entries = ChainLink(entry.seq, entry.hash), entries + 1
    problem = _end(last, head) if head is not None else ""
    if stray and entries:
        problem = f"{stray} was altered: it is in no chain"
    return ChainReport(entries, last, unchained, unfinished, problem)


def _problem(place: str, entry: ChainedEntry, last: ChainLink | None, first: int, there: set[int], key: bytes) -> str:
    if not entry.is_whole(key):
        return f"{place}, entry {entry.seq}, was altered"
    if last is None:
        return ""
    expected = last.seq + 1 if last.seq else first
    if entry.seq == expected:
        return (
            f"{place}, entry {entry.seq}, does not follow the entry before it"
            if last.seq and entry.prev != last.hash
            else ""
        )
    if entry.seq < expected or expected in there:
        return f"{place}, entry {entry.seq}, is out of order: entry {expected} should stand here"
    return f"{_entries(expected, entry.seq - 1)} missing before {place}, entry {entry.seq}"


def _end(last: ChainLink, head: ChainLink) -> str:
    if head.seq > last.seq:
        return f"{_entries(last.seq + 1, head.seq)} missing at the end"
    return f"entry {last.seq} was replaced" if head.seq == last.seq and head.hash != last.hash else ""


def _entries(begin: int, end: int) -> str:
    return f"entry {begin} is" if begin == end else f"entries {begin} to {end} are"


def _hash(text: str, seq: int, prev: str, key: bytes) -> str:
    return hmac.new(key, f"{seq}\n{prev}\n{text}".encode("utf-8", "surrogatepass"), sha256).hexdigest()
