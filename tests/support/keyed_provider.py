"""Servers of a provider whose answer to each key a test sets, and which remember who asked with what."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.support.processes import HOST

Said = tuple[int, dict[str, str]]


class KeyedProvider:
    """Listens on loopback for the time of a C{with} block; answers 200 unless it is told otherwise.

    @ivar says: A status and fields, by key; C{""} for all keys.
    @ivar asked: How often, by key; C{sessions}: the keys that came with each C{X-Session}, or C{session_id}.
    @ivar targets: What was asked for, by method and target.
    @ivar held: Requests wait until it is set.
    """

    def __init__(self) -> None:
        self.says: dict[str, Said] = {}
        self.asked: Counter[str] = Counter()
        self.sessions: dict[str, set[str]] = {}
        self.targets: Counter[str] = Counter()
        self.held = threading.Event()
        self.held.set()
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                provider.targets[f"{self.command} {self.path}"] += 1
                status, fields = provider.take(self.headers)
                provider.held.wait(30)
                body = b'{"id": "x", "object": "chat.completion", "choices": []}' if status == 200 else b'{"error": {}}'
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **fields}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://{HOST}:{self.port}"

    def take(self, headers: Any) -> Said:
        key = headers.get("Authorization", "").removeprefix("Bearer ")
        with self._lock:
            self.asked[key] += 1
            self.sessions.setdefault(headers.get("X-Session") or headers.get("session_id", ""), set()).add(key)
            return self.says.get(key) or self.says.get("") or (200, {})

    @property
    def total(self) -> int:
        """How often it was asked."""
        return sum(self.asked.values())

    def __enter__(self) -> KeyedProvider:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()
