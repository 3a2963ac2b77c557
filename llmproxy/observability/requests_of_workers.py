"""The last requests of all workers, as one list."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict
from heapq import merge
from typing import Any

from llmproxy.base.coroutines import deferred
from llmproxy.base.peers import Peers
from llmproxy.errors import Invalid
from llmproxy.model import Page, PageRequest, RequestRecord
from llmproxy.observability.recent_requests import RecentRequests, RequestFilter

_CURSOR = re.compile(r"(?:[0-9]{1,15}|[0-9a-f]{16}-[0-9]{1,15}(?:\.[0-9a-f]{16}-[0-9]{1,15}){0,255})?", re.ASCII)


class RequestsOfWorkers:
    """Those of this process, and those of the other workers; a worker that has ended takes its own along."""

    def __init__(self, own: RecentRequests | None = None, peers: Peers | None = None) -> None:
        self._own = own or RecentRequests()
        self._peers = peers or Peers()
        self._peers.register("requests.page", lambda body: self._part(*body))
        self._peers.register("requests.find", self._found)

    @deferred
    async def page(self, wanted: RequestFilter, request: PageRequest) -> Page[RequestRecord]:
        """Fire with a page of them, the latest first; L{Invalid} where the cursor is none.

        A cursor says for each worker which of its requests was the last on the pages before.
        """
        if self._peers.alone:
            return self._own.page(wanted, request)
        if not _CURSOR.fullmatch(request.cursor) or request.cursor.isdigit():
            raise Invalid("cursor: is none that this list has given out.")
        places = dict(part.split("-") for part in request.cursor.split(".") if part)
        most = request.offset + request.limit + 1
        plain = _plain(wanted)
        others = await self._peers.ask("requests.page", [plain, places, most])
        parts = [self._part(plain, places, most), *others]
        lists = [[(process, number, RequestRecord(*values)) for number, values in rows] for process, rows in parts]
        latest = list(merge(*lists, key=lambda each: _end(each[2]), reverse=True))[:most]
        for process, number, _ in latest[: most - 1]:
            places[process] = str(number)
        items = [record for _, _, record in latest[request.offset : most - 1]]
        # One that has shown nothing yet begins where it is now: what comes later is not on the next pages.
        for process, rows in parts:
            places.setdefault(process, str(rows[0][0] + 1 if rows else 0))
        cursor = ".".join(f"{process}-{number}" for process, number in places.items())
        return Page(items, None, cursor if len(latest) == most else "")

    @deferred
    async def find(self, request_id: str) -> RequestRecord | None:
        """Fire with the latest of that id."""
        others = await self._peers.ask("requests.find", request_id)
        found = [self._own.find(request_id), *(RequestRecord(*values) for values in others if values is not None)]
        return max((record for record in found if record is not None), key=_end, default=None)

    def _part(self, wanted: dict[str, Any], places: dict[str, str], most: int) -> tuple[str, list[Any]]:
        """Of this process: its name in cursors, and rows of number and record."""
        name = self._own.name
        before = int(places[name]) if name in places else None
        rows = self._own.numbered(RequestFilter(**wanted), before, most)
        return name, [[number, list(record)] for number, record in rows]

    def _found(self, request_id: str) -> list[Any] | None:
        record = self._own.find(request_id)
        return None if record is None else list(record)


def _plain(wanted: RequestFilter) -> dict[str, Any]:
    projects: Collection[str] | None = wanted.projects
    return {**asdict(wanted), "projects": None if projects is None else list(projects)}


def _end(record: RequestRecord) -> float:
    return record.started_at + record.duration
