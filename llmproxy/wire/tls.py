"""Whom to trust over TLS, and how little to accept."""

from __future__ import annotations

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from llmproxy import trust


@implementer(IPolicyForHTTPS)
class Trust:
    """Verifies chain and name, sends the name, asks for HTTP/1.1, and accepts nothing below TLS 1.2."""

    def __init__(self, ca_file: str = "") -> None:
        """
        @param ca_file: Further certificate authorities, PEM; C{""}: the platform's alone.
        """
        self._roots = trust.roots(ca_file)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return trust.verifying(hostname.decode("ascii"), self._roots, [b"http/1.1"])
