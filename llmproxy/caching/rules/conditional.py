"""Conditional requests: a client's, answered from an entry; and ours, to revalidate one (RFC 9110, section 13)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmproxy.caching.rules import dates
from llmproxy.caching.rules.entry import Entry
from llmproxy.http.field_lines import FieldLines

_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_TAGS = re.compile(rb"[ \t]*(?:,[ \t]*)*(?:%b[ \t]*(?:,[ \t]*|$))*" % _TAG.pattern)
CONDITIONS = frozenset((b"if-none-match", b"if-modified-since"))
METHODS = frozenset((b"GET", b"HEAD"))  # to which a 304 may be the response (RFC 9110, section 13.1.2)
# What a 304 tells of the response that the client has (RFC 9110, section 15.4.5).
_TOLD = frozenset(b"cache-control content-location date etag expires vary last-modified".split())


def not_modified(entry: Entry, lines: Iterable[bytes], now: float) -> bool:
    """Whether the client has this response already, so that a 304 will do."""
    lines = FieldLines.of(lines)
    if entry.code != 200 or CONDITIONS.isdisjoint(lines.names):
        return False
    tags = lines.values(b"if-none-match")
    if tags:
        return _matches(entry.etag, b", ".join(tags))
    since = lines.values(b"if-modified-since")
    if len(since) != 1 or not entry.last_modified:
        return False
    at, modified = dates.parse(since[0], now), dates.parse(entry.last_modified, now)
    return at is not None and modified is not None and modified <= at


def not_modified_lines(entry: Entry) -> list[bytes]:
    """The field lines of a 304 for it."""
    return [line for line in entry.lines if line.partition(b":")[0].lower() in _TOLD]


def revalidation_lines(lines: Iterable[bytes], entry: Entry) -> list[bytes]:
    """A request's lines with the entry's validators in place of its own conditions."""
    lines = FieldLines.of(lines)
    kept = [line for line, name in zip(lines, lines.names, strict=True) if name not in CONDITIONS]
    if entry.etag:
        kept.append(b"If-None-Match: " + entry.etag)
    if entry.last_modified:
        kept.append(b"If-Modified-Since: " + entry.last_modified)
    return kept


def _matches(etag: bytes, given: bytes) -> bool:
    """Weak comparison (RFC 9110, section 8.8.3.2) with any of those given; a list that is none matches nothing."""
    if given.strip(b" \t") == b"*":
        return True
    if not etag or not _TAGS.fullmatch(given):
        return False
    return etag.removeprefix(b"W/") in {tag.removeprefix(b"W/") for tag in _TAG.findall(given)}
