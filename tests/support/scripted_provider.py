"""A provider in a thread of its own that does exactly what a script says, to the byte."""

from __future__ import annotations

import socket
import struct
import time
from collections import Counter
from collections.abc import Sequence

from tests.support.threaded_server import ThreadedServer, received

Act = bytes | float | str

CLOSE = "close"  # in good order
RESET = "reset"
NEXT = "next"  # wait for the next request's head, and leave it unanswered


class ScriptedProvider(ThreadedServer):
    """Listens on loopback for the time of a C{with} block; the last segment of a path names the script.

    A script is a sequence of bytes to send, seconds to wait, and L{CLOSE}, L{RESET} or L{NEXT}. Without an end of its
    own the connection stays open until the other side closes it, or serves its next request.

    @ivar scripts: By name.
    @ivar seen: How often each was asked for.
    @ivar bodies: Bytes of the last request's body that had arrived, by name.
    @ivar ended: How often the other side has ended a connection whose last script that was.
    """

    def __init__(self, scripts: dict[str, Sequence[Act]]) -> None:
        super().__init__()
        self.scripts = scripts
        self.seen: Counter[str] = Counter()
        self.bodies: dict[str, int] = {}
        self.ended: Counter[str] = Counter()

    def serve(self, connection: socket.socket) -> None:
        name, rest = "", b""
        while True:
            while b"\r\n\r\n" not in rest:
                if not (piece := received(connection)):
                    self.ended[name] += 1
                    return
                rest += piece
            head, _, rest = rest.partition(b"\r\n\r\n")
            name = head.split(b" ")[1].partition(b"?")[0].rpartition(b"/")[2].decode()
            self.seen[name] += 1
            script = self.scripts[name]
            if "early" not in name:
                rest = self._body(connection, name, head, rest)
            if not self._play(connection, script):
                return
        self._open.discard(connection)

    def _body(self, connection: socket.socket, name: str, head: bytes, rest: bytes) -> bytes:
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(rest) < length and (piece := connection.recv(65536)):
            rest += piece
        self.bodies[name] = min(length, len(rest))
        return rest[length:]

    def _play(self, connection: socket.socket, script: Sequence[Act]) -> bool:
        """Whether the connection goes on."""
        for act in script:
            if isinstance(act, bytes):
                connection.sendall(act)
            elif isinstance(act, float):
                time.sleep(act)
            elif act == NEXT:
                connection.recv(65536)
            else:
                if act == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
        return True
