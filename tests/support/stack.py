"""The whole thing as users have it: the daemon and the simulator as processes, a project and a token."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.databases import migrated_sqlite
from tests.support.processes import HOST, Daemon, free_port
from tests.support.responses import Response

DATABASE = "llmproxy.db"
MANAGEMENT = "management-token-for-tests-0123456789"
ENCRYPTION = "an encryption key for tests, long enough"
KEYS = {
    "openai": "sk-sim-openai",
    "anthropic": "sk-sim-anthropic",
    "google": "sk-sim-google",
    "mistral": "sk-sim-mistral",
    "azure": "sk-sim-azure",
    "anything": "sk-sim-openai",
}
SETTINGS = """\
default_api: openai
state_dir: {home}/state
apis:
  openai:
    provider: openai
    base_url: {provider}
    allowed_endpoints: [/v1/chat/completions, /v1/responses, /v1/embeddings, /v1/models, "/v1/models/*", /v1/files]
    circuit_breaker: {{failures: 0}}
    {more}
  anthropic:
    provider: anthropic
    base_url: {provider}
    allowed_endpoints: [/v1/messages, /v1/messages/count_tokens]
  google:
    provider: google
    base_url: {provider}
    allowed_endpoints: ["/v1/models/*", "/v1beta/models/*"]
  mistral:
    provider: mistral
    base_url: {provider}
    allowed_endpoints: [/v1/chat/completions]
  azure:
    provider: azure
    base_url: {provider}
    allowed_endpoints: ["/openai/deployments/*/chat/completions"]
  anything:
    base_url: {provider}
    allowed_endpoints: ["/**"]
    allowed_methods: [GET, HEAD, POST, PUT, PATCH, DELETE]
    circuit_breaker: {{failures: 0}}
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
events: {{sinks: [{{type: file, path: {home}/events.jsonl}}]}}
audit: {{file: {home}/audit.jsonl}}
"""


class Simulators:
    """Simulators that go from one stack to the next, their requests forgotten: to start one takes as long as twenty
    requests. One that a test has ended goes no further."""

    def __init__(self) -> None:
        self._all: list[Daemon] = []
        self._idle: list[Daemon] = []

    def take(self, home: Path) -> Daemon:
        """One that runs, or one that is still to be started."""
        while self._idle:
            if not (simulator := self._idle.pop()).ended:
                return simulator
        port = free_port()
        listen = f"tcp:{port}:interface={HOST}"
        self._all.append(Daemon("llmproxy-simulator", "--listen", listen, port=port, log=home / "simulator.log"))
        return self._all[-1]

    def give_back(self, simulator: Daemon) -> None:
        """What it has received until now is forgotten; one that is not from here, or does not answer, is ended."""
        if not simulator.runs:
            return
        try:
            if simulator in self._all:
                forget = urllib.request.Request(f"{simulator.url}/-/requests", method="DELETE")
                urllib.request.urlopen(forget, timeout=10).close()
                self._idle.append(simulator)
                return
        except OSError:
            pass
        simulator.stop()

    def end(self) -> None:
        """All of them."""
        for simulator in self._all:
            if simulator.runs:
                simulator.stop()
        self._all, self._idle = [], []


SIMULATORS = Simulators()


class Stack:
    """One daemon in front of one simulator, for the time of a C{with} block.

    @ivar home: Where their files are: C{llmproxy.log}, C{events.jsonl}, C{audit.jsonl}, C{llmproxy.db}.
    @ivar token: A token without limits, of the project C{project}.
    """

    project: str
    token: str
    settings = SETTINGS
    keys: Mapping[str, str] = KEYS
    starts_others = False  # as L{Daemon} is told

    def __init__(self, home: Path, more: str = "", further: str = "", env: Mapping[str, str] | None = None) -> None:
        """
        @param more: Further settings of the API C{openai}; C{further}: at the top, such as C{cache: {…}}.
        @param env: Further variables for the daemons.
        """
        self.home = home
        self.further = further
        self.simulator = SIMULATORS.take(home)
        self.more = more
        self.env = {"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION, **(env or {})}
        self.daemon = self.another()

    def another(self, name: str = "llmproxy") -> Daemon:
        """A further daemon on the same database, not started yet."""
        port = free_port()
        config = self.home / f"{name}.yaml"
        config.write_text(
            self.settings.format(
                home=self.home, provider=f"http://{HOST}:{self.simulator.port}", port=port, more=self.more
            )
            + self.further
        )
        return Daemon(
            "llmproxy", "--config", str(config), port=port, log=self.home / f"{name}.log", env=self.env,
            starts_others=self.starts_others,
        )  # fmt: skip

    def __enter__(self) -> Stack:
        database = self.home / DATABASE
        if not database.exists() and self.uses(database):
            migrated_sqlite(database)
        with ExitStack() as starting:
            starting.callback(lambda: SIMULATORS.give_back(self.simulator))
            self.simulator.start()
            starting.enter_context(self.daemon)
            self.project = self.manage("POST", "/manage/projects", {"name": "Team", "api_keys": dict(self.keys)})["id"]
            self.token = self.new_token()
            self._stack = starting.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def uses(self, database: Path) -> bool:
        """Whether that is where its daemon keeps everything."""
        settings = (self.home / "llmproxy.yaml").read_text()
        return "LLMPROXY_STORE_URL" not in self.env and f"sqlite:///{database}" in settings

    @property
    def url(self) -> str:
        return self.daemon.url

    def new_token(self, **properties: Any) -> str:
        made = self.manage("POST", "/manage/tokens", {"project_id": self.project, "name": "test", **properties})
        return str(made["token"])

    def manage(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """A call to the management API; its answer, or L{urllib.error.HTTPError}."""
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {MANAGEMENT}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")  # type: ignore[no-any-return]

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **kw: Any
    ) -> Response:
        """A plain request with the token, through the daemon."""
        connection = HTTPConnection(HOST, kw.get("port", self.daemon.port), timeout=kw.get("timeout", 30))
        try:
            given = {"Authorization": f"Bearer {kw.get('token', self.token)}", **(headers or {})}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Response.whole(answer.status, answer.reason, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def metric(self, name: str, port: int = 0) -> float:
        """The sum over what is shown by that name, with labels or without."""
        page = self.ask("GET", "/metrics", token=MANAGEMENT, port=port or self.daemon.port).body.decode()
        shown = [line.rpartition(" ") for line in page.splitlines()]
        return sum(float(value) for series, _, value in shown if series.partition("{")[0] == f"llmproxy_{name}")

    def recorded(self) -> list[dict[str, Any]]:
        """What the simulator received, oldest first."""
        with urllib.request.urlopen(f"{self.simulator.url}/-/requests", timeout=10) as answer:
            return list(json.loads(answer.read())["requests"])

    def events(self) -> list[dict[str, Any]]:
        """Those in C{events.jsonl} whose lines are written whole, oldest first; none while there is no file yet."""
        file = self.home / "events.jsonl"
        written = file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []
        return [json.loads(line) for line in written]

    def last(self) -> dict[str, Any]:
        return self.recorded()[-1]


def eventually(said: Any, seconds: float = 20.0) -> Any:
    """Ask again until the answer is true, less often the longer it takes and the dearer an answer is: asking takes time
    from those that are waited for. L{AssertionError} after so many seconds."""
    begun = asked = time.monotonic()
    while not (answer := said()):
        now = time.monotonic()
        assert now - begun < seconds, "it did not happen in time"
        time.sleep(min(max(0.01, (now - begun) / 10, (now - asked) * 3), 0.2))
        asked = time.monotonic()
    return answer


__all__ = ["ENCRYPTION", "KEYS", "MANAGEMENT", "Stack", "eventually", "urllib"]
