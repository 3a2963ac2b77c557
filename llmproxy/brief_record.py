"""Records of finished requests in two parts: what many have in common, and the figures of each.

Whoever counts or writes records works out what depends on the first part once, and keeps it with that: a request then
costs its figures alone. The L{RequestRecord} itself is made for those who want to see one.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from msgspec import Struct

from llmproxy.base.memo import BoundedMemo
from llmproxy.model import RequestRecord

MAX_KINDS = 4096
MAX_SEEN_ONCE = 4096

_FIELDS = RequestRecord._fields
_AT_FIRST = ("request_id", "started_at", "duration")
_SHARED_FIRST = slice(_FIELDS.index("method"), _FIELDS.index("stream") + 1)
_SHARED_LAST = slice(_FIELDS.index("upstream_status"), _FIELDS.index("basis") + 1)
_TIMES = ("first_byte", "upstream_time", "auth_time", "queue_time")
_USAGE = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
)
if (
    *_AT_FIRST,
    *_FIELDS[_SHARED_FIRST],
    *("bytes_in", "bytes_out", *_TIMES),
    *_FIELDS[_SHARED_LAST],
    *(*_USAGE, "attribution", "steps"),
) != _FIELDS:
    raise ImportError("The fields of a record are not in the order in which they are taken here.")

SHARED_FIELDS = (*_FIELDS[_SHARED_FIRST], *_FIELDS[_SHARED_LAST], "attribution")
# Added to a float, and subtracted again, it leaves the nearest whole number: of microseconds, for 71 years. C{round}
# takes five times as long.
ROUNDING = 2.0**52 + 2.0**51
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class RecordFigures(Struct, gc=False, omit_defaults=True):
    """What differs by request, and is no text: the fields of a L{RequestRecord} of these names."""

    duration: float
    bytes_in: int
    bytes_out: int
    auth_time: float
    queue_time: float
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    first_byte: float | None = None
    upstream_time: float | None = None
    cost_usd: float | None = None


_shared_first: Callable[[RequestRecord], tuple[Any, ...]] = itemgetter(_SHARED_FIRST)
_shared_last: Callable[[RequestRecord], tuple[Any, ...]] = itemgetter(_SHARED_LAST)
_figures_of: Callable[[RequestRecord], tuple[Any, ...]] = itemgetter(
    *map(_FIELDS.index, RecordFigures.__struct_fields__)
)
OPTIONAL_FIGURES = RecordFigures.__struct_fields__[-len(RecordFigures.__struct_defaults__) :]
_optional_of: Callable[[RequestRecord], tuple[Any, ...]] = itemgetter(*map(_FIELDS.index, OPTIONAL_FIGURES))


class RecordKind:
    """What records have in common: their L{SHARED_FIELDS}, and which of their L{OPTIONAL_FIGURES} are C{None}.

    Two that are equal in that may be two objects; each is told from others by itself.

    @ivar sample: A record of this kind.
    @ivar is_kept: Whether further records are likely to have this very object: only then is it worth while to keep
        something by it.
    """

    __slots__ = ("is_kept", "sample")

    def __init__(self, sample: RequestRecord, *, is_kept: bool = False) -> None:
        self.sample = sample
        self.is_kept = is_kept


class BriefRecord(Struct, gc=False):
    """A record, by its parts.

    @ivar steps: As of a L{RequestRecord}.
    @ivar text: The figures as the end of a line of JSON, without the opening brace, once somebody has needed them so.
    """

    kind: RecordKind
    request_id: str
    started_at: float
    figures: RecordFigures
    steps: str = ""
    text: str = ""

    def whole(self) -> RequestRecord:
        """The record itself."""
        sample, figures = self.kind.sample, self.figures
        values = (
            self.request_id,
            self.started_at,
            figures.duration,
            *_shared_first(sample),
            figures.bytes_in,
            figures.bytes_out,
            figures.first_byte,
            figures.upstream_time,
            figures.auth_time,
            figures.queue_time,
            *_shared_last(sample),
            figures.input_tokens,
            figures.cached_tokens,
            figures.cache_write_tokens,
            figures.output_tokens,
            figures.reasoning_tokens,
            figures.cost_usd,
            sample.attribution,
            self.steps,
        )
        return _new(RequestRecord, values)


class RecordKinds:
    """Finds the kinds of records.

    One that is seen for the first time is not kept: what clients make up anew each time must cost nothing.
    """

    def __init__(self) -> None:
        self._kinds: BoundedMemo[tuple[Any, ...], RecordKind] = BoundedMemo(MAX_KINDS)
        self._seen_once: set[int] = set()

    def kind_of(self, record: RequestRecord) -> RecordKind:
        """The kind that this record is of."""
        missing = tuple([value is None for value in _optional_of(record)])
        key = (_shared_first(record), _shared_last(record), record.attribution, missing)
        kind = self._kinds.get(key)
        if kind is not None:
            return kind
        seen = hash(key)
        if seen in self._seen_once:
            kind = self._kinds[key] = RecordKind(record, is_kept=True)
            return kind
        if len(self._seen_once) >= MAX_SEEN_ONCE:
            self._seen_once.clear()
        self._seen_once.add(seen)
        return RecordKind(record)

    def parts_of(self, record: RequestRecord) -> BriefRecord:
        """The record, by its parts."""
        return BriefRecord(self.kind_of(record), record.request_id, record.started_at, figures_of(record), record.steps)


def parts_of(record: RequestRecord) -> BriefRecord:
    """A record that is likely to be the only one of its kind, by its parts."""
    return BriefRecord(RecordKind(record), record.request_id, record.started_at, figures_of(record), record.steps)


def figures_of(record: RequestRecord) -> RecordFigures:
    """Its figures."""
    return RecordFigures(*_figures_of(record))
