"""What becomes of what probes find: the other workers follow it, and it is told once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.logger import Logger

from llmproxy.base.peers import Peers
from llmproxy.base.timestamps import rfc3339
from llmproxy.observability.event_bus import MemoryBus
from llmproxy.upstream.probing import HealthChange, Probes

ORDER = "upstreams.health"
_log = Logger()


def share_health(
    probes: Probes, peers: Peers, bus: MemoryBus, now: Callable[[], float], is_running: Callable[[], bool]
) -> None:
    """Have one process probe for all workers, and all of them follow.

    @param is_running: Whether this process serves, and is not about to end.
    """
    peers.register(ORDER, lambda body: probes.follow(*body))
    probes.leads = lambda: peers.leads and is_running()
    probes.announce = partial(_announce, peers, bus, now)


def _announce(peers: Peers, bus: MemoryBus, now: Callable[[], float], change: HealthChange) -> None:
    peers.order(ORDER, [change.api, change.base_url, change.health], f"{change.api} {change.base_url}")
    if change.health == "healthy" and change.before == "unknown":
        return  # as everybody takes for granted
    facts = {"api": change.api, "number": change.number, "base_url": change.base_url, "result": change.result}
    if change.health == "healthy":
        _log.info("Upstream {api}/{number} works again, as its probes say ({result}): {base_url}.", **facts)
    else:
        _log.warn(
            "Upstream {api}/{number} gets no requests: {count} probes in a row have failed, the last with {result}: "
            "{base_url}.",
            count=change.probes,
            **facts,
        )
    event: dict[str, Any] = {"at": rfc3339(now()), "type": f"upstream.{change.health}", **facts}
    bus.publish_line(json.dumps(event, separators=(",", ":")).encode() + b"\n")
