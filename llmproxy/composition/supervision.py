"""Several workers and their supervisor, put together out of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmproxy.config.model import Settings
from llmproxy.limits.counters.shared import SharedCounters
from llmproxy.observability.log_output import LogOutput
from llmproxy.process.supervisor import Supervisor, worker_count


def endpoints(settings: Settings) -> list[str]:
    """All that the daemon listens on."""
    server = settings.server
    return list(dict.fromkeys((*server.listen, *server.admin_listen, *server.metrics_listen)))


def make_supervisor(
    settings: Settings, reactor: Any, arguments: Sequence[str], environ: Mapping[str, str], output: LogOutput
) -> Supervisor:
    """The supervisor that the settings ask for.

    @param arguments: Those of C{twistd} with which a worker is started.
    """
    counters = SharedCounters(reactor.seconds)
    return Supervisor(
        reactor,
        worker_count(settings.server.workers),
        endpoints(settings),
        arguments,
        environ,
        observer=output,
        services={"limits": lambda worker, body: counters.exchange(worker.name, *body)},
        on_end=lambda worker: counters.release(worker.name),
        drain_timeout=settings.server.drain_timeout,
    )
