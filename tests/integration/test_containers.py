"""What is in C{deploy/docker}: the image's steps in a clean root, compose.yaml, and nginx in front."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmproxy.config.load import check_report
from tests.support.apt import program
from tests.support.clean_root import Image, build, children, instructions
from tests.support.processes import HOST, Daemon, free_port
from tests.support.stack import MANAGEMENT, Stack, eventually

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
PATIENCE = 60.0
BUILD_SECONDS = 900.0
CHAT = "/v1/chat/completions"
# How many modules have a source, and those that have nothing compiled beside it.
NOT_COMPILED = """
import os, sys, twisted.scripts.twistd, llmproxy.app, llmproxy.tap, llmproxy.cli.health
known = [module.__spec__ for module in sys.modules.values() if getattr(module, "__spec__", None)]
sources = [spec for spec in known if spec.cached and str(spec.origin).endswith(".py")]
print(len(sources), *sorted(spec.name for spec in sources if not os.path.exists(spec.cached)))
"""
STREAM = b'{"model":"gpt-4o","max_tokens":400,"stream":true,"messages":[{"role":"user","content":"x"}]}'


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    home = tmp_path_factory.mktemp("image")
    home.chmod(0o755)
    faulthandler.dump_traceback_later(BUILD_SECONDS, exit=True)  # it takes longer than a test may
    made = build(DOCKER / "Dockerfile", ROOT, home)
    faulthandler.dump_traceback_later(240, exit=True)
    yield made


@contextmanager
def container(image: Image, log: Path, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """It runs as the image says, with a root that cannot be written: the process, its first one's id, the port."""
    port = free_port()
    given = {"LLMPROXY_SERVER_LISTEN": f"tcp:{port}:interface={HOST}", **environ}
    with log.open("wb") as out:
        process = subprocess.Popen(image.argv(image.command, given, True), stdout=out, stderr=out)
    try:
        eventually(lambda: _is_open(port) or process.poll() is not None, PATIENCE)
        assert process.poll() is None, log.read_text()
        yield process, children(process.pid)[0][0], port
    finally:
        if process.poll() is None:  # as another user it does not end with its parent: the kernel forgets that it should
            for first, *_ in children(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(first, signal.SIGKILL)
        process.kill()
        process.wait()


def _is_open(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.connect()
        return True
    except OSError:
        return False
    finally:
        connection.close()


def inside(first: int, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run this in the container whose first process has this id, as C{docker exec} does."""
    own = dict(pair.split("=", 1) for pair in Path(f"/proc/{first}/environ").read_text().split("\0") if "=" in pair)
    enter = ["nsenter", "--target", str(first), "--mount", "--pid", "--root", "--wd"]
    return subprocess.run(
        [*enter, "--setuid", "10001", "--setgid", "10001", "env", "-i",
         *(f"{name}={value}" for name, value in {**own, **environ}.items()), *command],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


@pytest.mark.long("20 s: the image is built in a root of its own, with all it installs")
class TestImage:
    def test_it_serves_and_drains(self, image: Image, tmp_path: Path) -> None:
        """Not as root, with a root that it cannot write; its health check says so; the stop signal drains it."""
        with container(image, tmp_path / "log") as (process, first, port):
            status = Path(f"/proc/{first}/status").read_text()
            assert re.search(r"^Uid:\t10001\t10001", status, re.MULTILINE)
            assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE), "it is the first of its processes"
            assert inside(first, "touch", "/etc/x").returncode
            assert inside(first, "touch", "/opt/llmproxy/x").returncode
            healthy = eventually(
                lambda: (done := inside(first, *image.health_check, LLMPROXY_URL=f"http://{HOST}:{port}"))
                and done.returncode == 0 and done,
                PATIENCE,
            )  # fmt: skip
            assert healthy.stdout == "ok\n"
            made = {path.name for path in (image.home / "var/lib/llmproxy").iterdir()}
            assert {"encryption-key", "management-token", "llmproxy.db", "ledger"} <= made
            assert inside(first, "llmproxy", "doctor", "--help").returncode == 0
            os.kill(first, signal.Signals[image.stop_signal])
            assert process.wait(PATIENCE) == 0
        assert "dropin.cache" not in (tmp_path / "log").read_text()

    def test_it_compiles_nothing(self, image: Image, tmp_path: Path) -> None:
        """Each module that the daemon and its health check import has been compiled before: it could not be kept."""
        with container(image, tmp_path / "log") as (_, first, _port):
            done = inside(first, "/opt/llmproxy/bin/python", "-c", NOT_COMPILED)
        count, *missing = done.stdout.split()
        assert int(count) > 800, done.stderr
        assert missing == []

    def test_it_is_not_healthy_when_nothing_serves(self, image: Image, tmp_path: Path) -> None:
        with container(image, tmp_path / "log") as (_, first, _port):
            silent = inside(first, *image.health_check, LLMPROXY_URL=f"http://{HOST}:{free_port()}")
            assert silent.returncode == os.EX_UNAVAILABLE

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_it_starts_again(self, image: Image, tmp_path: Path, workers: str) -> None:
        """After C{kill -9} its number is the same as before; no file of the last time keeps it from starting."""
        for number in range(2):
            with container(image, tmp_path / f"log{number}", LLMPROXY_SERVER_WORKERS=workers) as (_, first, port):
                url = f"http://{HOST}:{port}/ready"
                eventually(lambda url=url: _status(url) == 200, PATIENCE)
                os.kill(first, signal.SIGHUP)
                eventually(lambda number=number: "Reloaded" in (tmp_path / f"log{number}").read_text(), PATIENCE)
                assert _status(url) == 200

    def test_it_leaves_no_zombies(self, image: Image, tmp_path: Path) -> None:
        """Processes whose parents have ended become those of the first one, which reaps them."""
        with container(image, tmp_path / "log") as (_, first, _port):
            inside(first, "sh", "-c", "(sleep 0.5; sleep 0.5) > /dev/null 2>&1 &")
            eventually(lambda: not children(first), PATIENCE)
            inside(first, "sh", "-c", "sleep 600 > /dev/null 2>&1 &")
            ((orphan, _state),) = eventually(lambda: children(first), PATIENCE)
            os.kill(orphan, signal.SIGKILL)
            eventually(lambda: not children(first), PATIENCE)


class TestContext:
    def test_what_is_copied_is_let_in(self) -> None:
        """The .dockerignore keeps all else out: keys, databases, the history."""
        admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = [
            path for name, rest in instructions((DOCKER / "Dockerfile").read_text())
            if name == "COPY" and not rest.startswith("--") for path in rest.split()[:-1]
        ]  # fmt: skip
        assert set(copied) == admitted
        assert all((ROOT / path).exists() for path in copied)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code
    except OSError:
        return 0


class TestCompose:
    def test_what_it_names_is_there(self) -> None:
        services = COMPOSE["services"]
        assert {"proxy-a", "proxy-b", "nginx", "postgres", "valkey"} == services.keys()
        for service in services.values():
            for volume in service.get("volumes", []):
                source, target, *_ = volume.split(":")
                assert (DOCKER / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
                assert target.startswith("/")
            for name, need in service.get("depends_on", {}).items():
                assert name in services
                checked = "healthcheck" in services[name] or "build" in services[name]
                assert need["condition"] == "service_healthy" and checked
            if "build" in service:
                context = DOCKER / service["build"]["context"]
                assert (context / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
                assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert services["proxy-a"]["volumes"] != services["proxy-b"]["volumes"], "each has journals of its own"

    def test_its_settings(self) -> None:
        """With the environment that it gives, the settings are right, and what is stopped has time to end."""
        environ = _environ(password="x")
        code, text = check_report(str(DOCKER / "apis.yaml"), environ, {})
        assert code == 0, text
        assert "postgresql+psycopg://" in text
        settings = yaml.safe_load((DOCKER / "apis.yaml").read_text())
        drain = int(settings["server"]["drain_timeout"].rstrip("s"))
        assert int(COMPOSE["services"]["proxy-a"]["stop_grace_period"].rstrip("s")) >= drain + 20
        assert settings["server"]["trusted_proxies"] == [COMPOSE["networks"]["default"]["ipam"]["config"][0]["subnet"]]


def _environ(password: str) -> dict[str, str]:
    """What compose.yaml gives to a proxy, on top of the image's own."""
    values = {"POSTGRES_PASSWORD": password, "LLMPROXY_ENCRYPTION_KEY": "k" * 32, "LLMPROXY_MANAGEMENT_TOKEN": "m" * 32}
    own = dict[str, str]()
    for name, rest in instructions((DOCKER / "Dockerfile").read_text()):
        if name == "ENV":
            own.update(pair.split("=", 1) for pair in rest.split())
    given = COMPOSE["services"]["proxy-a"]["environment"]
    filled = {
        name: re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: values[found[1]], text) for name, text in given.items()
    }
    return {**own, **filled}


@contextmanager
def nginx(home: Path, *ports: int, buffering: str = "off") -> Iterator[int]:
    """nginx with the configuration of compose.yaml, in front of the proxies on these ports."""
    home = home / f"nginx-{buffering}"
    home.mkdir()
    listen = free_port()
    text = (DOCKER / "nginx.conf").read_text()
    for name, port in zip(("proxy-a:8080", "proxy-b:8080"), ports, strict=True):
        assert name in text
        text = text.replace(name, f"{HOST}:{port}")
    text = text.replace("listen 8080", f"listen {HOST}:{listen}").replace("/tmp/nginx.pid", str(home / "nginx.pid"))
    assert "proxy_buffering off" in text
    text = text.replace("proxy_buffering off", f"proxy_buffering {buffering}")
    settings = home / "nginx.conf"
    settings.write_text(text.replace("error_log /dev/stderr", f"error_log {home}/nginx.err"))
    found = program("nginx", "nginx-light")
    with (home / "nginx.log").open("wb") as log:
        process = subprocess.Popen([found, "-c", str(settings), "-g", "daemon off;"], stdout=log, stderr=log)
    try:
        eventually(lambda: _is_open(listen) or process.poll() is not None, PATIENCE)
        assert process.poll() is None, (home / "nginx.log").read_text()
        yield listen
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Daemon, int]]:
    home = tmp_path_factory.mktemp("pair")
    with Stack(home) as stack, stack.another("second") as second, nginx(home, stack.daemon.port, second.port) as port:
        yield stack, second, port


class TestBehindNginx:
    def test_events_come_one_by_one(self, pair: tuple[Stack, Daemon, int]) -> None:
        """Each is there before the next one is sent, and a client that leaves stops the provider."""
        stack, second, port = pair
        self.follow(stack, port)

        def left() -> bool:
            return any(each["outcome"] == "cancelled" for each in (*_requests(stack.daemon), *_requests(second)))

        eventually(left, PATIENCE)

    def test_so_they_do_with_its_buffering(self, pair: tuple[Stack, Daemon, int]) -> None:
        """Streams say of themselves that they are not to be buffered."""
        stack, second, _ = pair
        with nginx(stack.home, stack.daemon.port, second.port, buffering="on") as port:
            self.follow(stack, port)

    def follow(self, stack: Stack, port: int) -> None:
        connection = HTTPConnection(HOST, port, timeout=PATIENCE)
        given = {"Authorization": f"Bearer {stack.token}", "X-Sim-Delay": "0,0.5", "X-Sim-Events": "1000"}
        started = time.monotonic()
        connection.request("POST", CHAT, STREAM, given)
        answer = connection.getresponse()
        assert answer.status == 200
        events = 0
        while events < 5:
            events += answer.readline().startswith(b"data:")
        # A thousand of them take 500 s: these came while the stream went on.
        assert time.monotonic() - started < 300
        connection.close()
        answer.close()

    def test_a_proxy_that_is_gone(self, pair: tuple[Stack, Daemon, int]) -> None:
        """No client notices: the other one gets what could not be sent to this one."""
        stack, second, port = pair
        assert second.stop(PATIENCE) == 0
        body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
        statuses = [stack.ask("POST", CHAT, body, port=port).status for _ in range(20)]
        second.start()
        assert statuses == [200] * 20

    def test_large_bodies_and_heads(self, pair: tuple[Stack, Daemon, int]) -> None:
        stack, _, port = pair
        body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"x" * 20_000_000 + b'"}]}'
        assert stack.ask("POST", CHAT, body, port=port).status == 200
        assert stack.ask("GET", "/v1/models", headers={"X-Long": "x" * 10_000}, port=port).status == 200


def _requests(daemon: Daemon) -> list[dict[str, Any]]:
    given = {"Authorization": f"Bearer {MANAGEMENT}"}
    request = urllib.request.Request(f"{daemon.url}/manage/requests", headers=given)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return list(json.loads(answer.read())["data"])
