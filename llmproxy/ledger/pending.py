"""Results that are reported later, in SQL: kept from the request that asked for one until somebody fetches it.

A row is entered in the transaction that enters the line of the request, so it is there if that is, whatever ends the
process; and it is removed in the one that enters what the result used, so that nothing is ever charged twice.
Every function here blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from llmproxy.base.budgets import nano
from llmproxy.ledger.records import Deferral, HeldBudget
from llmproxy.model import LedgerLine
from llmproxy.store.tables import pending_results as table

MAX_PENDING_SECONDS = 35 * 86400.0  # for which a result may be fetched; providers keep theirs for 30 days at most


class PendingResult(NamedTuple):
    """A result that a response has announced.

    @ivar ledger_id: The id of the line of the request that asked for it.
    @ivar result_id: What the provider calls it.
    @ivar model: The one that was asked for, as its line has it.
    @ivar held: As L{HeldBudget} each.
    @ivar attribution: That of the request that asked for it.
    """

    ledger_id: str
    result_id: str
    at: float
    project_id: str
    token_id: str
    api: str
    model: str
    held: tuple[HeldBudget, ...] = ()
    attribution: str = ""

    def line(self) -> LedgerLine:
        """As much of the line of the request that asked for it as its sums go by."""
        return LedgerLine(
            self.ledger_id,
            self.at,
            project_id=self.project_id,
            token_id=self.token_id,
            api=self.api,
            model=self.model,
            attribution=self.attribution,
        )


def pending_result(line: LedgerLine, deferral: Deferral) -> PendingResult:
    """What the response of a request has announced that has this line."""
    return PendingResult(
        line.id,
        deferral.result_id,
        line.at,
        line.project_id,
        line.token_id,
        line.api,
        line.model,
        deferral.held,
        line.attribution,
    )


def insert_results(connection: Connection, results: Sequence[PendingResult]) -> None:
    connection.execute(
        insert(table), [{**each._asdict(), "held": [list(claim) for claim in each.held]} for each in results]
    )


def held_by_budget(results: Sequence[PendingResult]) -> dict[str, int]:
    """What is held for all of these, by budget."""
    sums: dict[str, int] = {}
    for each in results:
        for claim in each.held:
            sums[claim.key] = sums.get(claim.key, 0) + claim.amount
    return sums


def find_results(connection: Connection, project_id: str, api: str, result_id: str) -> list[PendingResult]:
    """All that are known by this id, oldest first: a request that is repeated is answered with the same."""
    same = (table.c.project_id == project_id, table.c.api == api, table.c.result_id == result_id)
    rows = connection.execute(select(table).where(*same).order_by(table.c.at, table.c.ledger_id))
    return [
        PendingResult(**{**row._mapping, "held": tuple(HeldBudget(*claim) for claim in row.held or ())}) for row in rows
    ]


def remove_results(connection: Connection, results: Sequence[PendingResult]) -> bool:
    """Whether the first of them was still there: then it is this transaction that removes them."""
    gone = delete(table).where(table.c.ledger_id == bindparam("gone"))
    if not connection.execute(gone, {"gone": results[0].ledger_id}).rowcount:
        return False
    for each in results[1:]:
        connection.execute(gone, {"gone": each.ledger_id})
    return True


def rename_results(connection: Connection, results: Sequence[PendingResult], result_id: str) -> None:
    """They are told of by another object."""
    for each in results:
        connection.execute(update(table).where(table.c.ledger_id == each.ledger_id).values(result_id=result_id))


def count_results(connection: Connection) -> int:
    return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def purge_results(connection: Connection, before: float) -> int:
    """Forget those that nobody has fetched; what they hold of budgets stays spent."""
    return connection.execute(delete(table).where(table.c.at < before)).rowcount


def corrections(results: Sequence[PendingResult], line: LedgerLine) -> dict[str, int]:
    """How much less than was held each budget is to be charged: all is due to the first of them."""
    given: dict[str, int] = {}
    for number, each in enumerate(results):
        for claim in each.held:
            used = _used(claim, line) if number == 0 else 0
            if used is not None:
                given[claim.key] = given.get(claim.key, 0) + claim.amount - used
    return {key: less for key, less in given.items() if less}


def _used(claim: HeldBudget, line: LedgerLine) -> int | None:
    """C{None} where nobody knows: then what is held stays."""
    if claim.unit == "tokens":
        return line.input_tokens + line.output_tokens
    return None if line.cost_usd is None else nano(line.cost_usd)
