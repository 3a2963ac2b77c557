"""A line of the ledger between its opening and its end."""

from __future__ import annotations

from typing import NamedTuple

from llmproxy.ledger import records
from llmproxy.ledger.records import LedgerLineOpening


class OpenLine(NamedTuple):
    """A line that was opened and not settled.

    @ivar segment: The number of the segment that its records are in.
    @ivar number: What its id has behind the run.
    @ivar version: That of the secrets of which its texts hold none.
    """

    segment: int
    number: int
    opening: LedgerLineOpening
    version: int
    announcement: bytes = b""

    def moved(self, ledger_id: str) -> bytes:
        """Its opening for a later place, where the uses of the first have been counted, or will be."""
        return records.encode_opening(self.opening._replace(id=ledger_id, uses=0))
