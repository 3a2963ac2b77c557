"""The last requests of this process, for people who look at what happens now."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

from llmproxy.model import RequestRecord

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

    def __init__(self, size: int = MAX_RECORDS) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=size)
        self.observe = self._records.append

    def search(self, wanted: RequestFilter, limit: int) -> list[RequestRecord]:
        """Those that match, the latest first."""
        return list(islice((record for record in reversed(self._records) if wanted.matches(record)), limit))

    def find(self, request_id: str, projects: Collection[str] | None = None) -> RequestRecord | None:
        """The latest of that id, of one of these projects."""
        wanted = RequestFilter(projects)
        matching = (r for r in reversed(self._records) if r.request_id == request_id and wanted.matches(r))
        return next(matching, None)
