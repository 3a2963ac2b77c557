"""Requests that go out as they are given, by way of treq with everything shut out that it would change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from http.cookiejar import Cookie
from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, fail
from twisted.web.iweb import IAgent, IBodyProducer

from llmproxy import errors
from llmproxy.wire.answer import Answer
from llmproxy.wire.headers import RawHeaders
from llmproxy.wire.outgoing import BytesBody

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """Where a provider is: C{http} or C{https}, a host name or address (IPv6 without brackets), a port."""

    scheme: str
    host: str
    port: int

    @cached_property
    def netloc(self) -> str:
        """As it stands in C{Host}: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @cached_property
    def url(self) -> str:
        """Without a path."""
        return f"{self.scheme}://{self.netloc}"


class PreparedURL(EncodedURL):
    """A URL that is already as it shall go out, byte for byte."""

    def __init__(self, text: str) -> None:
        self._text = text

    def to_uri(self) -> PreparedURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self._text


class ShutJar(IndexableCookieJar):
    """Takes no cookie and gives none, so that what a provider sets for one tenant never goes out for another."""

    def add_cookie_header(self, request: Any) -> None:
        """Add none."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep none."""

    def set_cookie(self, cookie: Cookie) -> None:
        """Keep none."""

    def __iter__(self) -> Iterator[Cookie]:
        return iter(())


class Caller:
    """Sends requests exactly as they are given, and hands on answers exactly as they come."""

    def __init__(self, agent: IAgent, reactor: Any = None) -> None:
        """
        @param reactor: What treq would time requests with, if it were asked to.
        """
        self._jar = ShutJar()
        self._reactor = reactor
        self._client = HTTPClient(agent, cookiejar=self._jar, data_to_body_producer=lambda producer: producer)

    def send(
        self, method: bytes, origin: Origin, target: bytes, lines: list[bytes], body: IBodyProducer | None
    ) -> Deferred[Answer]:
        """Send a request; fire with its L{Answer} at the end of the answer's head.

        Fail with L{errors.UpstreamUnreachable}, L{errors.UpstreamBroken} or L{errors.UpstreamTimeout}, or with
        whatever the body's producer failed with. Cancelled, the request is aborted at once.

        @param target: The raw path and query.
        @param lines: The final header lines: with C{Host}, without those that frame the body.
        """
        try:
            url = PreparedURL(origin.url + target.decode("ascii"))
        except UnicodeDecodeError:
            return fail(errors.BadTarget())
        sent = self._client.request(
            method.decode("ascii"),
            url,
            headers=RawHeaders(lines),
            data=body,
            cookies=self._jar,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        return sent.addCallback(_original)


def _original(response: Any) -> Answer:
    """What our own agent answered, out of what treq wraps around it."""
    answer: Answer = response.original
    return answer


__all__ = ["Answer", "BytesBody", "Caller", "Origin", "PreparedURL", "RawHeaders", "ShutJar"]
