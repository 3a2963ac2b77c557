"""treq is here as the seam where its users look for one: its client, with all shut out that would change a message."""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer

from llmproxy.http.origin import Origin
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.raw_headers import RawHeaders
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.client.response import Response


class TransparentTreqClient(HTTPClient):
    """treq's client with all that would change a message shut out: no redirect, no cookie, no decoding.

    treq wraps three agents around its own for each request, which here would only be told to do nothing; that took a
    quarter of the whole time of a request.
    """

    def request(  # type: ignore[override]
        self, method: bytes, url: bytes, *, headers: Headers, data: IBodyProducer | None = None
    ) -> Deferred[Any]:
        """Send exactly this; fire with the agent's own response."""
        return self._agent.request(method, url, headers, data)

    def send(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        lines: list[bytes],
        body: IBodyProducer | None,
        project: str = "",
    ) -> Deferred[Any]:
        """As L{Agent.send}, through whichever C{IAgent} there is; our own needs no URL put together and taken apart."""
        agent = self._agent
        if isinstance(agent, Agent):
            return agent.send(origin, method, target, lines, body, project=project)
        return self.request(method, origin.url + target, headers=RawHeaders(lines), data=body)


class Transport:
    """Sends requests exactly as they are given, and hands on responses exactly as they come."""

    def __init__(self, agent: IAgent) -> None:
        self._client = TransparentTreqClient(agent)

    def send(
        self,
        method: bytes,
        origin: Origin,
        target: bytes,
        lines: list[bytes],
        body: IBodyProducer | None,
        project: str = "",
    ) -> Deferred[Response]:
        """Send a request; fire with its L{Response} at the end of the response's head.

        Fail with L{errors.UpstreamUnreachable}, L{errors.UpstreamBroken} or L{errors.UpstreamTimeout}, or with
        whatever the body's producer failed with. Cancelled, the request is aborted at once.

        @param target: The raw path and query.
        @param lines: The final header lines: with C{Host}, without those that frame the body.
        @param project: Whose request it is: where all connections are busy, projects take turns.
        """
        return self._client.send(origin, method, target, lines, body, project)


__all__ = ["BytesBody", "Origin", "RawHeaders", "Response", "TransparentTreqClient", "Transport"]
