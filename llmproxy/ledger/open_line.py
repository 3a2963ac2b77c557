"""A line of the ledger between its opening and its end."""

from __future__ import annotations

from typing import NamedTuple

from llmproxy.ledger import compact, records
from llmproxy.ledger.compact import LineKind
from llmproxy.ledger.records import LedgerLineOpening


class OpenLine(NamedTuple):
    """A line that was opened and not settled.

    @ivar segment: The number of the segment that its records are in.
    @ivar number: What its id has behind the run.
    @ivar version: That of the secrets of which its texts hold none.
    @ivar opening: How it was opened, or the short record that says so, which is of this C{kind}.
    """

    segment: int
    number: int
    request_id: str
    version: int
    opening: LedgerLineOpening | bytes
    kind: LineKind | None = None
    announcement: bytes = b""

    def moved(self, ledger_id: str) -> bytes:
        """Its opening for a later place, where the uses of the first have been counted, or will be."""
        opening = self.opening
        if isinstance(opening, bytes):
            found = compact.decode(opening, lambda _: self.kind)
            assert isinstance(found, LedgerLineOpening)
            opening = found
        return records.encode_opening(opening._replace(id=ledger_id, uses=0))
