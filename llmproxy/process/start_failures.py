"""What keeps the daemon from starting, in one sentence each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from OpenSSL import SSL, crypto
from twisted.internet.error import CannotListenError

from llmproxy.base.tls import load_own_certificate
from llmproxy.base.url_masking import mask_urls
from llmproxy.config.model import Settings
from llmproxy.errors import ProxyError
from llmproxy.process.twistd_options import User
from llmproxy.store.engines import parse_store_url, sqlite_path
from llmproxy.store.errors import StartupError

PROXY_PREFIX = "haproxy:"  # before an endpoint whose connections begin with a header of the PROXY protocol

_OPENSSL = (SSL.Error, crypto.Error)


def sentence(error: BaseException) -> str:
    """Why it cannot start, for whoever looks at a terminal: one line, and no traceback."""
    if isinstance(error, StartupError | ProxyError):
        return _one_line(str(error))
    if isinstance(error, CannotListenError):
        return _one_line(f"{_os_error(error.socketError)}.")
    if isinstance(error, OSError):
        return _one_line(f"{_os_error(error)}.")
    if isinstance(error, _OPENSSL):
        return f"A certificate or its key cannot be used: {_one_line(_openssl(error))}."
    return mask_urls(_one_line(f"{type(error).__name__}: {error}"))


def not_listening(endpoint: str, error: Exception) -> StartupError:
    """There is no listening at this endpoint, which stands in C{server.listen} or its like."""
    kind, _, rest = endpoint.partition(":")
    if isinstance(error, ValueError | IndexError | KeyError | TypeError):
        why = f"it is no endpoint that Twisted knows ({_one_line(str(error)) or type(error).__name__})"
    elif isinstance(error, _OPENSSL):
        why = f"its certificate or key cannot be used ({_openssl(error)})"
    else:
        cause = error.socketError if isinstance(error, CannotListenError) else error
        why = _os_error(cause)
        if kind == "unix" and not os.path.isdir(folder := os.path.dirname(os.path.abspath(rest.partition(":")[0]))):
            why = f"there is no directory {folder}"
    return StartupError(f"It cannot listen on {endpoint}: {why.removesuffix('.')}.")


def check_files(settings: Settings) -> None:
    """L{StartupError} where a file that the settings name cannot be used: certificates, without which no call would
    succeed, and logs that must not be lost.
    """
    _check_appendable("audit.file", settings.audit.file)
    for number, sink in enumerate(settings.events.sinks):
        if sink.type == "file":
            _check_appendable(f"events.sinks[{number}].path", str(sink.options.get("path", "")))
    check_peers_files(settings)
    _check_authorities("redis.ca_file", settings.redis.ca_file)
    _check_authorities("management.oidc.ca_file", settings.management.oidc.ca_file)
    _check_authorities("auth.oidc.ca_file", settings.auth.oidc.ca_file)
    for number, entry in enumerate(settings.auth.validators):
        if entry.type == "oidc":
            _check_authorities(f"auth.validators[{number}].ca_file", str(entry.options.get("ca_file", "")))
    server = settings.server
    for endpoint in (*server.listen, *server.admin_listen, *server.metrics_listen):
        check_names(endpoint)


def check_peers_files(settings: Settings) -> None:
    """L{StartupError} where a file of those that a reload reads anew cannot be used: the certificates by which
    providers and receivers of alerts are known, and those that are shown to them.
    """
    for name, api in settings.apis.items():
        _check_authorities(f"apis.{name}.ca_file", api.ca_file)
        _check_certificate(f"apis.{name}", api.client_cert_file, api.client_key_file)
        for number, upstream in enumerate(api.upstreams):
            at = f"apis.{name}.upstreams[{number}]"
            _check_authorities(f"{at}.ca_file", upstream.ca_file)
            _check_certificate(at, upstream.client_cert_file, upstream.client_key_file)
    _check_authorities("alerts.webhook.ca_file", settings.alerts.webhook.ca_file)


def prepare_files(settings: Settings, user: User, *logs: str) -> None:
    """Have what is written from the start on belong to the user that the daemon will run as; L{StartupError} where that
    user may not write it.
    """
    database = sqlite_path(parse_store_url(settings.store.url))
    folders = [settings.state_dir, settings.ledger.directory, *([str(database.parent)] if database else [])]
    sinks = [str(sink.options.get("path", "")) for sink in settings.events.sinks if sink.type == "file"]
    for folder in filter(None, folders):
        user.own_folder(folder)
    user.own_tree(settings.state_dir)
    for file in filter(None, [settings.audit.file, *sinks, *logs]):
        user.own_file(file)
    for end in ("", "-wal", "-shm") if database else ():
        if os.path.exists(f"{database}{end}"):
            user.own_file(f"{database}{end}")
    with user.acting():
        check_files(settings)


def _check_appendable(setting: str, name: str) -> None:
    """Lines can be appended to the file, or to be: nothing is made or opened, for it may be a pipe."""
    if not name:
        return
    try:
        _appendable(setting, Path(name))
    except OSError as e:
        raise StartupError(f"{setting}: {name}: {_os_error(e)}.") from e


def _appendable(setting: str, path: Path) -> None:
    folder = next(parent for parent in path.absolute().parents if parent.exists() or parent == parent.parent)
    if path.is_dir():
        raise StartupError(f"{setting}: {path} is a directory.")
    if not folder.is_dir():
        raise StartupError(f"{setting}: {folder} is no directory.")
    place = path if path.exists() else folder
    if not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StartupError(f"{setting}: {place} cannot be written.")


def _check_authorities(setting: str, path: str) -> None:
    if not path:
        return
    try:
        Path(path).read_bytes()
        SSL.Context(SSL.TLS_CLIENT_METHOD).load_verify_locations(path)
    except OSError as e:
        raise StartupError(f"{setting}: {_os_error(e)}.") from e
    except SSL.Error as e:
        raise StartupError(f"{setting}: {path} holds no certificate in PEM.") from e


def _check_certificate(setting: str, cert_file: str, key_file: str) -> None:
    if not cert_file:
        return
    try:
        load_own_certificate(cert_file, key_file)
    except ValueError as e:
        raise StartupError(f"{setting}.client_cert_file: {e}.") from e


def check_names(endpoint: str) -> None:
    """L{StartupError} where an endpoint has a folder of certificates and none in it can be used for a name: no client
    would be served. Endpoints of other kinds are not looked at.
    """
    kind, _, rest = endpoint.removeprefix(PROXY_PREFIX).partition(":")
    if kind != "tls":
        return
    arguments = rest.replace(r"\:", "\0").split(":")
    folder = Path(
        next((a for a in arguments if a.startswith("path=")), arguments[0]).removeprefix("path=").replace("\0", ":")
    )
    try:
        files = [file.read_bytes() for file in sorted(folder.rglob("*.pem"))] if folder.is_dir() else None
    except OSError as e:
        raise StartupError(f"It cannot listen on {endpoint}: {_os_error(e)}.") from e
    if files is None:
        raise StartupError(f"It cannot listen on {endpoint}: there is no directory {folder}.")
    if not files:
        raise StartupError(f"It cannot listen on {endpoint}: there is no certificate in {folder} (NAME.pem).")
    keys = {_public(key.public_key()) for file in files for key in _keys(file)}
    usable = [each for file in files for each in _certificates(file) if _public(each.public_key()) in keys]
    if not any(_names(each) for each in usable):
        raise StartupError(
            f"It cannot listen on {endpoint}: {folder} has no certificate for a DNS name together with its key."
        )


def _certificates(file: bytes) -> list[x509.Certificate]:
    """Those in a file; what is wrong with it is said by whoever listens."""
    with suppress(ValueError):
        return x509.load_pem_x509_certificates(file)
    return []


def _keys(file: bytes) -> Iterator[PrivateKeyTypes]:
    for block in re.findall(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", file, re.DOTALL):
        with suppress(ValueError, TypeError, UnsupportedAlgorithm):
            yield serialization.load_pem_private_key(block, None)


def _names(certificate: x509.Certificate) -> list[str]:
    with suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return found.value.get_values_for_type(x509.DNSName)
    return []


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _os_error(error: BaseException) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return _one_line(str(error)) or type(error).__name__
    place = error.filename.decode("utf-8", "replace") if isinstance(error.filename, bytes) else error.filename
    return f"{place}: {error.strerror}" if isinstance(place, str) else error.strerror


def _openssl(error: BaseException) -> str:
    reasons = [entry[-1] for entry in error.args[0] if entry] if error.args and isinstance(error.args[0], list) else []
    return reasons[-1] if reasons else "OpenSSL does not say why"


def _one_line(text: str) -> str:
    return " ".join(text.split())
