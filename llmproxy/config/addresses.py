"""Addresses: of providers, web pages, networks, databases, and our own. L{ValueError} says what is wrong with one, and
repeats none that may hold a password.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

from llmproxy.config.problems import quoted
from llmproxy.config.redis_url import parse_redis_url
from llmproxy.config.values import text
from llmproxy.errors import BadTarget
from llmproxy.http import target
from llmproxy.http.origin import DEFAULT_PORTS

_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?", re.I)
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://((?:{_LABEL}\.)*{_LABEL}|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?")
_BEHIND_USERINFO = re.compile(r"[^:]*://[^:/]*(?::[^@]*)?@(.*)", re.DOTALL)  # as SQLAlchemy takes it apart
_WITH_PORT = ("tcp", "tcp4", "tcp6", "ssl", "tls")


def base_url(value: Any) -> str:
    """The address of an API: scheme, host and perhaps a path. Returned without a slash at its end."""
    bad = _bad_url(text(value))
    if bad:
        raise ValueError(f"{quoted(value)} is not a base URL: {bad} (try https://api.openai.com)")
    parts = urlsplit(value)
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.removesuffix('/')}"


def proxy_url(value: Any) -> str:
    """The address of an HTTP proxy: C{http://host[:port]} or C{https://host[:port]}; C{""} for none."""
    url = str(text(value))
    if not url:
        return url
    try:
        parts = urlsplit(url)
        user, port = "@" in parts.netloc, parts.port
    except ValueError as e:
        raise ValueError("is not the address of a proxy (try http://proxy.example.com:3128)") from e
    if user:  # what it is must not be repeated
        raise ValueError("must have no user and no password: keep them elsewhere, and say where in proxy_credentials")
    further = parts.path.strip("/") or "?" in url or "#" in url
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or further:
        raise ValueError("is not the address of an HTTP proxy (try http://proxy.example.com:3128)")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def credentials_reference(value: Any) -> str:
    """Where C{user:password} is kept: C{env:NAME} or C{file:/path}; C{""} for nowhere."""
    reference = str(text(value))
    kind, _, name = reference.partition(":")
    if not reference or (kind == "env" and re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name)):
        return reference
    if kind != "file" or not name.startswith("/"):  # it may be the credentials themselves
        raise ValueError("must say where they are kept: env:NAME, or file:/path")
    return reference


def issuer(value: Any) -> str:
    """An OpenID Connect issuer, as it is written in C{iss}: nothing of it is changed. C{""} for none."""
    if value == "":
        return ""
    if bad := _bad_plain_url(str(text(value)), query=False):
        raise ValueError(f"{quoted(value)} is not an issuer: {bad} (try https://id.example.com)")
    return str(value)


def endpoint_url(value: Any) -> str:
    """The address of one thing, with no fragment; C{""} for none."""
    if value != "" and (bad := _bad_plain_url(str(text(value)))):
        raise ValueError(f"is not a URL: {bad} (try https://id.example.com/keys)")
    return str(value)


def _bad_plain_url(url: str, query: bool = True) -> str:
    bad = _bad_url(url.partition("?")[0]) or ("it must not have a fragment" if "#" in url else "")
    return bad or ("it must not have a query" if "?" in url and not query else "")


def is_secure_or_local(url: str) -> bool:
    """Whether nobody but the two ends can change what goes over a connection to there."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme.lower() == "https" or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _bad_url(url: str) -> str:
    if re.search(r"[^!-~]", url):
        return "it has a space, a control or a non-ASCII character"
    parts = _split(url)
    if parts is None:
        return "it cannot be taken apart"
    if not re.match(r"https?://", url, re.I):
        return "it must begin with http:// or https://"
    if "@" in parts.netloc:
        return "it must not hold a user name or a password"
    if "?" in url or "#" in url:
        return "it must not have a query or a fragment"
    return _bad_host(parts) or _bad_path(parts.path)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _bad_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if parts.port == 0 or parts.netloc.endswith(":"):
        return "its port is not one"
    if not host:
        return "it has no host"
    try:
        if parts.netloc.startswith("["):
            IPv6Address(host.replace("%", "?"))
        elif re.search(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$", host):  # what some resolvers take for an address
            IPv4Address(host)
    except ValueError:
        return "its host is no IP address"
    return "" if ":" in host or _HOST.fullmatch(host) else "its host is no host name"


def _bad_path(path: str) -> str:
    try:
        base = target.parse((path or "/").encode("ascii")).path
    except BadTarget as e:
        return f"{e.message[0].lower()}{e.message[1:].rstrip('.')}"
    return "the path holds an encoded slash" if target.has_encoded_slash(base) else ""


def origin(value: Any) -> str:
    """An origin exactly as browsers send it, or C{*} for any."""
    match = _ORIGIN.fullmatch(text(value))
    if match is None and value != "*":
        raise ValueError(f"{quoted(value)} is not an origin (try {_origin_meant(value)})")
    if match and match[3] and int(match[3]) == DEFAULT_PORTS.get(match[1]):
        raise ValueError(f"{quoted(value)} never matches: browsers leave that port out (try {match[1]}://{match[2]})")
    return str(value)


def _origin_meant(value: str) -> str:
    near = _ORIGIN.match(value.strip().lower())
    return near[0] if near else "https://app.example.com"


def listen(value: Any) -> str:
    """A Twisted server endpoint; whether its kind is known here shows only when it is opened."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{quoted(value)} is not an endpoint (try tcp:{quoted(value)[1:-1]})")
    kind, colon, rest = text(value).partition(":")
    if (
        re.search(r"[\x00-\x20\x7f]", value)
        or not colon
        or not re.fullmatch(r"[A-Za-z][\w.+-]*", kind)
        or _is_url(value)
    ):
        raise ValueError(f"{quoted(value)} is not an endpoint (try {_endpoint_meant(value)})")
    if kind == "haproxy":  # the PROXY protocol over another one
        return f"haproxy:{listen(rest)}"
    if kind in _WITH_PORT and not 0 <= _port(kind, rest) < 65536:
        raise ValueError(f"{quoted(value)} has no port from 0 to 65535 (try {kind}:8080)")
    return str(value)


def _is_url(value: str) -> bool:
    return "://" in value or re.fullmatch(r"localhost:[0-9]+", value) is not None


def _port(kind: str, rest: str) -> int:
    arguments = rest.split(":")
    named = [a.removeprefix("port=") for a in arguments if a.startswith("port=")]
    plain = [a for a in arguments if "=" not in a]
    if kind == "tls":  # there the folder with the certificates comes first, and the port may be left out
        plain = (plain if "path=" in rest else plain[1:]) or ["443"]
    port = (named or plain or [""])[0]
    return int(port) if re.fullmatch(r"[0-9]{1,5}", port) else -1


def _endpoint_meant(value: str) -> str:
    match = re.fullmatch(r"(?:https?://)?(?:([\w.-]*):)?([0-9]{1,5})/?", value)
    port, host = (match[2], match[1]) if match else ("8080", "127.0.0.1")
    return f"tcp:{port}" + (f":interface={'127.0.0.1' if host == 'localhost' else host}" if host else "")


def network(value: Any) -> str:
    """An address or a network, such as C{10.0.0.0/8}."""
    try:
        return str(ip_network(text(value)))
    except ValueError as e:
        hint = "its host bits are set" if "host bits" in str(e) else "try 10.0.0.0/8"
        raise ValueError(f"{quoted(value)} is not an address or a network ({hint})") from None


def store_url(value: Any) -> str:
    """A database, as SQLAlchemy names it; of those that there are, SQLite or PostgreSQL."""
    scheme = re.match(r"([A-Za-z]\w*(?:\+\w+)?)://", text(value))
    if scheme is None:
        raise ValueError("is not a database URL (try sqlite:///data/llmproxy.db)")
    backend = scheme[1].partition("+")[0]
    if backend not in ("sqlite", "postgresql", "postgres"):
        raise ValueError(
            f"{scheme[1]} is not supported: the store is SQLite or PostgreSQL (try postgresql+psycopg://…)"
        )
    host = _BEHIND_USERINFO.match(value.partition("?")[0])
    if backend != "sqlite" and host and "@" in host[1]:
        raise ValueError("has an @ in its password that would end it (write %40)")
    return str(value)


def redis_url(value: Any) -> str:
    """A Redis server: C{redis://}, C{rediss://} (TLS) or C{unix://}."""
    bad = "it has a space in it" if re.search(r"\s", text(value)) else _bad_redis(value)
    if bad:
        raise ValueError(f"is not a Redis URL: {bad} (try redis://localhost:6379/0)")
    return str(value)


def own_redis_url(value: Any) -> str:
    """Likewise, or nothing."""
    return "" if value == "" else redis_url(value)


def _bad_redis(url: str) -> str:
    if _split(url) is None:
        return "it cannot be taken apart"
    try:
        parse_redis_url(url)
    except ValueError as e:
        return str(e)
    return ""
