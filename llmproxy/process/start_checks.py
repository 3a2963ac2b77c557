"""What a start would refuse though the settings are right by themselves: plugins, listeners, the store's URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from time import time
from typing import Any, NamedTuple

from twisted.internet.endpoints import serverFromString
from zope.interface import Interface

from llmproxy import plugins
from llmproxy.config.model import Settings
from llmproxy.config.problems import Path, dotted
from llmproxy.interfaces import (
    ICacheFactory,
    ICountersFactory,
    IEventSinkFactory,
    ISecretSourceFactory,
    ITokenValidatorFactory,
)
from llmproxy.process.start_failures import PROXY_PREFIX, check_files, not_listening
from llmproxy.store.engines import parse_store_url
from llmproxy.store.errors import StartupError

LISTENERS = ("listen", "admin_listen", "metrics_listen")
_ANY_PORT = re.compile(r"tcp[46]?:(?:port=)?0(?::|$)")


class PluginUse(NamedTuple):
    """A setting that names a plugin.

    @ivar make: Has the plugin make what it is for, so that it sees its own settings; C{None} where that takes more.
    """

    path: Path
    interface: type[Interface]
    name: str
    make: Callable[[Any], object] | None = None


def start_problems(settings: Settings, reactor: Any, *, files: bool = False) -> Iterator[tuple[Path, str]]:
    """Every setting by which it would not start, with why. Nothing is opened, but for the certificates of listeners.

    @param files: Whether to look at the other files that the settings name, too.
    """
    yield from _plugin_problems(_plugins(settings, reactor))
    yield from _listener_problems(settings, reactor)
    try:
        parse_store_url(settings.store.url)
    except StartupError as e:
        yield ("store", "url"), str(e).removeprefix("store.url").lstrip(": ")
    if files:
        try:
            check_files(settings)
        except StartupError as e:
            yield (), str(e)


def require_startable(now: Settings, wanted: Settings, reactor: Any) -> None:
    """L{ValueError} where a running daemon reads settings by which its restart would fail. No plugin makes anything,
    and nothing that is listened on now is looked at.
    """
    named = (each._replace(make=None) for each in _plugins(wanted, reactor))
    in_use = {endpoint for listener in LISTENERS for endpoint in getattr(now.server, listener)}
    found = chain(_plugin_problems(named), _listener_problems(wanted, reactor, in_use))
    if problems := [f"{dotted(path)}: {problem}" for path, problem in found]:
        raise ValueError("\n".join(problems))


def _plugins(settings: Settings, reactor: Any) -> Iterator[PluginUse]:
    if settings.cache.enabled:
        yield PluginUse(("cache", "backend"), ICacheFactory, settings.cache.backend)
    yield PluginUse(("limits", "backend"), ICountersFactory, settings.limits.backend)
    for n, sink in enumerate(settings.events.sinks):
        make = _bound(lambda factory, options: factory.sink(options, reactor), sink.options)
        yield PluginUse(("events", "sinks", n), IEventSinkFactory, sink.type, make)
    for n, store in enumerate(settings.secrets.stores):
        make = _bound(lambda factory, options: factory.source(options, reactor), store.options)
        yield PluginUse(("secrets", "stores", n), ISecretSourceFactory, store.type, make)
    for n, entry in enumerate(settings.auth.validators):
        make = _bound(lambda factory, options: factory.validator(options, reactor, time), entry.options)
        yield PluginUse(("auth", "validators", n), ITokenValidatorFactory, entry.type, make)


def _bound(make: Callable[[Any, dict[str, Any]], object], options: dict[str, Any]) -> Callable[[Any], object]:
    return lambda factory: make(factory, options)


def _plugin_problems(uses: Iterator[PluginUse]) -> Iterator[tuple[Path, str]]:
    for use in uses:
        try:
            factory = plugins.find(use.interface, use.name)
            if use.make is not None:
                use.make(factory)
        except (ValueError, OSError) as e:
            yield use.path, str(e)


def _listener_problems(settings: Settings, reactor: Any, in_use: set[str] | None = None) -> Iterator[tuple[Path, str]]:
    """As a start takes endpoints apart; those that need a service manager's sockets only that one can try."""
    first: dict[str, Path] = {}
    for path, endpoint in _endpoints(settings):
        if endpoint in first and not _ANY_PORT.match(endpoint):
            yield path, f"{endpoint} stands in {dotted(first[endpoint])} already"
        elif endpoint not in (in_use or ()) and not endpoint.removeprefix(PROXY_PREFIX).startswith("systemd:"):
            try:
                serverFromString(reactor, endpoint)
            except Exception as e:  # as many kinds as there are endpoints
                yield path, str(not_listening(endpoint, e))
        first.setdefault(endpoint, path)


def _endpoints(settings: Settings) -> Iterator[tuple[Path, str]]:
    for listener in LISTENERS:
        for n, endpoint in enumerate(getattr(settings.server, listener)):
            yield ("server", listener, n), endpoint
