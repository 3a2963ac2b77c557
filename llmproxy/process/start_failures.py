"""What keeps the daemon from starting, in one sentence each."""

from __future__ import annotations

import os
from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet.error import CannotListenError

from llmproxy.base.tls import load_own_certificate
from llmproxy.config.model import Settings
from llmproxy.errors import ProxyError
from llmproxy.process.twistd_options import User
from llmproxy.store.engines import parse_store_url, sqlite_path
from llmproxy.store.errors import StartupError

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
    return _one_line(f"{type(error).__name__}: {error}")


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
    return StartupError(f"It cannot listen on {endpoint}: {why}.")


def check_files(settings: Settings) -> None:
    """L{StartupError} where a file that the settings name cannot be used: certificates, without which no call would
    succeed, and logs that must not be lost.
    """
    _check_appendable("audit.file", settings.audit.file)
    for number, sink in enumerate(settings.events.sinks):
        if sink.type == "file":
            _check_appendable(f"events.sinks[{number}].path", str(sink.options.get("path", "")))
    for name, api in settings.apis.items():
        _check_authorities(f"apis.{name}.ca_file", api.ca_file)
        _check_certificate(f"apis.{name}", api.client_cert_file, api.client_key_file)
        for number, upstream in enumerate(api.upstreams):
            at = f"apis.{name}.upstreams[{number}]"
            _check_authorities(f"{at}.ca_file", upstream.ca_file)
            _check_certificate(at, upstream.client_cert_file, upstream.client_key_file)
    _check_authorities("redis.ca_file", settings.redis.ca_file)
    _check_authorities("management.oidc.ca_file", settings.management.oidc.ca_file)
    _check_authorities("auth.oidc.ca_file", settings.auth.oidc.ca_file)
    for number, entry in enumerate(settings.auth.validators):
        if entry.type == "oidc":
            _check_authorities(f"auth.validators[{number}].ca_file", str(entry.options.get("ca_file", "")))
    server = settings.server
    for endpoint in (*server.listen, *server.admin_listen, *server.metrics_listen):
        kind, _, rest = endpoint.partition(":")
        if kind == "tls":
            _check_folder(endpoint, Path(rest.partition(":")[0]))


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


def _check_folder(endpoint: str, folder: Path) -> None:
    try:
        there = any(folder.glob("*.pem")) if folder.is_dir() else None
    except OSError as e:
        raise StartupError(f"It cannot listen on {endpoint}: {_os_error(e)}.") from e
    if there is None:
        raise StartupError(f"It cannot listen on {endpoint}: there is no directory {folder}.")
    if not there:
        raise StartupError(f"It cannot listen on {endpoint}: there is no certificate in {folder} (NAME.pem).")


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
