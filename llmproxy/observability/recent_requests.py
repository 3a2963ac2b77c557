"""The last requests of this process, for people who look at what happens now."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import urandom

from llmproxy.brief_record import BriefRecord
from llmproxy.errors import Invalid
from llmproxy.model import Page, PageRequest, RequestRecord

MAX_RECORDS = 2000


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests are wanted; what is left empty does not matter.

    @ivar projects: Only of these projects; C{None} for all, and for those that belong to none.
    @ivar status: Such as C{429}, or C{4xx}.
    """

    projects: Collection[str] | None = None
    token_id: str = ""
    api: str = ""
    model: str = ""
    status: str = ""
    outcome: str = ""
    error: str = ""

    def matches(self, record: RequestRecord) -> bool:
        return (
            (self.projects is None or record.project_id in self.projects)
            and (not self.token_id or record.token_id == self.token_id)
            and (not self.api or record.api == self.api)
            and (not self.model or self.model in (record.model, record.answered))
            and (not self.status or _is_status(record.status, self.status))
            and (not self.outcome or record.outcome == self.outcome)
            and (not self.error or record.error == self.error)
        )


def _is_status(status: int, wanted: str) -> bool:
    return str(status)[0] == wanted[0] if wanted.endswith("xx") else str(status) == wanted


class RecentRequests:
    """Keeps the records of the last finished requests; never a body."""

    def __init__(self, size: int = MAX_RECORDS, name: str = "") -> None:
        """
        @param name: Of this process, as no other has it: sixteen hexadecimal digits.
        """
        self.name = name or urandom(8).hex()
        self._records: deque[BriefRecord] = deque(maxlen=size)
        self._count = 0

    def observe_all(self, records: Sequence[BriefRecord]) -> None:
        """Keep these too, the latest last."""
        self._count += len(records)
        self._records.extend(records)

    def search(self, wanted: RequestFilter, limit: int) -> list[RequestRecord]:
        """Those that match, the latest first."""
        return list(islice((record for record in self._latest_first() if wanted.matches(record)), limit))

    def _latest_first(self) -> Iterator[RequestRecord]:
        return (record.whole() for record in reversed(self._records))

    def page(self, wanted: RequestFilter, request: PageRequest) -> Page[RequestRecord]:
        """A page of them, the latest first; L{Invalid} where the cursor is none.

        A cursor is the number of the last request on its page: what has come since is not on the next one.
        """
        if not re.fullmatch("[0-9]{0,15}", request.cursor):
            raise Invalid("cursor: is none that this list has given out.")
        before = int(request.cursor or self._count + 1)
        found = self.numbered(wanted, before, request.offset + request.limit + 1)[request.offset :]
        items = found[: request.limit]
        return Page([record for _, record in items], None, str(items[-1][0]) if len(found) > len(items) else "")

    def numbered(self, wanted: RequestFilter, before: int | None, limit: int) -> list[tuple[int, RequestRecord]]:
        """Those that match with their numbers, the latest first: of those before this number, or of all."""
        numbered = zip(range(self._count, 0, -1), self._latest_first(), strict=False)
        matching = (
            (number, record)
            for number, record in numbered
            if (before is None or number < before) and wanted.matches(record)
        )
        return list(islice(matching, limit))

    def find(self, request_id: str, projects: Collection[str] | None = None) -> RequestRecord | None:
        """The latest of that id, of one of these projects."""
        wanted = RequestFilter(projects)
        matching = (r for r in self._latest_first() if r.request_id == request_id and wanted.matches(r))
        return next(matching, None)
