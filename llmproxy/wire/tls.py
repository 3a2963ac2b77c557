"""Whom to trust over TLS, and how little to accept."""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Context
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import TLSVersion, optionsForClientTLS, platformTrust
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer


@implementer(IOpenSSLTrustRoot)
class PlatformAnd:
    """The platform's certificate authorities, and those in one PEM file."""

    def __init__(self, ca_file: str) -> None:
        self._ca_file = ca_file

    def _addCACertsToContext(self, context: Context) -> None:
        platformTrust()._addCACertsToContext(context)
        context.load_verify_locations(self._ca_file)


@implementer(IPolicyForHTTPS)
class Trust:
    """Verifies chain and name, sends the name, asks for HTTP/1.1, and accepts nothing below TLS 1.2."""

    def __init__(self, ca_file: str = "") -> None:
        """
        @param ca_file: Further certificate authorities, PEM; C{""}: the platform's alone.
        """
        self._root: Any = PlatformAnd(ca_file) if ca_file else platformTrust()

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return optionsForClientTLS(
            hostname.decode("ascii"),
            trustRoot=self._root,
            acceptableProtocols=[b"http/1.1"],
            extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
        )
