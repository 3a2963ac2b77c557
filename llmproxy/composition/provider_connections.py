"""What the connections to providers show of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zope.interface import implementer

from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.wire.client.agent import Agent


@implementer(IInstrumented)
class ProviderConnections:
    """The figures of all agents, by API."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        """
        @param agents: Those of the settings in force, by the name of the API whose provider they reach.
        """
        self._agents = agents

    def instruments(self) -> Iterator[Instrument]:
        agents = self._agents
        yield Counter("upstream_requests_repeated", "Requests sent again as their connection had been closed.",
                      lambda: {name: agent.repeated for name, agent in agents.items()}, "api")  # fmt: skip
        yield Gauge("upstream_requests_waiting", "Requests that wait for a connection to their provider.",
                    lambda: {name: agent.waiting for name, agent in agents.items()}, "api")  # fmt: skip
        yield Gauge("upstream_idle_lifetime_seconds", "How long an unused connection is used again.",
                    lambda: {name: agent.idle_lifetime for name, agent in agents.items()}, "api")  # fmt: skip
