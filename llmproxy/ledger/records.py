"""What stands in the journal: that a request was let go to its provider, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from llmproxy.model import LedgerLine, RequestRecord

_RESERVED, _SETTLED, _COUNTED = b"R", b"S", b"C"
_TOKENS_HITS = frozenset(("hit", "coalesced"))  # what a token's C{cache_hits} count
_HITS = frozenset(("hit", "revalidated", "coalesced"))


class Reservation(NamedTuple):
    """A request that was let go.

    @ivar given: The input tokens that its size makes likely; C{0} where it is no text.
    @ivar uses: Uses of its token that nobody has counted yet: whoever enters this record does.
    """

    id: str
    at: float
    request_id: str
    project_id: str
    token_id: str
    api: str
    endpoint: str
    model: str
    bytes_in: int
    given: int
    uses: int = 0

    def line(self, cost: float | None) -> LedgerLine:
        """What is known of it where its end was never told: the process ended first, and the answer with it.

        @param cost: USD for its input, where a price is known.
        """
        return LedgerLine(
            id=self.id,
            at=self.at,
            request_id=self.request_id,
            project_id=self.project_id,
            token_id=self.token_id,
            api=self.api,
            endpoint=self.endpoint,
            model=self.model,
            outcome="truncated",
            basis="estimated" if self.given else "none",
            error="process_ended",
            input_tokens=self.given,
            cost_usd=cost if self.given else None,
            bytes_in=self.bytes_in,
        )


class Settlement(NamedTuple):
    """A request that is over.

    @ivar uses: Uses of its token to be counted with its line: one less where it was let go and then not sent.
    @ivar hits: Likewise answers from the cache.
    """

    line: LedgerLine
    uses: int = 0
    hits: int = 0


def reserved(reservation: Reservation) -> bytes:
    """A reservation as a record."""
    return _RESERVED + _written(reservation)


def rewritten(record: bytes) -> bytes:
    """A reservation's record for a later place, when what stands at the first has been entered."""
    known = read(record)
    return reserved(known._replace(uses=0)) if isinstance(known, Reservation) else record


def settled(line: LedgerLine, uses: int = 0, hits: int = 0) -> bytes:
    """A settlement as a record."""
    if not uses and not hits:
        return _SETTLED + _written(line)
    return _COUNTED + _written((tuple(line), uses, hits))


def read(record: bytes) -> Reservation | Settlement | None:
    """A record as what it was; C{None} for what is none of them, as another version may have written."""
    kind = record[:1]
    try:
        values = from_json(record[1:])
        if not isinstance(values, list):
            return None
        if kind == _SETTLED:
            return Settlement(_line(values))
        if kind == _COUNTED:
            return Settlement(_line(values[0]), int(values[1]), int(values[2]))
        if kind == _RESERVED and isinstance(values[0], str):
            return Reservation(*values[: len(Reservation._fields)])
    except (IndexError, TypeError, ValueError):
        pass
    return None


def _line(values: Any) -> LedgerLine:
    """L{TypeError} where it is none."""
    if not isinstance(values, list) or not isinstance(values[0], str) or not isinstance(values[1], int | float):
        raise TypeError("is no line")
    return LedgerLine(*values[: len(LedgerLine._fields)])


def cache_hits(record: RequestRecord) -> int:
    """How much it adds to its token's C{cache_hits}."""
    return 1 if record.cache in _TOKENS_HITS and record.token_id else 0


def line(ledger_id: str, record: RequestRecord) -> LedgerLine:
    """The line of a finished request."""
    return LedgerLine(
        ledger_id,
        record.started_at,
        record.duration,
        record.request_id,
        record.project_id,
        record.token_id,
        record.api,
        record.endpoint,
        record.model,
        record.answered,
        outcome(record),
        record.basis or "none",
        record.error,
        record.status,
        record.upstream_status,
        record.stream,
        record.input_tokens,
        record.cached_tokens,
        record.cache_write_tokens,
        record.output_tokens,
        record.reasoning_tokens,
        record.cost_usd,
        record.bytes_in,
        record.bytes_out,
    )


def outcome(record: RequestRecord) -> str:
    """How the books call a request's end."""
    if record.outcome != "complete":
        return record.outcome if record.outcome in ("cancelled", "truncated") else "failed"
    if record.cache in _HITS:
        return "cached"
    if record.status >= 400:
        return "failed"
    return "estimated" if record.basis == "estimated" else "exact"


def open_ones(records: Iterable[bytes]) -> dict[str, Reservation]:
    """The reservations among these that were never settled, by their ids."""
    found: dict[str, Reservation] = {}
    for record in records:
        read_one = read(record)
        if isinstance(read_one, Reservation):
            found[read_one.id] = read_one
        elif read_one is not None:
            found.pop(read_one.line.id, None)
    return found


def _written(values: tuple[Any, ...]) -> bytes:
    try:
        return to_json(tuple(values), inf_nan_mode="null")
    except PydanticSerializationError:  # half of a surrogate pair, which nothing here can read back
        return to_json(_whole(values), inf_nan_mode="null")


def _whole(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_whole(each) for each in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
