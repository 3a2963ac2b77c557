"""Connects through an HTTP proxy: asks it for a tunnel (CONNECT, RFC 9110, section 9.3.6) and hands that over."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from functools import partial

from OpenSSL.SSL import Error as TLSFailed
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

MAX_HEAD_BYTES = 16 * 1024  # of the proxy's response
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?")


@dataclass(frozen=True, slots=True)
class HTTPProxy:
    """A proxy through which providers are reached.

    @ivar secure: Whether TLS is spoken with the proxy itself.
    @ivar credentials: C{user:password}; C{""} for none.
    """

    host: str
    port: int
    credentials: str = field(default="", repr=False)
    secure: bool = False

    def __str__(self) -> str:
        """Fit for a log: without the credentials."""
        return f"http{'s' if self.secure else ''}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class ProxyFailed(Exception):
    """There is no tunnel; says why in a sentence that names no host and no secret."""


@implementer(IStreamClientEndpoint)
class ConnectEndpoint:
    """Connects to C{authority} by way of a proxy. What comes of it is a connection like any other."""

    _log = Logger()

    def __init__(self, endpoint: IStreamClientEndpoint, proxy: HTTPProxy, authority: str) -> None:
        """
        @param endpoint: Connects to the proxy, over TLS where it is to be.
        @param authority: Host and port of the provider.
        """
        self._endpoint = endpoint
        self._proxy = proxy
        self._authority = authority
        name = authority.encode("ascii")
        lines = [b"CONNECT %b HTTP/1.1" % name, b"Host: " + name]
        if proxy.credentials:
            lines.append(b"Proxy-Authorization: Basic " + b64encode(proxy.credentials.encode()))
        request = b"\r\n".join([*lines, b"", b""])
        self._tunnels = Factory.forProtocol(partial(_Tunnel, request))
        self._tunnels.noisy = False
        self._problem = ""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        try:
            tunnel = await self._open()
        except ProxyFailed as e:
            if str(e) != self._problem:  # of thousands of requests that meet the same, one says so
                self._problem = str(e)
                self._log.warn(
                    "No tunnel to {authority} through {proxy}: {reason}",
                    authority=self._authority, proxy=str(self._proxy), reason=self._problem,
                )  # fmt: skip
            raise
        self._problem = ""
        return tunnel.hand_over(factory)

    async def _open(self) -> _Tunnel:
        try:
            tunnel = await self._endpoint.connect(self._tunnels)
        except CancelledError:
            raise
        except DNSLookupError as e:
            raise ProxyFailed("The name of proxy_url could not be resolved.") from e
        except Refused as e:
            raise ProxyFailed("The proxy of proxy_url refused the connection.") from e
        except Exception as e:
            raise ProxyFailed("The proxy of proxy_url could not be reached.") from e
        assert isinstance(tunnel, _Tunnel)
        await tunnel.opened
        return tunnel


class _Tunnel(Protocol):
    """Asks for the tunnel, and stands aside once there is one.

    @ivar opened: Fires when there is; fails with L{ProxyFailed}. Cancelled, it ends the connection.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._head = b""
        self._rest = b""
        self.opened: Deferred[None] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        self.transport.write(self._request)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        if self.opened.called:
            self._rest += data  # not before the tunnel is handed over, in this same turn
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) <= MAX_HEAD_BYTES:
            return
        match = _STATUS_LINE.fullmatch(head.partition(b"\r\n")[0])
        if not end or match is None:
            self._fail("The proxy of proxy_url responded with what is not HTTP/1.1.")
            return
        status = int(match[1])
        if 100 <= status < 200:
            self._head = b""
            if rest:
                self.dataReceived(rest)
        elif 200 <= status < 300:
            self._rest = rest
            self.opened.callback(None)
        elif status == 407:
            self._fail("The proxy of proxy_url demands credentials, or others than proxy_credentials (407).")
        else:
            self._fail(f"The proxy of proxy_url refused the tunnel to the provider ({status}).")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if isinstance(reason.value, TLSFailed | VerificationError):
            self._fail("No trusted TLS connection to the proxy of proxy_url could be made.", reason.value)
        else:
            self._fail("The proxy of proxy_url closed the connection.")

    def hand_over(self, factory: IProtocolFactory) -> IProtocol:
        """From now on the connection belongs to a protocol of this factory's."""
        transport = self.transport
        protocol = factory.buildProtocol(transport.getPeer())  # type: ignore[union-attr]
        if protocol is None:
            self._abort()
            raise ProxyFailed("Nobody wants this connection any more.")
        if isinstance(transport, TLSMemoryBIOProtocol):
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol  # type: ignore[union-attr]
        protocol.makeConnection(transport)  # type: ignore[arg-type]
        if self._rest:
            protocol.dataReceived(self._rest)
        return protocol

    def _fail(self, message: str, cause: BaseException | None = None) -> None:
        if not self.opened.called:
            failed = ProxyFailed(message)
            failed.__cause__ = cause
            self.opened.errback(failed)
            self._abort()

    def _abort(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]
