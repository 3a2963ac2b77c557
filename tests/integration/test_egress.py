"""Through a proxy, and with a certificate: how providers are reached that cannot be reached by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.integration.test_cli_commands import llmproxy
from tests.integration.test_several_upstreams import CHAT, Pool, _PoolStack
from tests.support.connect_proxy import ConnectProxy
from tests.support.keyed_provider import KeyedProvider
from tests.support.processes import free_port
from tests.support.stack import eventually
from tests.support.tls import TLSInFront
from tests.unit.wire.authority import Authority

PASSWORD = "a-password-of-the-proxy"
CREDENTIALS = f"someone:{PASSWORD}"


class Provider:
    """One that speaks TLS.

    @ivar settings: With which an API or an upstream reaches it.
    """

    def __init__(self, ends: ExitStack, home: Path, client_ca: str = "") -> None:
        authority = Authority(home)
        authority.server("127.0.0.1")
        self.plain = ends.enter_context(KeyedProvider())
        self.front = TLSInFront(home / "server.pem", self.plain.port, client_ca=client_ca)
        self.authority = f"127.0.0.1:{ends.enter_context(self.front)}"
        self.settings = {"base_url": f"https://{self.authority}", "ca_file": authority.ca_file}


@contextmanager
def daemon(home: Path, provider: KeyedProvider, **api: Any) -> Iterator[Pool]:
    usual = {"allowed_endpoints": ["/v1/chat/completions"], "circuit_breaker": {"failures": 0}}
    with _PoolStack(home, {**usual, **api}) as stack:
        running = Pool(stack, provider, provider)
        running.set_keys("k1")
        yield running


def written(home: Path) -> str:
    """All that the daemon has written for people."""
    return "".join(path.read_text() for path in home.glob("*.*") if path.suffix in (".log", ".jsonl"))


def test_through_a_proxy(tmp_path: Path) -> None:
    """Every connection is a tunnel, in which TLS is spoken with the provider; the credentials are the proxy's alone."""
    secret = tmp_path / "credentials"
    secret.write_text(CREDENTIALS + "\n")
    with ExitStack() as ends:
        provider, proxy = Provider(ends, tmp_path), ends.enter_context(ConnectProxy(CREDENTIALS))
        api = {**provider.settings, "proxy_url": proxy.url, "proxy_credentials": f"file:{secret}"}
        with daemon(tmp_path, provider.plain, **api) as p:
            assert p.statuses(5) == {200: 5}
            assert proxy.targets == {provider.authority.encode()}
            assert len(proxy.asked) < 5, "connections are used again"
            secret.write_text("someone:else\n")
            p.stack.manage("POST", "/manage/reload")
            got = p.ask()
            assert (got.status, got.header("X-LLMProxy-Error")) == (502, "upstream_unreachable")
            assert "407" in got.body.decode()
            secret.write_text(CREDENTIALS)
            p.stack.manage("POST", "/manage/reload")
            assert p.ask().status == 200
            before = len(proxy.asked)
            p.stack.manage("POST", "/manage/reload")  # nothing is other: the connection is kept
            assert p.ask().status == 200
            assert len(proxy.asked) == before
            secret.write_text("nothing of the kind")
            with pytest.raises(HTTPError) as refused:
                p.stack.manage("POST", "/manage/reload")
            assert f"file:{secret} does not hold user:password." in refused.value.read().decode()
            assert p.ask().status == 200
        assert PASSWORD not in written(tmp_path)


@pytest.mark.long("1 s: as a proxy without TLS")
def test_a_proxy_behind_tls(tmp_path: Path) -> None:
    """TLS with the proxy, and in its tunnel TLS with the provider, or plain HTTP; one whose certificate is for nobody
    who is trusted hears neither where requests go nor the credentials. `doctor` says the same of all of them."""
    (strangers := tmp_path / "strangers").mkdir()
    Authority(strangers).server("127.0.0.1")
    with ExitStack() as ends:
        provider = Provider(ends, tmp_path)
        proxy = ends.enter_context(ConnectProxy(CREDENTIALS, tmp_path / "server.pem"))
        stranger = ends.enter_context(ConnectProxy(CREDENTIALS, strangers / "server.pem"))
        (secret := tmp_path / "credentials").write_text(CREDENTIALS)
        api = {**provider.settings, "proxy_url": proxy.url, "proxy_credentials": f"file:{secret}"}
        with daemon(tmp_path, provider.plain, **api) as p:
            assert p.statuses(5) == {200: 5}
            assert (proxy.targets, len(proxy.asked)) == ({provider.authority.encode()}, 1)
            long = CHAT[:-1] + b', "x": "' + b"y" * 3_000_000 + b'"}'
            sent = p.stack.ask("POST", "/pool/v1/chat/completions", long, {"Content-Type": "application/json"})
            assert sent.status == 200
            assert_doctor(p, "ok", f"through {proxy.url}")
            p.stack.change(base_url=provider.plain.url)  # type: ignore[attr-defined]
            p.stack.manage("POST", "/manage/reload")
            assert p.statuses(2) == {200: 2}
            assert provider.plain.url.removeprefix("http://").encode() in proxy.targets
            p.stack.change(proxy_url=stranger.url)  # type: ignore[attr-defined]
            p.stack.manage("POST", "/manage/reload")
            got = p.ask()
            assert (got.status, got.header("X-LLMProxy-Error")) == (502, "upstream_unreachable")
            assert "No trusted TLS connection to the proxy of proxy_url" in got.body.decode()
            assert not stranger.asked
            assert_doctor(p, "failed", "No trusted TLS connection to the proxy of proxy_url could be made: ")
        assert PASSWORD not in written(tmp_path)


def assert_doctor(p: Pool, state: str, detail: str, subject: str = "apis.pool") -> None:
    """What C{llmproxy doctor} finds of the API, and of nothing else in secret."""
    done = llmproxy("doctor", "llmproxy.yaml", "--output", "json", cwd=p.stack.home, env=p.stack.env)
    assert PASSWORD not in done.stdout + done.stderr
    found = {each["subject"]: each for each in json.loads(done.stdout)["data"]}
    assert found[subject]["state"] == state, found[subject]
    assert detail in found[subject]["detail"], found[subject]


def test_a_proxy_of_its_own(tmp_path: Path) -> None:
    """One upstream is reached through a proxy, with credentials from a variable, the other through the API's."""
    with ExitStack() as ends:
        provider = ends.enter_context(KeyedProvider())
        own, api_wide = ends.enter_context(ConnectProxy(CREDENTIALS)), ends.enter_context(ConnectProxy())
        others = ends.enter_context(KeyedProvider())
        upstreams = [
            {"base_url": provider.url, "proxy_url": own.url, "proxy_credentials": "env:OF_THE_PROXY"},
            {"base_url": others.url},
        ]
        stack = _PoolStack(tmp_path, {
            "allowed_endpoints": ["/v1/chat/completions"], "balance": "round_robin",
            "upstreams": upstreams, "proxy_url": api_wide.url,
        })  # fmt: skip
        stack.env["OF_THE_PROXY"] = CREDENTIALS
        stack.daemon = stack.another()
        p = Pool(ends.enter_context(stack), provider, others)
        p.set_keys("k1")
        assert p.statuses(4) == {200: 4}
        assert own.targets == {provider.url.removeprefix("http://").encode()}
        assert api_wide.targets == {others.url.removeprefix("http://").encode()}
        assert not any(b"Proxy-Authorization" in head for head in api_wide.asked)
        assert (provider.total, others.total) == (2, 2)


def test_a_proxy_that_makes_no_tunnel(tmp_path: Path) -> None:
    """The client and the log are told why, the log once; a silent one takes as long as a connection may."""
    with ExitStack() as ends:
        provider, proxy = ends.enter_context(KeyedProvider()), ends.enter_context(ConnectProxy())
        api = {"base_url": provider.url, "proxy_url": proxy.url, "timeouts": {"connect": "2s"}}
        with daemon(tmp_path, provider, **api) as p:
            for says, why in (
                (b"HTTP/1.1 403 No\r\n\r\n", "refused the tunnel to the provider (403)."),
                (b"HTTP/1.0 502 No\r\nContent-Length: 3\r\n\r\nbad", "refused the tunnel to the provider (502)."),
                (b"SSH-2.0-x\r\n\r\n", "not HTTP/1.1"),
                (b"x" * 20_000, "not HTTP/1.1"),
                (b"", "closed the connection"),
            ):  # fmt: skip
                proxy.says = says
                for _ in range(3):
                    got = p.ask()
                    assert (got.status, got.header("X-LLMProxy-Error")) == (502, "upstream_unreachable")
                    assert why in got.body.decode()
                assert eventually(lambda why=why: (tmp_path / "llmproxy.log").read_text().count(why)) in (1, 2)
            proxy.says = None
            assert p.ask().status == 200
            p.stack.change(proxy_url=f"http://127.0.0.1:{free_port()}")  # type: ignore[attr-defined]
            p.stack.manage("POST", "/manage/reload")
            assert "The proxy of proxy_url refused the connection." in p.ask().body.decode()


def test_client_certificate(tmp_path: Path) -> None:
    """Shown to a provider that demands it; renewed by a reload; and a file that holds none changes nothing."""
    clients = tmp_path / "clients"
    clients.mkdir()
    authority = Authority(clients)
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"

    def renew() -> None:
        authority.server("client")
        certificate, begin, rest = (clients / "server.pem").read_text().partition("-----BEGIN PRIVATE KEY-----")
        cert.write_text(certificate)
        key.write_text(begin + rest)

    with ExitStack() as ends:
        provider = Provider(ends, tmp_path, client_ca=authority.ca_file)
        with daemon(tmp_path, provider.plain, **provider.settings) as p:
            assert p.ask().status == 502
            renew()
            p.stack.change(client_cert_file=str(cert), client_key_file=str(key))  # type: ignore[attr-defined]
            p.stack.manage("POST", "/manage/reload")
            assert p.statuses(3) == {200: 3}
            assert len(provider.front.clients) == 1
            renew()
            p.stack.manage("POST", "/manage/reload")
            assert p.statuses(3) == {200: 3}
            assert len(provider.front.clients) == 2
            good = key.read_text()
            for file, text, why in (
                (key, Path(tmp_path / "server.pem").read_text(), f"the key in {key} is not that of the certificate in"),
                (key, "nothing", f"{key} holds no private key in PEM"),
                (cert, "nothing", f"{cert} holds no certificate in PEM"),
            ):
                file.write_text(text)
                with pytest.raises(HTTPError) as refused:
                    p.stack.manage("POST", "/manage/reload")
                assert f"apis.pool.client_cert_file: {why}" in json.loads(refused.value.read())["error"]["message"]
                assert p.ask().status == 200
                key.write_text(good)


def test_authorities(tmp_path: Path) -> None:
    """Read anew by a reload; a file that has none changes nothing, and which one that is, is said."""
    other = tmp_path / "other"
    other.mkdir()
    with ExitStack() as ends:
        provider = Provider(ends, tmp_path)
        good, file = Path(provider.settings["ca_file"]).read_text(), tmp_path / "authorities.pem"
        file.write_text(Path(Authority(other).ca_file).read_text())
        with daemon(tmp_path, provider.plain, **{**provider.settings, "ca_file": str(file)}) as p:
            assert p.ask().status == 502
            file.write_text(good)
            p.stack.manage("POST", "/manage/reload")
            assert p.statuses(3) == {200: 3}
            for wrong in ("nothing", ""):
                file.write_text(wrong)
                with pytest.raises(HTTPError) as refused:
                    p.stack.manage("POST", "/manage/reload")
                message = json.loads(refused.value.read())["error"]["message"]
                assert f"apis.pool.ca_file: {file} holds no certificate in PEM" in message
                assert p.ask().status == 200


def test_a_certificate_of_its_own(tmp_path: Path) -> None:
    """One upstream is shown its own certificate, the key of which is in the same file; the other the API's."""
    folders = [tmp_path / name for name in ("one", "two", "own", "api")]
    for folder in folders:
        folder.mkdir()
    own, api_wide = Authority(folders[2]), Authority(folders[3])
    own.server("client")
    api_wide.server("client")
    certificate, begin, rest = (folders[2] / "server.pem").read_text().partition("-----BEGIN PRIVATE KEY-----")
    (folders[2] / "client.pem").write_text(certificate)
    (folders[2] / "client.key").write_text(begin + rest)
    with ExitStack() as ends:
        one, two = Provider(ends, folders[0], own.ca_file), Provider(ends, folders[1], api_wide.ca_file)
        files = {"client_cert_file": f"{folders[2]}/client.pem", "client_key_file": f"{folders[2]}/client.key"}
        upstreams = [{**one.settings, **files}, two.settings]
        with daemon(tmp_path, one.plain, balance="round_robin", upstreams=upstreams,
                    client_cert_file=f"{folders[3]}/server.pem") as p:  # fmt: skip
            assert p.statuses(4) == {200: 4}
            assert (one.plain.total, two.plain.total) == (2, 2)
            for number, provider in enumerate((one, two)):  # neither of which answers anybody without its certificate
                assert_doctor(p, "ok", f"{provider.authority} answers by TLS", f"apis.pool.upstreams.{number}")


def test_what_is_wrong_stops_the_start(tmp_path: Path) -> None:
    """In one sentence."""
    for settings, why in (
        ({"client_cert_file": f"{tmp_path}/none.pem"}, "apis.pool.client_cert_file: "),
        ({"proxy_url": "http://127.0.0.1:1", "proxy_credentials": "env:NO"}, "env:NO does not hold user:password"),
        ({"proxy_url": f"http://{CREDENTIALS}@127.0.0.1:1"}, "keep them elsewhere, and say where in proxy_credentials"),
    ):  # fmt: skip
        api = {"base_url": "https://127.0.0.1:1", "allowed_endpoints": ["/v1/models"], **settings}
        stack = _PoolStack(tmp_path, api)
        with pytest.raises(AssertionError, match="ended with"), stack.simulator, stack.daemon:
            pass
        said = (tmp_path / "llmproxy.log").read_text()
        assert why in said
        assert "Traceback" not in said
        assert PASSWORD not in said
        (tmp_path / "llmproxy.log").unlink()
