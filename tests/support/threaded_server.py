"""A server on loopback with a thread for each connection, for the time of a C{with} block."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.processes import HOST


class ThreadedServer:
    """Accepts connections, and ends all of them with itself; L{serve} says what is done with one."""

    def __init__(self) -> None:
        self._listening = socket.create_server((HOST, 0), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        for connection in (self._listening, *list(self._open)):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def serve(self, connection: socket.socket) -> None:
        """Serve a connection, which is closed then; in a thread of its own. An L{OSError} is its end."""
        raise NotImplementedError

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self.serve(connection)


def received(connection: socket.socket) -> bytes:
    """What comes next; nothing, however the other side has ended it."""
    with suppress(ConnectionResetError):
        return connection.recv(65536)
    return b""
