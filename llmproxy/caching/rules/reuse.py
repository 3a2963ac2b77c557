"""Whether an entry may be given for a request, and what a 304 makes of it (RFC 9111, sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Literal

from llmproxy.caching.rules import directives, storing
from llmproxy.caching.rules.directives import NOTHING, Directives
from llmproxy.caching.rules.entry import Entry
from llmproxy.http.field_lines import FieldLines

Verdict = Literal["fresh", "stale", "refresh", "validate"]

# What makes a request one that no kept response may stand in for: parts, and conditions on what a provider has now.
BYPASSING_FIELDS = frozenset((b"range", b"if-range", b"if-match", b"if-unmodified-since"))
# Statuses that a kept response may stand in for (RFC 5861, section 4).
STALE_IF_ERROR_STATUSES = frozenset((500, 502, 503, 504))
VALIDATABLE_RETENTION_SECONDS = 3600.0  # seconds for which an entry that can be revalidated is kept beyond all that
STALE_RETENTION_SECONDS = 60.0  # likewise one that cannot: a client may take it stale (max-stale)

# They tell of the body that is kept, not of the one that was left out (RFC 9111, section 3.2).
_OF_THE_BODY = frozenset((b"content-encoding", b"content-length", b"content-md5", b"content-range", b"etag"))


def request_directives(lines: Iterable[bytes]) -> Directives:
    """What a request says about the cache; C{Pragma: no-cache} counts where it has no C{Cache-Control}."""
    lines = FieldLines.of(lines)
    if b"cache-control" in lines.names:
        values = lines.values(b"cache-control")
        return _known(values[0]) if len(values) == 1 and len(values[0]) <= 64 else directives.parse(values)
    if b"pragma" in lines.names and b"no-cache" in directives.parse(lines.values(b"pragma")):
        return Directives({b"no-cache": [None]})
    return NOTHING


def explicit_ttl(said: Directives) -> float | None:
    """For how long a request that opts in (C{public, max-age=N} or C{s-maxage=N}) lets its response be kept. That it
    wants none that has been kept (C{no-cache}) is another matter.
    """
    if b"no-store" in said:
        return None
    seconds = said.seconds(b"s-maxage")
    if seconds is None and b"public" in said:
        seconds = said.seconds(b"max-age")
    return float(seconds) if seconds else None


def verdict(entry: Entry, said: Directives, age: float) -> Verdict:
    """C{fresh}: give it. C{stale}: give it, the client takes it so. C{refresh}: give it, and fetch a fresh one.
    C{validate}: the provider must be asked first.

    @param age: The entry's, in seconds.
    """
    left = entry.lifetime - age
    if entry.no_cache:
        return "validate"
    if said is not NOTHING:
        validated, oldest, margin = said.demands
        if validated or age > oldest or left < margin:
            return "validate"
    if left > 0:
        return "fresh"
    if entry.must_revalidate:
        return "validate"
    if b"max-stale" in said and _takes(said, -left):
        return "stale"
    return "refresh" if -left < entry.stale_while_revalidate else "validate"


def fresh_below(entry: Entry, said: Directives, ttl: float | None) -> float:
    """An age: at all below it, L{verdict} is C{fresh}, and a C{ttl} not exceeded. C{0.0}: there may be none such."""
    if entry.no_cache:
        return 0.0
    ages = [entry.lifetime] if ttl is None else [entry.lifetime, ttl]
    if said is not NOTHING:
        validated, oldest, margin = said.demands
        if validated or margin != -inf:
            return 0.0  # a margin is subtracted elsewhere, where it is rounded
        ages.append(oldest)
    return min(ages)


def may_serve_stale(entry: Entry, said: Directives, now: float) -> bool:
    """Whether it may be given where the provider fails (C{stale-if-error}, RFC 5861)."""
    if entry.no_cache or entry.must_revalidate or b"no-cache" in said:
        return False
    stale_for = entry.age(now) - entry.lifetime
    return stale_for < max(entry.stale_if_error, said.seconds(b"stale-if-error") or 0)


def validatable(entry: Entry) -> bool:
    """Whether the provider can be asked if it is still true, so that a 304 means the entry; never for a C{POST}."""
    return bool(entry.etag or entry.last_modified)


def retention(entry: Entry, now: float) -> float:
    """Seconds for which it is of any use."""
    rest = VALIDATABLE_RETENTION_SECONDS if validatable(entry) else STALE_RETENTION_SECONDS
    beyond = max(entry.stale_while_revalidate, entry.stale_if_error, rest)
    return max(entry.lifetime - entry.age(now), 0.0) + beyond


def freshened(
    old: Entry, received: storing.ReceivedHead, rules: storing.StoringRules, said: Directives
) -> Entry | storing.NotStored:
    """What becomes of an entry whose provider says that it has not been modified (RFC 9111, section 4.3.4).

    The fields of the 304 take the place of those that were kept, unless they tell of the body.
    """
    new = FieldLines.of(received.lines)
    own = FieldLines.of([line for line, name in zip(new, new.names, strict=True) if name not in _OF_THE_BODY])
    told = {*own.names, b"date"}  # a 304 without one has that of when it came
    stayed = [line for line in old.lines if line.partition(b":")[0].lower() not in told]
    merged = storing.ReceivedHead(
        old.code, old.phrase, [*stayed, *own], received.request_time, received.response_time, received.wall
    )
    entry = storing.storable(merged, rules, said)
    if not isinstance(entry, Entry):
        return entry
    return replace(entry, body=old.body, chunk_timings=old.chunk_timings, vary=entry.vary or old.vary)


@lru_cache(1024)
def _known(value: bytes) -> Directives:
    """A client says the same again and again. Nobody alters it."""
    return directives.parse([value])


def _takes(said: Directives, stale_for: float) -> bool:
    """Whether the client takes a response that has been stale for so long; C{max-stale} alone: however long."""
    return said[b"max-stale"] == [None] or stale_for <= (said.seconds(b"max-stale") or 0)
