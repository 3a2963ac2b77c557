"""A provider of the tests' own, on threads: it keeps unused connections for as long as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.support.processes import HOST

MODEL_RESPONSE = b'{"id":"1","object":"chat.completion","choices":[]}'


class ProviderHandler(BaseHTTPRequestHandler):
    """Answers every request, and notes its C{X-Request-Number}."""

    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        self.timeout = self.server.idle
        super().setup()
        self.server.open.add(self.client_address)

    def finish(self) -> None:
        super().finish()
        self.server.open.discard(self.client_address)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(self.headers.get("X-Request-Number", ""))
        self.server.peers.append(self.client_address)
        self.send_response(200)
        for name, value in {**self.server.fields, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(MODEL_RESPONSE)))
        self.end_headers()
        self.wfile.write(MODEL_RESPONSE)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class WebProvider:
    """For the time of a C{with} block.

    @ivar received: The numbers of the requests that have come; C{peers}: on which connection each of them;
        C{open}: the connections that there are.
    """

    def __init__(
        self, idle: float = 30.0, fields: Mapping[str, str] | None = None, host: str = HOST, port: int = 0
    ) -> None:
        """
        @param idle: For how many seconds an unused connection is kept; C{fields}: header fields of each response.
        """
        server: Any = ThreadingHTTPServer((host, port), ProviderHandler)
        server.daemon_threads, server.block_on_close = True, False
        server.idle, server.fields, server.received, server.peers, server.open = idle, dict(fields or {}), [], [], set()
        self._server = server
        self.received: list[str] = server.received
        self.peers: list[tuple[str, int]] = server.peers
        self.open: set[tuple[str, int]] = server.open
        self.port: int = server.server_address[1]
        self.url = f"http://{host}:{self.port}"

    def __enter__(self) -> WebProvider:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
