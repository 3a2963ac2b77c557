"""Whose certificates to believe."""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Context
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import TLSVersion, optionsForClientTLS, platformTrust
from zope.interface import implementer


@implementer(IOpenSSLTrustRoot)
class PlatformAndFile:
    """The platform's certificate authorities, and those in one PEM file."""

    def __init__(self, ca_file: str) -> None:
        self._ca_file = ca_file

    def _addCACertsToContext(self, context: Context) -> None:
        platformTrust()._addCACertsToContext(context)
        context.load_verify_locations(self._ca_file)


def trust_roots(ca_file: str = "") -> Any:
    """The platform's certificate authorities, and those in C{ca_file} (PEM) if it is given."""
    return PlatformAndFile(ca_file) if ca_file else platformTrust()


def verify_provider(hostname: str, trust: Any, protocols: list[bytes]) -> IOpenSSLClientConnectionCreator:
    """Verifies chain and name, sends the name, asks for C{protocols} (ALPN), and accepts nothing below TLS 1.2."""
    return optionsForClientTLS(
        hostname,
        trustRoot=trust,
        acceptableProtocols=protocols or None,
        extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2, "enableSessionTickets": True},
    )
