"""What stands in the journal: that a request was let go to its provider, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from llmproxy.model import LedgerLine, RequestRecord

_RESERVED, _SETTLED = b"R", b"S"
_HITS = frozenset(("hit", "revalidated", "coalesced"))


class Reservation(NamedTuple):
    """A request that was let go.

    @ivar given: The input tokens that its size makes likely; C{0} where it is no text.
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


def reserved(reservation: Reservation) -> bytes:
    """A reservation as a record."""
    return _RESERVED + _written(reservation)


def settled(line: LedgerLine) -> bytes:
    """A line as a record."""
    return _SETTLED + _written(line)


def read(record: bytes) -> Reservation | LedgerLine | None:
    """A record as what it was; C{None} for what is none of them, as another version may have written."""
    try:
        values = from_json(record[1:])
        if record[:1] == _SETTLED:
            return LedgerLine(*values[: len(LedgerLine._fields)])
        return Reservation(*values[: len(Reservation._fields)]) if record[:1] == _RESERVED else None
    except (TypeError, ValueError):
        return None


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
            found.pop(read_one.id, None)
    return found


def _written(values: tuple[Any, ...]) -> bytes:
    try:
        return to_json(tuple(values), inf_nan_mode="null")
    except PydanticSerializationError:  # half of a surrogate pair, which nothing here can read back
        whole = [v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in values]
        return to_json(whole, inf_nan_mode="null")
