"""What the connections to providers show of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from zope.interface import implementer

from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.wire.client.agent import Agent


@implementer(IInstrumented)
class ProviderConnections:
    """The figures of all agents, by API."""

    def __init__(self, agents: Mapping[str, Sequence[Agent]]) -> None:
        """
        @param agents: Those of the settings in force, by the name of the API whose provider they reach.
        """
        self._agents = agents

    def instruments(self) -> Iterator[Instrument]:
        agents = self._agents
        yield Counter("upstream_requests_repeated", "Requests sent again as their connection had been closed.",
                      lambda: {api: sum(a.repeated for a in several) for api, several in agents.items()},
                      "api")  # fmt: skip
        yield Gauge("upstream_requests_waiting", "Requests that wait for a connection to their provider.",
                    lambda: {api: sum(a.waiting for a in several) for api, several in agents.items()},
                    "api")  # fmt: skip
        yield Gauge("upstream_idle_lifetime_seconds", "How long an unused connection is used again.",
                    lambda: {api: min(a.idle_lifetime for a in several) for api, several in agents.items()},
                    "api")  # fmt: skip
