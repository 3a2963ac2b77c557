"""Whose certificates to believe."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from OpenSSL.crypto import FILETYPE_PEM, X509, PKey, load_certificate, load_privatekey
from OpenSSL.SSL import TLS_METHOD, Context, Error
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import TLSVersion, optionsForClientTLS, platformTrust
from zope.interface import implementer

MAX_PEM_BYTES = 1024 * 1024
_CERTIFICATES = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


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


class OwnCertificate(NamedTuple):
    """A client's certificate, with its key and the certificates of intermediate authorities."""

    certificate: X509
    key: PKey
    chain: tuple[X509, ...] = ()


def load_own_certificate(cert_file: str, key_file: str = "") -> OwnCertificate:
    """Read a client's certificate, PEM: first its own, then those of intermediate authorities.

    L{ValueError} says what is wrong with which file. Blocks.

    @param key_file: Where its key is, unencrypted; C{""}: in the same file.
    """
    found = [load_certificate(FILETYPE_PEM, pem) for pem in _CERTIFICATES.findall(_read(cert_file))]
    if not found:
        raise ValueError(f"{cert_file} holds no certificate in PEM")
    where = key_file or cert_file
    try:
        key = load_privatekey(FILETYPE_PEM, _read(where), passphrase=b"")
    except Exception as e:
        raise ValueError(f"{where} holds no private key in PEM that can be read without a passphrase") from e
    context = Context(TLS_METHOD)
    try:
        context.use_certificate(found[0])
        context.use_privatekey(key)
        context.check_privatekey()
    except Error as e:
        raise ValueError(f"the key in {where} is not that of the certificate in {cert_file}") from e
    return OwnCertificate(found[0], key, tuple(found[1:]))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_PEM_BYTES)
    except OSError as e:
        raise ValueError(f"{path} cannot be read: {e.strerror or e}") from e


def verify_provider(
    hostname: str, trust: Any, protocols: list[bytes], own: OwnCertificate | None = None
) -> IOpenSSLClientConnectionCreator:
    """Verifies chain and name, sends the name, asks for C{protocols} (ALPN), and accepts nothing below TLS 1.2.

    @param own: Shown to servers that demand one.
    """
    shown: dict[str, Any] = {}
    if own is not None:
        shown = {"certificate": own.certificate, "privateKey": own.key, "extraCertChain": [*own.chain]}
    return optionsForClientTLS(
        hostname,
        trustRoot=trust,
        acceptableProtocols=protocols or None,
        extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2, "enableSessionTickets": True, **shown},
    )
