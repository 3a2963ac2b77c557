"""Short records of usual requests: their numbers, and the number of what many of them have in common. Pure.

What they have in common, a L{LineKind}, stands in every segment that refers to it, as a record of its own and more than
once, so that a place that cannot be read takes no other lines with it. Its number means the same all over a journal.

    kind        := "K", number of the kind, 4 bytes; JSON
    opening     := "o", kind, 4; line, 8; at, 8; bytes in, 4; estimated input tokens, 4; uses, 1; request id
    settlement  := "s", kind, 4; line, 8; at, 8; duration, 8; bytes in and out, 8; tokens, 20; cost, 8; request id

Behind the request id stands the attribution, where there is one, with a zero byte between them: it differs by request.
A settlement has been sent once where its kind has a status of the provider, else never; another number is not usual.
All are little-endian; times and costs are doubles, and a cost below 0 is none; C{line} is what follows the run in the
id of the line. What does not fit is written as L{records<llmproxy.ledger.records>} has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple

from pydantic_core import from_json

from llmproxy.brief_record import BriefRecord
from llmproxy.ledger import records
from llmproxy.ledger.records import AnnouncedResult, DroppedLine, LedgerLineOpening, Settlement
from llmproxy.model import LedgerLine, RequestRecord

SETTLED, OPENED = ord("s"), ord("o")
_KIND = b"K"
_MAX_SECONDS = 1e11  # of times and durations that are written here; beyond, and what is no number: as JSON
_MAX_COST = 1e15

_KIND_HEAD = Struct("<cI")
_OPENING = Struct("<BIQdIIb")
_OPENED_USES = Struct("<xI8xd8xb")
_SETTLEMENT = Struct("<BIQddIIIIIIId")
if (_KIND_HEAD.size, _OPENING.size, _OPENED_USES.size, _SETTLEMENT.size) != (5, 30, 30, 65):
    raise ImportError("The ledger's records would not be what other processes read.")

SETTLEMENT_BYTES = _SETTLEMENT.size  # before the request id
unpack_settlement = _SETTLEMENT.unpack_from
unpack_opened_uses = _OPENED_USES.unpack_from  # of an opening: its kind, at, uses
_new_line = tuple.__new__  # as C{LedgerLine._make} does it, without a call more
_pack_opening = _OPENING.pack
_pack_settlement = _SETTLEMENT.pack


class LineKind(NamedTuple):
    """What many lines have in common.

    @ivar run: What their ids begin with.
    @ivar hits: What each adds to its token's C{cache_hits}.
    @ivar common: The fields of L{LedgerLine} from C{project_id} to C{stream}.
    """

    run: str
    hits: int
    common: tuple[Any, ...]

    def line_id(self, number: int) -> str:
        """The id of a line by its number."""
        return f"{self.run}-{number:010x}"


FindKind = Callable[[int], LineKind | None]
Record = LedgerLineOpening | Settlement | AnnouncedResult | DroppedLine

_COMMON = slice(LedgerLine._fields.index("project_id"), LedgerLine._fields.index("stream") + 1)
_OF_RECORD = [
    RequestRecord._fields.index(name)
    for first, last in (("status", "stream"), ("upstream_status", "error"), ("answered", "basis"))
    for name in RequestRecord._fields[RequestRecord._fields.index(first) : RequestRecord._fields.index(last) + 1]
]
_NOT_OF_OPENING = ("", "", "none", "", 0, None, False)  # what an opening has not of that
_OF_OPENING = slice(LedgerLineOpening._fields.index("project_id"), LedgerLineOpening._fields.index("model") + 1)
_COMMON_FIELDS = len(LedgerLine._fields[_COMMON])
_OPENING_FIELDS = len(LedgerLineOpening._fields[_OF_OPENING])
_UPSTREAM_STATUS = LedgerLine._fields[_COMMON].index("upstream_status")
TOKEN = LedgerLine._fields[_COMMON].index("token_id")
if len(_NOT_OF_OPENING) != _COMMON_FIELDS - _OPENING_FIELDS:
    raise ImportError("What openings have not in common is not what lines have besides.")
if LedgerLine._fields[_COMMON][:_OPENING_FIELDS] != LedgerLineOpening._fields[_OF_OPENING]:
    raise ImportError("What openings have in common is not where lines have it.")


# What an opening has in common with others.
kind_key_of_opening: Callable[[LedgerLineOpening], tuple[Any, ...]] = itemgetter(_OF_OPENING)
# What a record has in common with others: all that L{kind_of_record} looks at.
kind_key_of_record: Callable[[RequestRecord], tuple[Any, ...]] = itemgetter(*_OF_RECORD)


def kind_of_opening(run: str, opening: LedgerLineOpening) -> LineKind:
    """The kind of this, and of those with the same L{kind_key_of_opening}."""
    return LineKind(run, 0, (*kind_key_of_opening(opening), *_NOT_OF_OPENING))


def kind_of_record(run: str, record: RequestRecord) -> LineKind:
    """The kind of this, and of those with the same L{kind_key_of_record}."""
    line: tuple[Any, ...] = records.line("", record)
    return LineKind(run, records.cache_hits(record), line[_COMMON])


def encode_kind(number: int, kind: LineKind) -> bytes:
    """A kind as a record."""
    return _KIND_HEAD.pack(_KIND, number) + records.to_json_values(kind)


def decode_kind(record: bytes) -> tuple[int, LineKind] | None:
    """The number and the kind that this record tells; C{None} where it is another record."""
    if record[:1] != _KIND:
        return None
    try:
        _, number = _KIND_HEAD.unpack_from(record)
        run, hits, common = from_json(record[_KIND_HEAD.size :])[:3]
        if not isinstance(run, str) or not isinstance(hits, int) or len(common) < _COMMON_FIELDS:
            return None
        return number, LineKind(run, hits, tuple(common[:_COMMON_FIELDS]))
    except (StructError, TypeError, ValueError):
        return None


def encode_opening(kind: int, number: int, opening: LedgerLineOpening) -> bytes | None:
    """An opening as a record; C{None} where it does not fit."""
    _, at, request_id, _, _, _, _, _, bytes_in, estimated, uses, attribution = opening
    if "\0" in request_id or "\0" in attribution:
        return None
    if attribution:
        request_id = f"{request_id}\0{attribution}"
    return encode_numbers(kind, number, at, bytes_in, estimated, uses, request_id)


def encode_numbers(
    kind: int, number: int, at: float, bytes_in: int, estimated: int, uses: int, request_id: str
) -> bytes | None:
    """As L{encode_opening}, of a request whose id has no zero byte."""
    if not 0.0 <= at < _MAX_SECONDS:
        return None
    try:
        return _pack_opening(OPENED, kind, number, at, bytes_in, estimated, uses) + request_id.encode()
    except (StructError, UnicodeEncodeError):
        return None


def is_usual(record: RequestRecord) -> bool:
    """Whether nothing of a record of this kind is left out by L{encode_settlement}."""
    return not record.attempted and record.attempts == (record.upstream_status is not None)


def encode_settlement(kind: int, number: int, record: BriefRecord, attribution: str = "") -> bytes | None:
    """A settlement as a record; C{None} where it does not fit.

    @param record: One of a kind that L{is_usual}.
    """
    figures, at, request_id = record.figures, record.started_at, record.request_id
    duration, cost = figures.duration, figures.cost_usd
    if cost is None:
        cost = -1.0
    elif not 0.0 <= cost < _MAX_COST:
        return None
    if not (0.0 <= at < _MAX_SECONDS and 0.0 <= duration < _MAX_SECONDS) or "\0" in request_id:
        return None
    if attribution:
        if "\0" in attribution:
            return None
        request_id = f"{request_id}\0{attribution}"
    try:
        return (
            _pack_settlement(
                SETTLED,
                kind,
                number,
                at,
                duration,
                figures.bytes_in,
                figures.bytes_out,
                figures.input_tokens,
                figures.cached_tokens,
                figures.cache_write_tokens,
                figures.output_tokens,
                figures.reasoning_tokens,
                cost,
            )
            + request_id.encode()
        )
    except (StructError, UnicodeEncodeError):
        return None


def decode(record: bytes, find: FindKind) -> Record | None:
    """A record of either form as what it was; C{None} for what is none.

    @param find: The kind of a number, where it is known.
    """
    if record[:1] == b"s":
        settled = settlement(record, find)
        return None if settled is None else Settlement(settled[0], hits=settled[1].hits)
    if record[:1] == b"o":
        return _opening(record, find)
    return records.decode(record)


def settlement(record: bytes, find: FindKind) -> tuple[LedgerLine, LineKind] | None:
    """The line of a short settlement, and its kind; C{None} where it cannot be read."""
    try:
        # fmt: off
        (
            _, number, line, at, duration, bytes_in, bytes_out, given, cached, written, told, reasoning, cost
        ) = unpack_settlement(record)
        # fmt: on
        kind = find(number)
        if kind is None:
            return None
        request_id = record[_SETTLEMENT.size :].decode()
    except (StructError, UnicodeDecodeError):
        return None
    attribution = ""
    if "\0" in request_id:
        request_id, _, attribution = request_id.rpartition("\0")
    values = (
        f"{kind.run}-{line:010x}",
        at,
        duration,
        request_id,
        *kind.common,
        given,
        cached,
        written,
        told,
        reasoning,
        None if cost < 0 else cost,
        bytes_in,
        bytes_out,
        attribution,
        0 if kind.common[_UPSTREAM_STATUS] is None else 1,
        "",
    )
    return _new_line(LedgerLine, values), kind


def _opening(record: bytes, find: FindKind) -> LedgerLineOpening | None:
    try:
        _, number, line, at, bytes_in, estimated, uses = _OPENING.unpack_from(record)
        kind = find(number)
        if kind is None:
            return None
        request_id, attribution = record[_OPENING.size :].decode(), ""
        if "\0" in request_id:
            request_id, _, attribution = request_id.rpartition("\0")
    except (StructError, UnicodeDecodeError):
        return None
    common = kind.common[:_OPENING_FIELDS]
    values = (kind.line_id(line), at, request_id, *common, bytes_in, estimated, uses, attribution)
    return LedgerLineOpening._make(values)


class KindsOfJournal:
    """The kinds of a journal that another process wrote: read as a whole when the first is wanted."""

    def __init__(self, read: Callable[[], Iterable[tuple[int, bytes]]]) -> None:
        """
        @param read: All records of the journal, each with the place behind it.
        """
        self._read = read
        self._kinds: dict[int, LineKind] | None = None

    def find(self, number: int) -> LineKind | None:
        """The kind of this number, where the journal has it."""
        if self._kinds is None:
            self._kinds = dict(told for _, record in self._read() if (told := decode_kind(record)) is not None)
        return self._kinds.get(number)
