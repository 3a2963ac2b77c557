"""Every kind of socket that the daemon can be told to listen on, through the started daemon."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import HOST, Daemon, free_port
from tests.support.stack import eventually
from tests.unit.wire.authority import Authority

SETTINGS = """\
apis: {{openai: {{base_url: "http://127.0.0.1:1", allowed_endpoints: [/v1/models]}}}}
state_dir: {home}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
audit: {{file: ""}}
server:
  max_connections_per_address: 1
  trusted_proxies: [127.0.0.2]
  listen:
    - tcp:{port}:interface=127.0.0.1
    - unix:{home}/llmproxy.sock:mode=660
    - ssl:{ssl}:interface=127.0.0.1:privateKey={pem}:certKey={pem}
    - tls:{folder}:{tls}:interface=127.0.0.1
    - haproxy:tcp:{behind}:interface=127.0.0.1
    - haproxy:ssl:{behind_tls}:interface=127.0.0.1:privateKey={pem}:certKey={pem}
    - systemd:domain=INET:index=0
    - systemd:domain=UNIX:name=local
"""
# From descriptor 3 on, with the id of the process that they are meant for.
AS_SYSTEMD = """\
import os, sys
high = [os.dup2(int(number), 100 + at) for at, number in enumerate(os.environ["SOCKETS"].split())]
for at, number in enumerate(high):
    os.dup2(number, 3 + at)
os.execve(sys.argv[1], sys.argv[1:], {**os.environ, "LISTEN_PID": str(os.getpid())})
"""
LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Everywhere:
    """A daemon on endpoints of all kinds.

    @ivar behind: Where a load balancer says who its clients are; C{behind_tls}: the same within TLS.
    @ivar given: The port that systemd would have opened; C{local}: the UNIX socket.
    """

    daemon: Daemon
    home: Path
    ca_file: str
    ssl: int
    tls: int
    behind: int
    behind_tls: int
    given: int
    local: Path


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everywhere]:
    home = tmp_path_factory.mktemp("endpoints")
    authority = Authority(home)
    authority.server("localhost")
    folder = home / "certificates"
    folder.mkdir()
    (folder / "localhost.pem").write_bytes((home / "server.pem").read_bytes())
    port, ssl_port, tls_port, behind, behind_tls = (free_port() for _ in range(5))
    config = home / "apis.yaml"
    config.write_text(
        SETTINGS.format(
            home=home,
            port=port,
            ssl=ssl_port,
            tls=tls_port,
            pem=home / "server.pem",
            folder=folder,
            behind=behind,
            behind_tls=behind_tls,
        )
    )
    with ExitStack() as opened:
        given = opened.enter_context(socket.create_server((HOST, 0)))
        local = opened.enter_context(socket.socket(socket.AF_UNIX))
        local.bind(str(home / "given.sock"))
        local.listen()
        daemon = Daemon(
            "llmproxy", "--config", str(config), port=port, log=home / "llmproxy.log",
            env={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:local", "SOCKETS": f"{given.fileno()} {local.fileno()}"},
            through=[sys.executable, "-c", AS_SYSTEMD], descriptors=[given.fileno(), local.fileno()],
        )  # fmt: skip
        opened.enter_context(daemon)
        yield Everywhere(
            daemon,
            home,
            authority.ca_file,
            ssl_port,
            tls_port,
            behind,
            behind_tls,
            given.getsockname()[1],
            home / "given.sock",
        )


def answer(connection: socket.socket) -> bytes:
    with connection:
        connection.settimeout(10)
        connection.sendall(LIVE)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def secure(everywhere: Everywhere, port: int, *protocols: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=everywhere.ca_file)
    context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(socket.create_connection((HOST, port), 10), server_hostname="localhost")


def test_tcp(everywhere: Everywhere) -> None:
    where = (HOST, everywhere.daemon.port)
    assert answer(socket.create_connection(where, 10, ("127.0.0.2", 0))).startswith(b"HTTP/1.1 200 ")


def test_a_unix_socket(everywhere: Everywhere) -> None:
    """With the permissions that were asked for; all its clients together are not taken for one."""
    path = everywhere.home / "llmproxy.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with unix(path), unix(path):
        assert answer(unix(path)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", ["ssl", "tls"])
def test_tls(everywhere: Everywhere, kind: str) -> None:
    """HTTP/1.1 is chosen by name, also among others; a client that names nothing is served as well."""
    port: int = getattr(everywhere, kind)
    for protocols in (["http/1.1"], ["h2", "http/1.1"], []):
        connection = secure(everywhere, port, *protocols)
        assert connection.selected_alpn_protocol() == ("http/1.1" if protocols else None)
        assert connection.version() == "TLSv1.3"
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", ["ssl", "tls"])
def test_old_tls(everywhere: Everywhere, kind: str) -> None:
    """Nothing below TLS 1.2 is spoken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(everywhere.ca_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((HOST, getattr(everywhere, kind)), 10) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(connection, server_hostname="localhost")


def test_a_socket_that_systemd_has_opened(everywhere: Everywhere) -> None:
    assert answer(socket.create_connection((HOST, everywhere.given), 10)).startswith(b"HTTP/1.1 200 ")
    assert answer(unix(everywhere.local)).startswith(b"HTTP/1.1 200 ")


def test_connections_of_one_address_and_of_a_trusted_proxy(everywhere: Everywhere) -> None:
    """One is all that a client may have here; a proxy in front may have as many as it needs."""
    where = (HOST, everywhere.daemon.port)
    for source, ends in (("127.0.0.3", True), ("127.0.0.2", False)):
        with socket.create_connection(where, 10, (source, 0)) as first:
            first.sendall(LIVE.replace(b"Connection: close\r\n", b""))
            assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
            try:
                received = answer(socket.create_connection(where, 10, (source, 0)))
            except ConnectionError:
                received = b""
            assert (received == b"") is ends
    assert "Traceback" not in everywhere.daemon.output()


def client_of(everywhere: Everywhere, request: str) -> str:
    """Who has sent it, as the access log says."""

    def found() -> list[str]:
        lines = [json.loads(line) for line in everywhere.daemon.output().splitlines() if line.startswith("{")]
        return [str(each["client"]) for each in lines if each.get("request_id") == request]

    return str(eventually(found)[0])


def proxied(connection: socket.socket, header: bytes, request_id: str) -> bytes:
    """What comes for a request behind this header, which is sent in two pieces."""
    request = LIVE.replace(b"/live", b"/v1/models").replace(
        b"\r\n\r\n", f"\r\nX-Request-ID: {request_id}\r\n\r\n".encode()
    )
    with connection:
        connection.settimeout(10)
        connection.sendall(header[:20])
        connection.sendall(header[20:] + request)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def test_the_proxy_protocol(everywhere: Everywhere) -> None:
    """The client is whoever the header names, in both of its versions; each of them is counted for itself."""
    versions = {
        "one": b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 80\r\n",
        "two": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 8, 127, 0, 0, 1, 0x9C, 0x40, 0, 80]),
    }
    for (name, header), address in zip(versions.items(), ("203.0.113.7", "203.0.113.8"), strict=True):
        where = (HOST, everywhere.behind)
        assert proxied(socket.create_connection(where, 10), header, f"proxied-{name}").startswith(b"HTTP/1.1 401 ")
        assert client_of(everywhere, f"proxied-{name}") == address
    for name, rest in (("alone", b""), ("more", b" ffff::1 ffff::2 1 2")):  # as health checks of load balancers begin
        header = b"PROXY UNKNOWN%b\r\n" % rest
        where = (HOST, everywhere.behind)
        assert proxied(socket.create_connection(where, 10), header, f"unknown-{name}").startswith(b"HTTP/1.1 401 ")
        assert client_of(everywhere, f"unknown-{name}") == HOST
    secured = secure(everywhere, everywhere.behind_tls)
    header = b"PROXY TCP4 203.0.113.9 127.0.0.1 40000 80\r\n"
    assert proxied(secured, header, "proxied-tls").startswith(b"HTTP/1.1 401 ")
    assert client_of(everywhere, "proxied-tls") == "203.0.113.9"


def test_without_the_header_of_the_proxy_protocol(everywhere: Everywhere) -> None:
    """Nobody is served who does not say for whom: that would be the load balancer."""
    try:
        received = answer(socket.create_connection((HOST, everywhere.behind), 10))
    except ConnectionError:
        received = b""
    assert received == b""
    assert "Traceback" not in everywhere.daemon.output()
