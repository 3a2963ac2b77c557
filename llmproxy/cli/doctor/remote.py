"""What is asked over the network, all at once: Redis, identity providers, each provider by TLS and with its keys."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from OpenSSL import SSL
from pydantic import ValidationError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Protocol
from twisted.web.http_headers import Headers

from llmproxy.auth.oidc.factory import require_joserfc
from llmproxy.auth.oidc.issuer_client import DISCOVERY_PATH, IssuerClient, IssuerError
from llmproxy.base.coroutines import within
from llmproxy.base.outage_log import OutageLog
from llmproxy.cli.doctor.findings import FAILED, OK, WARNING, Finding, failure
from llmproxy.cli.doctor.local import Keys, StoredKey, clock_finding
from llmproxy.composition.provider_agents import ProviderAgents
from llmproxy.config.api_settings import Api
from llmproxy.config.auth_settings import IdentityProviderSettings, OidcSettings
from llmproxy.config.model import Settings
from llmproxy.config.redis_url import parse_redis_url
from llmproxy.config.upstream_settings import UpstreamServer
from llmproxy.errors import UpstreamAuthError, UpstreamTimeout
from llmproxy.http.credentials import inject, scheme
from llmproxy.limits.counters.eviction import INFO_MEMORY, evicting_policy
from llmproxy.redis import RedisRefused, RedisUnavailable
from llmproxy.redis.commands import encode
from llmproxy.redis.supervisor import ConnectionSupervisor, endpoint
from llmproxy.store.errors import StartupError
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.connect_endpoint import ProxyFailed

RESPONSE_SECONDS = 15.0
CLOSING_SECONDS = 5.0
REDIS_SECONDS = 5.0
MAX_KEYS = 10  # of one API that are tried
# A request that every key may make and that costs nothing.
_MODELS = {"google": "/v1beta/models", "azure": "/openai/models?api-version=2024-10-21"}
_FURTHER = {"anthropic": {"anthropic-version": ["2023-06-01"]}}
_UNJUDGED = {
    404: "Is there a path too many in base_url, to which clients' own /v1/… is added? If not, this provider has no "
    "such list: make a usual request with a token of that project.",
    429: "The provider limits how often it may be asked: run doctor again in a while.",
    500: "The provider fails at the moment: run doctor again in a while.",
    0: "Make a usual request with a token of that project.",
}
# What to do, by what the failure's text has in it; the last where it has none of these.
_TLS_ADVICE = (
    ("certificate verify failed", "Name the authority that signed its certificate in ca_file; if it has expired, have "
     "it renewed."),
    ("certificate required", "It wants a client certificate: name it in client_cert_file."),
    ("alert", "It refuses this client's certificate or TLS version: look at client_cert_file, and at what it allows."),
    ("", "Is TLS spoken there? Correct scheme or port of {setting}."),
)  # fmt: skip
_REDIS_ADVICE = (
    ("refused", "Is it running at that host and port?"),
    ("WRONGPASS", "Correct user and password in the URL."),
    ("NOAUTH", "Put user and password into the URL."),
    ("not known", "Correct the host in the URL."),
    ("", "Is it running, and are host, port and password of the URL right? Try: redis-cli -u URL ping"),
)
_OTHER_NAME = "its certificate is for another name"
_REFUSED = {"google": (400, 401, 403)}


class NoResponse(Exception):
    """A provider did not respond in time."""


async def remote_findings(
    settings: Settings, keys: Keys, reactor: Any, now: Callable[[], float], environ: Mapping[str, str]
) -> list[Finding]:
    """What was found; C{keys} are those to try."""
    clocks: list[float] = []
    agents = ProviderAgents(reactor, None, None, environ, learn=lambda secret: None)
    checks = [_redis(settings, url, uses, reactor) for url, uses in _redis_uses(settings).items()]
    for name, api in settings.apis.items():
        checks.append(ApiCheck(name, api, keys.get(name, []), reactor, now, clocks).findings(agents))
    checks += [_issuer(where, issuer, reactor) for where, issuer in _issuers(settings).items()]
    found: list[list[Finding]] = await gatherResults([Deferred.fromCoroutine(check) for check in checks])
    return [finding for findings in found for finding in findings] + [_clock(clocks)]


def _clock(skews: list[float]) -> Finding:
    if not skews:
        return Finding("clock", WARNING, "No provider has said what time it is.", "Compare it yourself: date -u")
    return clock_finding("clock", sorted(skews)[len(skews) // 2])


def _redis_uses(settings: Settings) -> dict[str, list[str]]:
    uses: dict[str, list[str]] = {}
    for section, wanted, url in (
        ("limits", settings.limits.backend == "redis", settings.limits.redis_url),
        ("cache", settings.cache.enabled and settings.cache.backend == "redis", settings.cache.redis_url),
    ):
        if wanted:
            uses.setdefault(url or settings.redis.url, []).append(section)
    return uses


async def _redis(settings: Settings, url: str, uses: list[str], reactor: Any) -> list[Finding]:
    subject, failures = f"redis for {' and '.join(uses)}", Deferred[str]()
    address = parse_redis_url(url)

    def report(reason: str, count: int) -> None:
        if not failures.called:
            failures.callback(reason)

    async def prepared(connection: Any) -> None:
        info = await connection.send(encode(INFO_MEMORY), REDIS_SECONDS)
        policy = evicting_policy(info) if isinstance(info, bytes) else ""
        # Not from in here: whoever waits for it stops the supervisor, which waits for this to end.
        reactor.callLater(0, report, f"policy {policy}" if policy else "", 0)

    try:
        where = endpoint(address, reactor, settings.redis.ca_file)
    except (ValueError, OSError) as e:
        return [failure(subject, e, "Correct redis.ca_file.")]
    supervisor = ConnectionSupervisor(
        where, address, reactor, OutageLog(reactor, report), random=random.random,
        prepare=lambda connection: Deferred.fromCoroutine(prepared(connection)),
    )  # fmt: skip
    supervisor.startService()
    try:
        reason = await within(REDIS_SECONDS, reactor, failures, RedisUnavailable("no reply in time"))
    except (RedisUnavailable, RedisRefused) as e:
        reason = str(e)
    finally:
        await supervisor.stopService()
    return [_redis_finding(subject, str(address), reason, settings, uses)]


def _redis_finding(subject: str, where: str, reason: str, settings: Settings, uses: list[str]) -> Finding:
    if not reason:
        return Finding(subject, OK, f"{where} answers.")
    policy = reason.removeprefix("policy ")
    if policy == reason:
        advice = next((each for word, each in _REDIS_ADVICE if word in reason), _REDIS_ADVICE[-1][1])
        return Finding(subject, FAILED, f"{where} cannot be used: {reason.rstrip('.')}.", advice)
    if "limits" in uses and not settings.limits.allow_eviction:
        advice = "Set maxmemory-policy noeviction, give limits a server of their own, or set limits.allow_eviction."
        return Finding(subject, FAILED, f"{where} answers, but may evict limits (maxmemory-policy {policy}).", advice)
    return Finding(subject, OK, f"{where} answers, and evicts by {policy}.")


def _issuers(settings: Settings) -> dict[str, IdentityProviderSettings]:
    """The OpenID Connect providers, by the setting that names them."""
    named: dict[str, IdentityProviderSettings] = {"auth.oidc": settings.auth.oidc}
    if settings.management.oidc.issuer:
        named["management.oidc"] = settings.management.oidc.provider()
    for number, entry in enumerate(settings.auth.validators):
        if entry.type == "oidc":
            with suppress(ValidationError):  # which the start reports
                named[f"auth.validators[{number}]"] = OidcSettings.model_validate(entry.options)
    return {where: issuer for where, issuer in named.items() if issuer.issuer}


async def _issuer(subject: str, settings: IdentityProviderSettings, reactor: Any) -> list[Finding]:
    try:
        require_joserfc()
    except ValueError as e:
        return [failure(subject, e, "Install it for the daemon's Python.")]
    from llmproxy.auth.oidc.signing_keys import usable_keys

    try:
        client = IssuerClient(settings, reactor)
        keys = list(usable_keys(await client.get(settings.jwks_url or (await client.metadata()).jwks_uri)))
    except (IssuerError, OSError) as e:
        advice = f"Is issuer right, and can this machine reach it? Try: curl {settings.issuer}{DISCOVERY_PATH}"
        return [Finding(subject, FAILED, f"The keys of {settings.issuer} cannot be had: {e}", advice)]
    if not keys:
        detail = f"{settings.issuer} publishes no key that can be used."
        return [Finding(subject, FAILED, detail, "It must have RSA, EC or Ed25519 keys for signatures.")]
    return [Finding(subject, OK, f"{settings.issuer} publishes {len(keys)} usable keys.")]


class ApiCheck:
    """Looks whether one API's upstreams can be reached, as the daemon would: through its proxy, with its certificate
    and authorities.
    """

    def __init__(
        self, name: str, api: Api, keys: list[StoredKey], reactor: Any, now: Callable[[], float], clocks: list[float]
    ) -> None:
        """
        @param clocks: By how many seconds providers' clocks are ahead; what is found is added.
        """
        self._name = name
        self._api = api
        self._keys = list({stored.key: stored for stored in keys}.values())
        self._reactor = reactor
        self._now = now
        self._clocks = clocks

    async def findings(self, agents: ProviderAgents) -> list[Finding]:
        subject, servers = f"apis.{self._name}", self._api.servers
        try:
            several = agents.of(self._name, self._api)
        except (StartupError, OSError) as e:
            return [failure(subject, e, "Correct the setting, or the file or variable that it names.")]
        found: list[Finding] = []
        for number, (server, agent) in enumerate(zip(servers, several, strict=True)):
            at = f"{subject}.upstreams.{number}" if len(servers) > 1 else subject
            found += await self._upstream(at, server, agent)
            with suppress(NoResponse):
                await within(CLOSING_SECONDS, self._reactor, agent.close(), NoResponse())
        return found

    async def _upstream(self, at: str, server: UpstreamServer, agent: Agent) -> list[Finding]:
        try:
            await self._status(server, agent, None)
        except Exception as e:  # as many kinds as there are ways to fail
            why, advice = _explained(e)
            return [Finding(at, FAILED, f"{server.base_url} cannot be reached: {why}.", advice)]
        tls = "by TLS, its certificate verified" if server.base_url.lower().startswith("https") else "without TLS"
        proxy = server.proxy_url or self._api.proxy_url
        found = [Finding(at, OK, f"{server.base_url} answers {tls}{f', through {proxy}' if proxy else ''}.")]
        for stored in self._keys[:MAX_KEYS]:  # one after the other: a provider counts
            finding = await self._key(f"{at} key", server, agent, stored)
            found.append(finding)
        if len(self._keys) > MAX_KEYS:
            found.append(Finding(f"{at} key", OK, f"{len(self._keys) - MAX_KEYS} further keys were not tried."))
        return found

    async def _key(self, at: str, server: UpstreamServer, agent: Agent, stored: StoredKey) -> Finding:
        advice = f"Run: llmproxy project update {stored.project} --api-key {self._name}=prompt"
        try:
            status = await self._status(server, agent, stored.key)
        except UpstreamAuthError as e:  # it cannot be sent
            return Finding(at, FAILED, f"That of project {stored.project}: {e}", advice)
        except Exception as e:
            why = _explained(e)[0]  # what to do is another thing: it has just responded without a key
            detail = f"That of project {stored.project} could not be tried: {why}."
            return Finding(at, FAILED, detail, "It did respond without a key: run doctor again in a while.")
        if status in _REFUSED.get(self._api.provider, (401, 403)):
            return Finding(at, FAILED, f"The provider refuses that of project {stored.project} ({status}).", advice)
        if 200 <= status < 300:
            return Finding(at, OK, f"The provider accepts that of project {stored.project}.")
        detail = f"That of project {stored.project} could not be judged: {self._models(server)} responds with {status}."
        return Finding(at, WARNING, detail, _UNJUDGED.get(status, _UNJUDGED[500 if status >= 500 else 0]))

    async def _status(self, server: UpstreamServer, agent: Agent, key: str | None) -> int:
        """The status of one request; without a key it only shows that somebody is there."""
        api = self._api
        headers = Headers({"user-agent": ["llmproxy-doctor"], **_FURTHER.get(api.provider, {})})
        if key is not None:
            field, _, value = inject(scheme(api.provider, api.auth), key).partition(b":")
            headers.setRawHeaders(field, [value.strip()])
        root = server.base_url.rstrip("/") + ("" if urlsplit(server.base_url).path.strip("/") else "/")
        url = root if key is None else self._models(server)
        late = NoResponse(f"no response within {RESPONSE_SECONDS:g} s")
        before, asked = self._now(), agent.request(b"GET", url.encode("ascii"), headers)
        response: Any = await within(RESPONSE_SECONDS, self._reactor, asked, late)
        self._clocks += _skew(response.headers, before, self._now())
        response.deliverBody(Protocol())  # which drops it
        return int(response.code)

    def _models(self, server: UpstreamServer) -> str:
        """Where its list of models is."""
        return server.base_url.rstrip("/") + _MODELS.get(self._api.provider, "/v1/models")


def _skew(headers: Headers, before: float, after: float) -> Iterator[float]:
    """By how many seconds the other clock is ahead; C{Date} (RFC 9110, 6.6.1) is of some moment between these two."""
    for value in (headers.getRawHeaders("date") or [])[:1]:
        try:
            stated = parsedate_to_datetime(value).timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        yield min(0.0, stated + 1 - before) + max(0.0, stated - after)


def _explained(e: BaseException) -> tuple[str, str]:
    """Why there was no response, and what to do."""
    causes = [e]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    proxy = next((str(cause).rstrip(".") for cause in causes if isinstance(cause, ProxyFailed)), "")
    for cause in causes:
        if isinstance(cause, VerificationError):
            advice = f"Correct {'proxy_url' if proxy else 'base_url'}, or have its certificate changed."
            return f"{proxy}: its certificate is for another name" if proxy else _OTHER_NAME, advice
        if isinstance(cause, SSL.Error):
            said = "; ".join(str(part[-1]) for part in cause.args[0]) if cause.args and cause.args[0] else "TLS failed"
            wrong = "proxy_url" if proxy else "base_url"
            advice = next((each for word, each in _TLS_ADVICE if word in said.lower()), _TLS_ADVICE[-1][1])
            return f"{proxy}: {said}" if proxy else said, advice.format(setting=wrong)
    if proxy:
        return proxy, "Look at proxy_url and proxy_credentials, and at what the proxy allows."
    for cause in causes:
        if isinstance(cause, error.DNSLookupError):
            return "its name is not known", "Correct base_url, or look at DNS on this machine (getent hosts NAME)."
        if isinstance(cause, error.TimeoutError | NoResponse | UpstreamTimeout):
            advice = "Does a firewall let this machine out? HTTPS_PROXY is not used: name a proxy in proxy_url."
            return "no answer in time", advice
        if isinstance(cause, error.ConnectError):
            why = os.strerror(cause.osError) if isinstance(cause.osError, int) else str(cause).rstrip(".")
            return why, "Is it running there, and does a firewall let this machine connect?"
    return str(e).rstrip(".") or type(e).__name__, "Look whether base_url is right."
