"""Where limits are counted: here, with the other workers, or in whatever a plugin brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmproxy import plugins
from llmproxy.config.model import Settings
from llmproxy.interfaces import ICounters, ICountersFactory
from llmproxy.process.worker import Worker, worker_count
from llmproxy.store.store import Store


def make_counters(
    settings: Settings, reactor: Any, store: Store, now: Callable[[], float], worker: Worker | None
) -> ICounters:
    """The counters that the settings ask for."""
    if worker is not None and settings.limits.backend == "memory":
        from llmproxy.limits.counters.supervised import SupervisedCounters  # not where there is only one process

        processes = worker_count(settings.server.workers)
        return SupervisedCounters(worker.exchange, reactor, store, now, processes=processes)
    factory = plugins.find(ICountersFactory, settings.limits.backend)
    counters: ICounters = factory.counters(settings, reactor, store, now)
    return counters
