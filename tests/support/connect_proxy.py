"""An HTTP proxy that makes tunnels, or does what a test tells it to."""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.processes import HOST


class ConnectProxy:
    """Listens on loopback for the time of a C{with} block.

    @ivar credentials: What it demands, as C{user:password}; C{""}: nothing.
    @ivar says: What it responds in place of a tunnel; C{b""}: it closes the connection.
    @ivar asked: The heads of the requests that have come.
    """

    def __init__(self, credentials: str = "", pem: Path | None = None) -> None:
        """
        @param pem: Certificate and key with which it speaks TLS with its clients.
        """
        self.credentials = credentials
        self._context = None
        if pem is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(pem)
        self.says: bytes | None = None
        self.asked: list[bytes] = []
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http{'s' if pem else ''}://{HOST}:{self.port}"
        self._open: list[socket.socket] = [self._listening]

    def __enter__(self) -> ConnectProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    @property
    def targets(self) -> set[bytes]:
        """What tunnels were asked for to."""
        return {head.split(b" ")[1] for head in self.asked}

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._context is not None:
            with suppress(OSError):
                client = self._context.wrap_socket(client, server_side=True)
                self._open.append(client)
        with suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := client.recv(65536)):
                    return
                head += piece
            self.asked.append(head)
            expected = b"Proxy-Authorization: Basic " + b64encode(self.credentials.encode()) + b"\r\n"
            if self.says is not None:
                client.sendall(self.says)
                return
            if self.credentials and expected not in head:
                client.sendall(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\nProxy-Authenticate: Basic\r\n\r\n")
                return
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            server = socket.create_connection((host.strip("[]"), int(port)))
            self._open.append(server)
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
            _pass_on(client, server)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
