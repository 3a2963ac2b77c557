"""TLS for servers of the tests that have none."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.processes import HOST


class TLSInFront:
    """A port with TLS in front of a server's that has none; for the time of a C{with} block, which gets it.

    @ivar port: Where it listens.
    @ivar clients: The serial numbers of the certificates that clients have shown.
    """

    def __init__(self, pem: Path, server: int, refused: int = 0, client_ca: str = "") -> None:
        """
        @param refused: How many connections are closed before the first that is served.
        @param client_ca: Demand a certificate that this authority has signed.
        """
        self._refused = refused
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self.clients: set[str] = set()
        if client_ca:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)
        self._server = server
        self._listening = socket.create_server((HOST, 0))
        self._open: list[socket.socket] = [self._listening]
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return self.port

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listening.accept()
                if self._refused:
                    self._refused -= 1
                    plain.close()
                    continue
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError):
            client = self._context.wrap_socket(plain, server_side=True)
            self.clients.add(str((client.getpeercert() or {}).get("serialNumber", "")))
            server = socket.create_connection((HOST, self._server))
            self._open += [client, server]
            threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()
            self._pass_on(client, server)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
