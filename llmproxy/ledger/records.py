"""What stands in the journal: that a request was let go to its provider, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json

from llmproxy.brief_record import BriefRecord
from llmproxy.model import LedgerLine, RequestRecord

_RESERVED, _SETTLED, _COUNTED, _DROPPED, _ANNOUNCED = b"R", b"S", b"C", b"D", b"A"
_TOKENS_HITS = frozenset(("hit", "coalesced"))  # what a token's C{cache_hits} count
_HITS = frozenset(("hit", "revalidated", "coalesced", "stale"))


class LedgerLineOpening(NamedTuple):
    """A request that was let go to its provider.

    @ivar id: That of its line; C{""} until the ledger has made one.
    @ivar estimated_input_tokens: The input tokens that its size makes likely; C{0} where it is no text.
    @ivar uses: Uses of its token that nobody has counted yet: whoever enters this record does.
    @ivar attribution: As of a L{RequestRecord}.
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
    estimated_input_tokens: int
    uses: int = 0
    attribution: str = ""

    def line(self, cost: float | None, *, deferred: bool = False) -> LedgerLine:
        """What is known of it where its end was never recorded: the process ended first, and the response with it.

        @param cost: USD for its input, where a price is known.
        @param deferred: Whether its response had announced a result, which will tell.
        """
        given = 0 if deferred else self.estimated_input_tokens
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
            basis="pending" if deferred else "estimated" if given else "none",
            error="process_ended",
            input_tokens=given,
            cost_usd=cost if given else None,
            bytes_in=self.bytes_in,
            attribution=self.attribution,
        )


class HeldBudget(NamedTuple):
    """What a request has claimed of one budget, and keeps until its result is known.

    @ivar key: Names the budget and its period; C{ends}: when that ends, C{0} for never.
    @ivar unit: C{usd} (then C{amount} is nano-dollars) or C{tokens}.
    """

    key: str
    unit: str
    amount: int
    ends: float


class Deferral(NamedTuple):
    """A result that is reported later: what the provider calls it, and what is held for it until then."""

    result_id: str
    held: tuple[HeldBudget, ...] = ()


class Settlement(NamedTuple):
    """A request that is over.

    @ivar uses: Uses of its token to be counted with its line: one less where it was let go and then not sent.
    @ivar hits: Likewise responses from the cache.
    @ivar deferral: The result that its response announced.
    """

    line: LedgerLine
    uses: int = 0
    hits: int = 0
    deferral: Deferral | None = None


class FinishedRequest(NamedTuple):
    """A request that is over.

    @ivar ledger_id: That of its line in the ledger; C{""} where it has none yet, C{None} where it is to have none.
    @ivar sent: Whether anything of it was sent after that line had been opened; else it is no use of its token.
    @ivar deferral: The result that its response announced.
    @ivar then: Called once the ledger knows.
    """

    record: BriefRecord
    ledger_id: str | None
    sent: bool = True
    deferral: Deferral | None = None
    then: Callable[[], object] | None = None


class AnnouncedResult(NamedTuple):
    """A request under way whose answer has announced a result."""

    id: str
    deferral: Deferral


class DroppedLine(NamedTuple):
    """A request that is over and has its line in the store already."""

    id: str


def encode_opening(reservation: LedgerLineOpening) -> bytes:
    """A reservation as a record."""
    return _RESERVED + to_json_values(reservation)


def encode_settlement(line: LedgerLine, uses: int = 0, hits: int = 0, deferral: Deferral | None = None) -> bytes:
    """A settlement as a record."""
    if not uses and not hits and deferral is None:
        return _SETTLED + to_json_values(line)
    return _COUNTED + to_json_values((tuple(line), uses, hits, deferral))


def encode_announcement(ledger_id: str, deferral: Deferral) -> bytes:
    """That the response of a request under way has announced a result, as a record."""
    return _ANNOUNCED + to_json_values((ledger_id, deferral))


def encode_drop(ledger_id: str) -> bytes:
    """That nothing is to be entered for it, as a record."""
    return _DROPPED + to_json_values((ledger_id,))


def decode(record: bytes) -> LedgerLineOpening | Settlement | AnnouncedResult | DroppedLine | None:
    """A record as what it was; C{None} for what is none of them, as another version may have written."""
    kind = record[:1]
    try:
        values = from_json(record[1:])
        if not isinstance(values, list):
            return None
        if kind == _SETTLED:
            return Settlement(_line(values))
        if kind == _COUNTED:
            deferral = _deferral(values[3]) if len(values) > 3 else None
            return Settlement(_line(values[0]), int(values[1]), int(values[2]), deferral)
        if kind == _ANNOUNCED and (deferral := _deferral(values[1])) is not None:
            return AnnouncedResult(values[0], deferral)
        if kind == _DROPPED and isinstance(values[0], str):
            return DroppedLine(values[0])
        if kind == _RESERVED and isinstance(values[0], str):
            return LedgerLineOpening(*values[: len(LedgerLineOpening._fields)])
    except (IndexError, TypeError, ValueError):
        pass
    return None


def _line(values: Any) -> LedgerLine:
    """L{TypeError} where it is none."""
    if not isinstance(values, list) or not isinstance(values[0], str) or not isinstance(values[1], int | float):
        raise TypeError("is no line")
    return LedgerLine(*values[: len(LedgerLine._fields)])


def _deferral(values: Any) -> Deferral | None:
    if values is None:
        return None
    result_id, held = values
    return Deferral(result_id, tuple(HeldBudget(*each) for each in held))


def cache_hits(record: RequestRecord) -> int:
    """How much it adds to its token's C{cache_hits}."""
    return 1 if record.cache in _TOKENS_HITS and record.token_id else 0


def line(ledger_id: str, record: RequestRecord) -> LedgerLine:
    """The line of a finished request."""
    return LedgerLine(
        id=ledger_id,
        at=record.started_at,
        duration=record.duration,
        request_id=record.request_id,
        project_id=record.project_id,
        token_id=record.token_id,
        api=record.api,
        endpoint=record.endpoint,
        model=record.model,
        answered=record.answered,
        outcome=ledger_outcome(record),
        basis=record.basis or "none",
        error=record.error,
        status=record.status,
        upstream_status=record.upstream_status,
        stream=record.stream,
        input_tokens=record.input_tokens,
        cached_tokens=record.cached_tokens,
        cache_write_tokens=record.cache_write_tokens,
        output_tokens=record.output_tokens,
        reasoning_tokens=record.reasoning_tokens,
        cost_usd=record.cost_usd,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        attribution=record.attribution,
        attempts=record.attempts,
        attempted=record.attempted,
    )


def ledger_outcome(record: RequestRecord) -> str:
    """How the books call a request's end."""
    if record.outcome != "complete":
        return record.outcome if record.outcome in ("cancelled", "truncated") else "failed"
    if record.cache in _HITS:
        return "cached"
    if record.basis == "pending" and record.status < 400:
        return "pending"
    if record.status >= 400:
        return "failed"
    return "estimated" if record.basis == "estimated" else "exact"


def unsettled(
    found_records: Iterable[LedgerLineOpening | Settlement | AnnouncedResult | DroppedLine | None],
) -> dict[str, tuple[LedgerLineOpening, Deferral | None]]:
    """The reservations among these that were never settled, by their ids, each with what its response announced."""
    found: dict[str, tuple[LedgerLineOpening, Deferral | None]] = {}
    for read_one in found_records:
        if isinstance(read_one, LedgerLineOpening):
            found[read_one.id] = (read_one, None)
        elif isinstance(read_one, AnnouncedResult):
            if read_one.id in found:
                found[read_one.id] = (found[read_one.id][0], read_one.deferral)
        elif isinstance(read_one, Settlement):
            found.pop(read_one.line.id, None)
        elif read_one is not None:
            found.pop(read_one.id, None)
    return found


def to_json_values(values: tuple[Any, ...]) -> bytes:
    """As JSON, which L{decode} and its like can read back, whatever the texts hold."""
    try:
        return to_json(tuple(values), inf_nan_mode="null")
    except PydanticSerializationError:  # half of a surrogate pair, which nothing here can read back
        return to_json(_without_surrogates(values), inf_nan_mode="null")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_without_surrogates(each) for each in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
