"""A result of any size, part by part, out of one statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any

from sqlalchemy import Connection, CursorResult, Row, Select

from llmproxy.base.coroutines import deferred

ROWS_PER_PART = 1000  # at once in memory


class Export:
    """The rows of one statement as they were when it began. Holds a connection until it is closed, as it must be.

    Sorting and adding up is done once, by the database, and not again for each part.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], Any]], Awaitable[Any]],
        connect: Callable[[], Connection],
        closed: Callable[[], object],
    ) -> None:
        """
        @param run: Does what blocks in a thread.
        @param connect: Makes the connection, in a thread.
        @param closed: Called once it is closed.
        """
        self._run = run
        self._connect = connect
        self._lock = Lock()  # a part that nobody waits for any more may still be under way
        self._connection: Connection | None = None
        self._rows: CursorResult[Any] | None = None
        self._over = False
        self._closed = closed

    @deferred
    async def part(
        self, wanted: Select[Any], render: Callable[[Sequence[Row[Any]]], bytes], size: int = ROWS_PER_PART
    ) -> bytes:
        """Fire with the next rows as C{render} writes them, in a thread too; with C{b""} at the end."""

        def fetch() -> bytes:
            with self._lock:
                if self._over:
                    return b""
                if self._rows is None:
                    self._connection = self._connect()
                    self._rows = self._connection.execute(wanted, execution_options={"stream_results": True})
                rows = self._rows.fetchmany(size)
            return render(rows) if rows else b""

        return bytes(await self._run(fetch))

    @deferred
    async def close(self) -> None:
        """Let go of the connection."""

        def close() -> None:
            with self._lock:
                self._over = True
                connection, self._connection = self._connection, None
                if connection is not None:
                    if self._rows is not None:
                        self._rows.close()
                    connection.close()

        try:
            await self._run(close)
        finally:
            self._closed()
