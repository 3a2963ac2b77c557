"""Whom to trust over TLS, and how little to accept."""

from __future__ import annotations

from OpenSSL.SSL import Connection, Session
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from llmproxy.base import tls as trust

FINISHED = b"SSL negotiation finished successfully"  # what OpenSSL calls a handshake that is over


@implementer(IOpenSSLClientConnectionCreator)
class SessionResumption:
    """Begins each connection to one server with the session of an earlier one, which spares both the certificates.

    Only a handshake that was verified leaves a session, and none is ever offered to another server. One that the
    server does not know any more costs nothing: the handshake is then a full one.
    """

    def __init__(self, creator: IOpenSSLClientConnectionCreator) -> None:
        self._creator = creator
        self._newest: Connection | None = None
        self._session: Session | None = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        connection = self._creator.clientConnectionForTLS(tlsProtocol)
        newest, self._newest = self._newest, connection
        if newest is not None and newest.get_state_string() == FINISHED:
            # Asked for as late as can be: in TLS 1.3 what makes a session usable comes after the handshake.
            self._session = newest.get_session()
        if self._session is not None:
            connection.set_session(self._session)
        return connection


@implementer(IPolicyForHTTPS)
class TrustPolicy:
    """Verifies chain and name, sends the name, asks for HTTP/1.1, and accepts nothing below TLS 1.2."""

    def __init__(self, ca_file: str = "", own: trust.OwnCertificate | None = None) -> None:
        """
        @param ca_file: Further certificate authorities, PEM; C{""}: the platform's alone.
        @param own: Shown to servers that demand one.
        """
        self._roots = trust.trust_roots(ca_file)
        self._own = own

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return SessionResumption(trust.verify_provider(hostname.decode("ascii"), self._roots, [b"http/1.1"], self._own))
