"""A stack whose settings are values, so that one daemon can have an API for each setting that is to be seen."""

from __future__ import annotations

import json
import select
import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import HOST, Daemon, free_port
from tests.support.responses import Response
from tests.support.stack import SIMULATORS, Stack

Values = Mapping[str, Any]
PLAIN = "plain"  # the API in which everything is as it is by default


class SettingsStack(Stack):
    """A daemon with an API for each of C{apis}, all of them with the simulator as their provider.

    @ivar spare: A second address of the simulator, where that listens with TLS if it was given C{pem}.
    """

    def __init__(
        self, home: Path, apis: Mapping[str, Values] | None = None, pem: Path | None = None, **sections: Any
    ) -> None:
        """
        @param apis: What each API has beside the usual; there is always L{PLAIN}, first.
        @param sections: Everything else, as it stands in the file: C{server={"workers": 2}}.
        """
        self.apis: Mapping[str, Values] = {PLAIN: {}, **(apis or {})}
        self.sections = sections
        self.keys = {name: f"sk-sim-{api.get('provider', 'openai')}" for name, api in self.apis.items()}
        self.spare = free_port()
        super().__init__(home)
        if pem is not None:
            listen = f"ssl:{self.spare}:interface={HOST}:privateKey={pem}:certKey={pem}"
            SIMULATORS.give_back(self.simulator)
            port = free_port()
            own = ("llmproxy-simulator", "--listen", f"tcp:{port}:interface={HOST}", "--listen", listen)
            self.simulator = Daemon(*own, port=port, log=home / "simulator.log")
            self.daemon = self.another()

    @property
    def provider(self) -> str:
        return f"http://{HOST}:{self.simulator.port}"

    def another(self, name: str = "llmproxy", **sections: Any) -> Daemon:
        """A further daemon on the same database, with these sections in the place of its own; not started yet."""
        port = free_port()
        document = {
            "default_api": PLAIN,
            "state_dir": f"{self.home}/state",
            "store": {"url": f"sqlite:///{self.home}/llmproxy.db"},
            "events": {"sinks": [{"type": "file", "path": f"{self.home}/events.jsonl"}]},
            "audit": {"file": f"{self.home}/audit.jsonl"},
            **self.sections,
            **sections,
        }
        document["apis"] = {api: self._api(values) for api, values in self.apis.items()}
        document["server"] = {"listen": [f"tcp:{port}:interface={HOST}"], **document.get("server", {})}
        config = self.home / f"{name}.yaml"
        config.write_text(json.dumps(document, indent=1))
        return Daemon(
            "llmproxy", "--config", str(config), port=port, log=self.home / f"{name}.log", env=self.env,
            starts_others="workers" in document["server"],
        )  # fmt: skip

    def _api(self, values: Values) -> dict[str, Any]:
        usual = {
            "provider": "openai",
            "base_url": self.provider,
            "allowed_endpoints": ["/**"],
            "circuit_breaker": {"failures": 0},
        }
        return {key: self._here(value) for key, value in {**usual, **values}.items() if value is not None}

    def _here(self, value: Any) -> Any:
        """Text in which C{PROVIDER} and C{SPARE} stand for the simulator's addresses."""
        if not isinstance(value, str):
            return value
        return value.replace("PROVIDER", self.provider).replace("SPARE", f"{HOST}:{self.spare}")

    def request_events(self) -> list[dict[str, Any]]:
        """As L{events}, without those of budgets' alerts."""
        return [event for event in self.events() if "request_id" in event]

    def seen_at(self, path: str) -> list[dict[str, Any]]:
        """What the provider received at this address, oldest first."""
        return [request for request in self.recorded() if request["target"].partition("?")[0] == path]

    def provider_connections(self) -> int:
        """How many connections to the provider are open, this question's not counted."""
        with urllib.request.urlopen(f"{self.provider}/-/stats", timeout=10) as answer:
            return int(json.loads(answer.read())["connections"]) - 1


class Asked:
    """A request of which one does not wait for the response: it comes when it comes."""

    def __init__(
        self, stack: Stack, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None,
        port: int = 0, token: str = "",
    ) -> None:  # fmt: skip
        lines = {
            "Host": "proxy.test",
            "Authorization": f"Bearer {token or stack.token}",
            **({"Content-Length": str(len(body))} if body else {}),
            **(headers or {}),
        }
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.received = b""
        self.ended = False
        self.socket = socket.create_connection((HOST, port or stack.daemon.port), 30)
        self.socket.sendall(f"{head}\r\n".encode() + body)

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def so_far(self) -> bytes:
        """All that has come until now."""
        while not self.ended and select.select([self.socket], [], [], 0)[0]:
            try:
                piece = self.socket.recv(65536)
            except ConnectionError:
                piece = b""
            self.received += piece
            self.ended = not piece
        return self.received

    def status(self) -> int:
        """Of the response, or 0 while there is none."""
        head = self.so_far().split(b" ", 2)
        return int(head[1]) if len(head) > 1 else 0


__all__ = ["PLAIN", "Asked", "Response", "SettingsStack"]
