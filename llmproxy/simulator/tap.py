"""C{twistd llmproxy-simulator}: its options, and its service."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application import strports
from twisted.application.service import IService, MultiService
from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from llmproxy.simulator import keys
from llmproxy.simulator.site import make_site

BACKLOG = 4096  # the kernel has a bound of its own, net.core.somaxconn
DEFAULT = "tcp:9100:interface=127.0.0.1"


class Options(TwistedOptions):
    """What can be said on the command line."""

    synopsis = "[--listen ENDPOINT]... [--keys FILE] [--key PROVIDER=KEY]..."
    longdesc = (
        "A provider to try things on: speaks OpenAI, Anthropic, Gemini, Mistral and Azure. See docs/simulator.md."
    )

    parent: Any = None  # twistd puts its own options there

    def __init__(self) -> None:
        super().__init__()
        self.endpoints: list[str] = []
        self.known: list[tuple[str, str]] = []

    def opt_listen(self, endpoint: str) -> None:
        """Listen on this Twisted endpoint; may be repeated. [default: tcp:9100:interface=127.0.0.1]"""
        self.endpoints.append(endpoint)

    def opt_key(self, text: str) -> None:
        """PROVIDER=KEY: a key that this provider knows, instead of its sk-sim-PROVIDER; may be repeated."""
        self.known += self._parsed(keys.parse, text)

    def opt_keys(self, path: str) -> None:
        """A file with one PROVIDER=KEY a line."""
        try:
            text = Path(path).read_text()
        except OSError as e:
            raise UsageError(f"--keys: {e}") from e
        self.known += self._parsed(keys.parse_file, text)

    def postOptions(self) -> None:
        self.endpoints = self.endpoints or [DEFAULT]
        twistd = self.parent
        if twistd is not None and twistd["nodaemon"] and twistd["pidfile"] == "twistd.pid":
            twistd["pidfile"] = ""  # one that was left behind would keep twistd from starting

    def _parsed(self, parse: Any, text: str) -> list[tuple[str, str]]:
        try:
            found = parse(text)
        except ValueError as e:
            raise UsageError(str(e)) from e
        return found if isinstance(found, list) else [found]


def _with_backlog(endpoint: str) -> str:
    """Room for clients that connect while it is busy: beyond Twisted's 50, the kernel keeps them out for seconds."""
    takes_one = endpoint.partition(":")[0] in ("tcp", "tcp6", "ssl", "unix")
    return f"{endpoint}:backlog={BACKLOG}" if takes_one and ":backlog=" not in endpoint else endpoint


def makeService(options: Options) -> IService:
    """One journal, as many listening ports as were asked for."""
    from twisted.internet import reactor

    site = make_site(keys.Keys(options.known), reactor)
    service = MultiService()
    for endpoint in options.endpoints:
        strports.service(_with_backlog(endpoint), site).setServiceParent(service)
    return service
