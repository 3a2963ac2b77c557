"""A provider's name that stands for other addresses as time goes on; a plugin of twistd resolves it."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.support.stack import KEYS, SETTINGS, Stack, eventually
from tests.support.web_provider import WebProvider

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
API = """\
  named:
    base_url: http://provider.test:{number}
    allowed_endpoints: [/v1/chat/completions]
    circuit_breaker: {{failures: 0}}
    connection: {{dns_ttl: 3s}}
"""
PLUGIN = """\
    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.plugin import IPlugin
    from zope.interface import implementer

    from llmproxy.caching.backends.memory import MemoryCache
    from llmproxy.interfaces import ICacheFactory


    class Resolver:
        def resolveHostName(self, receiver, hostName, portNumber=0, *more, **kw):
            receiver.resolutionBegan(None)
            for host in open(HOSTS).read().split():
                receiver.addressResolved((IPv6Address if ":" in host else IPv4Address)("TCP", host, portNumber))
            receiver.resolutionComplete()
            return receiver


    @implementer(IPlugin, ICacheFactory)
    class CacheFactory:
        name = "named"

        def cache(self, settings, reactor):
            reactor.installNameResolver(Resolver())
            return MemoryCache(reactor, settings.cache.max_bytes)


    factory = CacheFactory()
"""


class NamedStack(Stack):
    """Its API C{named} has a provider whose name stands for the addresses in the file C{hosts}."""

    def __init__(self, home: Path, number: int) -> None:
        self.hosts = home / "hosts"
        folder = home / "more" / "twisted" / "plugins"
        folder.mkdir(parents=True)
        (folder / "named_plugin.py").write_text(f"HOSTS = {str(self.hosts)!r}\n" + dedent(PLUGIN))
        self.settings = SETTINGS.replace("server: {{", API.replace("{number}", str(number)) + "server: {{")
        self.keys: Any = {**KEYS, "named": "sk-named"}
        super().__init__(home, further="cache: {backend: named}\n", env={"PYTHONPATH": str(home / "more")})

    def post(self) -> int:
        headers = {"Content-Type": "application/json"}
        return self.ask("POST", "/named/v1/chat/completions", CHAT, headers).status


def test_a_changed_address_is_used(tmp_path: Path) -> None:
    """Also where there is a connection to the old one, which is closed; an IPv6 address that refuses harms nobody."""
    with (
        WebProvider() as old,
        WebProvider(host="127.0.0.2", port=old.port) as new,
        NamedStack(tmp_path, old.port) as stack,
    ):
        stack.hosts.write_text("::1 127.0.0.1")
        for _ in range(4):
            assert stack.post() == 200
        assert (len(old.received), len(new.received), len(set(old.peers))) == (4, 0, 1)
        stack.hosts.write_text("127.0.0.2")
        eventually(lambda: stack.post() == 200 and new.received)
        before = len(old.received)
        for _ in range(4):
            assert stack.post() == 200
        assert len(old.received) == before
        eventually(lambda: not old.open)
