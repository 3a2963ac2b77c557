"""Agents: what reaches each upstream, made of its settings and of the files that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmproxy.base.tls import OwnCertificate, load_own_certificate
from llmproxy.config.api_settings import Api
from llmproxy.config.load import read_private
from llmproxy.config.upstream_settings import UpstreamServer
from llmproxy.store.errors import StartupError
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.connect_endpoint import HTTPProxy
from llmproxy.wire.client.tls import TrustPolicy
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.write_coalescing import WriteCoalescer

DEFAULT_PROXY_PORTS = {"http": 80, "https": 443}


class ProviderAgents:
    """Makes agents, and keeps those that would come out the same again."""

    def __init__(
        self,
        reactor: Any,
        coalescer: WriteCoalescer | None,
        descriptors: Descriptors | None,
        environ: Mapping[str, str],
        learn: Callable[[str], object],
    ) -> None:
        """
        @param environ: Where C{env:NAME} is looked for.
        @param learn: Called with every secret, so that logs can leave it out.
        """
        self._reactor = reactor
        self._coalescer = coalescer
        self._descriptors = descriptors
        self._environ = environ
        self._learn = learn

    def of(self, name: str, api: Api, before: tuple[Agent, ...] = ()) -> tuple[Agent, ...]:
        """Those of an API, by its upstreams; L{StartupError} says which file cannot be used. Blocks for files.

        @param before: Those that there are, which are kept with their connections where nothing of theirs is other.
        """
        known = {agent.identity: agent for agent in before}
        return tuple(self._agent(name, api, server, known) for server in api.servers)

    def _agent(self, name: str, api: Api, server: UpstreamServer, known: Mapping[object, Agent]) -> Agent:
        connection, timeouts = api.connection, api.timeouts
        ca_file = server.ca_file or api.ca_file
        shown = server if server.client_cert_file else api
        at = f"apis.{name}"
        own = None
        if shown.client_cert_file:
            own = _certificate(at, shown.client_cert_file, shown.client_key_file)
        proxy = self._proxy(at, server if server.proxy_url else api)
        files = [ca_file, shown.client_cert_file, shown.client_key_file]
        identity = (
            *(server.base_url, connection, timeouts.connect, timeouts.idle_connection, proxy, *files),
            *(_digest(file) for file in files),
        )
        if identity in known:
            return known[identity]
        return Agent(
            self._reactor,
            connect_timeout=timeouts.connect,
            idle_timeout=timeouts.idle_connection,
            max_conns_per_host=connection.max_conns_per_host,
            max_idle_per_host=connection.max_idle_conns_per_host,
            max_idle=connection.max_idle_conns,
            dns_ttl=connection.dns_ttl,
            context_factory=TrustPolicy(ca_file, own),
            proxy=proxy,
            proxy_trust=TrustPolicy(ca_file) if proxy is not None and proxy.secure else None,
            identity=identity,
            coalescer=self._coalescer,
            descriptors=self._descriptors,
        )

    def _proxy(self, at: str, settings: Api | UpstreamServer) -> HTTPProxy | None:
        if not settings.proxy_url:
            return None
        parts = urlsplit(settings.proxy_url)
        credentials = ""
        if settings.proxy_credentials:
            credentials = self._credentials(f"{at}.proxy_credentials", settings.proxy_credentials)
        port = parts.port or DEFAULT_PROXY_PORTS[parts.scheme]
        return HTTPProxy(parts.hostname or "", port, credentials, secure=parts.scheme == "https")

    def _credentials(self, at: str, reference: str) -> str:
        kind, _, name = reference.partition(":")
        if kind == "env":
            text = self._environ.get(name, "").strip()
        else:
            try:
                text = read_private(name)[1].strip()
            except OSError as e:
                raise StartupError(f"{at}: {name} cannot be read: {e.strerror or e}.") from e
            except UnicodeDecodeError as e:
                raise StartupError(f"{at}: {name} is not text in UTF-8.") from e
        user, colon, password = text.partition(":")
        if not colon or not user or not text.isprintable():
            raise StartupError(f"{at}: {reference} does not hold user:password.")
        self._learn(text)
        self._learn(password)
        return text


def _certificate(at: str, cert_file: str, key_file: str) -> OwnCertificate:
    try:
        return load_own_certificate(cert_file, key_file)
    except ValueError as e:
        raise StartupError(f"{at}.client_cert_file: {e}.") from e


def _digest(file: str) -> bytes:
    return sha256(Path(file).read_bytes()).digest() if file else b""
