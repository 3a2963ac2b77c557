"""A daemon with several workers."""

from __future__ import annotations

import socket
import time
import urllib.error
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.processes import HOST
from tests.support.spares import SPARE
from tests.support.stack import Stack, eventually


class WorkerStack(Stack):
    """As L{Stack}, with so many workers; it is waited for until one of them serves."""

    starts_others = True

    def __init__(
        self, home: Path, workers: int, further: str = "", env: Mapping[str, str] | None = None, more: str = ""
    ) -> None:
        self.workers = workers
        super().__init__(home, more, further, env={"LLMPROXY_SERVER_WORKERS": str(workers), **(env or {})})

    def __enter__(self) -> WorkerStack:
        super().__enter__()
        try:
            eventually(lambda: f"{self.workers} of {self.workers} workers" in self.daemon.output(), 60)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def manage(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Their port is open before they are ready: what was not answered yet is asked again."""
        end = time.monotonic() + 60
        while True:
            try:
                return super().manage(method, path, body)
            except (TimeoutError, ConnectionError, urllib.error.URLError) as e:
                if isinstance(e, urllib.error.HTTPError) or time.monotonic() > end or self.daemon.ended:
                    if self.daemon.ended:
                        raise AssertionError(self.daemon.output()) from e
                    raise


def workers_of(pid: int) -> list[int]:
    """The processes that this one has started and that run, by their ids."""
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            name, _, rest = (each / "stat").read_text().rpartition(")")
            state, parent = rest.split()[:2]
            if int(parent) == pid and state != "Z" and not name.endswith(f"({SPARE}"):
                found.append(int(each.name))
    return sorted(found)


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def answering(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


__all__ = ["WorkerStack", "answering", "is_running", "workers_of"]
