"""A receiver of webhooks on a thread, which keeps what it was sent."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

from tests.support.processes import HOST


class Delivery(NamedTuple):
    """One request; C{fields} by their names in lower case."""

    fields: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """What the message is about."""
        return json.loads(self.body)["data"]  # type: ignore[no-any-return]

    def is_signed_with(self, secret: str) -> bool:
        """As a receiver checks it (Standard Webhooks, "Verifying signatures")."""
        signed = f"{self.fields['webhook-id']}.{self.fields['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(secret.encode(), signed, sha256).digest()).decode()
        return hmac.compare_digest(self.fields["webhook-signature"], f"v1,{expected}")


class _ReceiverHandler(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.deliveries.append(Delivery({k.lower(): v for k, v in self.headers.items()}, body))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class WebhookReceiver:
    """For the time of a C{with} block.

    @ivar deliveries: What has come; C{statuses}: what the next ones are answered, then 204.
    """

    def __init__(self, port: int = 0) -> None:
        server: Any = ThreadingHTTPServer((HOST, port), _ReceiverHandler)
        server.daemon_threads, server.block_on_close = True, False
        server.deliveries, server.statuses = [], []
        self._server = server
        self.deliveries: list[Delivery] = server.deliveries
        self.statuses: list[int] = server.statuses
        self.port: int = server.server_address[1]
        self.url = f"http://{HOST}:{self.port}/alerts"

    def __enter__(self) -> WebhookReceiver:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
