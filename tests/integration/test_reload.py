"""Settings are read again while requests go on, and signals end nothing that they should not."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import threading
import time
import urllib.error
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.processes import HOST, free_port, run_command
from tests.support.stack import MANAGEMENT, Stack, eventually

CHAT = json.dumps({"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
JSON = {"Content-Type": "application/json"}
EVENTS = 40


def rewrite(stack: Stack, old: str, new: str) -> None:
    path = stack.home / "llmproxy.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def reloads(stack: Stack, failed: bool = False) -> float:
    name = f"llmproxy_settings_reload{'_failures' if failed else 's'}_total"
    text = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def hang_up(stack: Stack, failed: bool = False) -> None:
    """SIGHUP, and wait until that has been done."""
    before = reloads(stack, failed)
    os.kill(stack.daemon.pid, signal.SIGHUP)
    eventually(lambda: reloads(stack, failed) > before)


def under_way(stack: Stack) -> int:
    """Requests at the provider."""
    text = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    found = re.search(r'requests_at_providers\{api="openai"\} (\d+)', text)
    return int(found[1]) if found else 0


def checks(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.ask("GET", "/ready", token=MANAGEMENT).body)["checks"]
    return found


class Streams:
    """Streams under way, each read to its end in a thread of its own."""

    def __init__(self, stack: Stack, count: int, gap: float = 0.05) -> None:
        self.bodies: list[bytes] = []
        self._stack = stack
        self._gap = gap
        self._threads = [threading.Thread(target=self._read) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        connection = HTTPConnection(HOST, self._stack.daemon.port, timeout=60)
        try:
            steering = {"X-Sim-Events": str(EVENTS), "X-Sim-Delay": f"0,{self._gap}"}
            credential = {"Authorization": f"Bearer {self._stack.token}"}
            connection.request("POST", "/v1/chat/completions", CHAT, {**JSON, **steering, **credential})
            self.bodies.append(connection.getresponse().read())
        except (HTTPException, OSError):
            self.bodies.append(b"")
        finally:
            connection.close()

    def ended(self) -> list[bool]:
        """Whether each came whole."""
        for thread in self._threads:
            thread.join(60)
        return [body.rstrip().endswith(b"data: [DONE]") for body in self.bodies]


def test_what_is_cached_of_another_base_url(tmp_path: Path) -> None:
    """It is not served, also where a connection has got it many times."""
    with Stack(tmp_path) as stack:
        connection = HTTPConnection(HOST, stack.daemon.port, timeout=30)
        headers = {"Authorization": f"Bearer {stack.token}", "X-Sim-Header": "Cache-Control: max-age=600"}
        opted_in = {**JSON, "Cache-Control": "public, max-age=600"}

        def statuses() -> list[str | None]:
            found = []
            for method, body, more in (("GET", None, {}), ("POST", b"{}", opted_in)):
                connection.request(method, "/anything/v1/embeddings?n=1", body, {**headers, **more})
                answer = connection.getresponse()
                answer.read()
                found.append(answer.getheader("X-Cache-Status"))
            return found

        statuses()
        for _ in range(4):
            assert statuses() == ["hit", "hit"]
        rewrite(stack, f"http://{HOST}", "http://localhost")
        hang_up(stack)
        assert statuses() == ["stored", "stored"]
        assert statuses() == ["hit", "hit"]
        connection.close()


def test_what_a_reload_changes(tmp_path: Path) -> None:
    """Routes are other at once, streams under way end whole, and what needs a restart is named."""
    with Stack(tmp_path) as stack:
        assert stack.ask("GET", "/v1/anything").status == 403
        for _ in range(3):  # until the head has a flow
            assert stack.ask("POST", "/v1/chat/completions", CHAT.replace(b"true", b"false"), JSON).status == 200
        streams = Streams(stack, 4)
        eventually(lambda: under_way(stack) == 4)
        rewrite(stack, "/v1/embeddings, /v1/models,", "/v1/embeddings, /v1/models, /v1/anything,")
        hang_up(stack)
        assert stack.ask("GET", "/v1/anything").status != 403
        rewrite(stack, "[/v1/chat/completions, /v1/responses,", "[/v1/responses,")
        answer = stack.manage("POST", "/manage/reload")
        assert answer == {"changed": ["apis.openai.allowed_endpoints"], "needs_restart": []}
        assert stack.ask("POST", "/v1/chat/completions", CHAT.replace(b"true", b"false"), JSON).status == 403
        assert streams.ended() == [True] * 4

        rewrite(stack, "default_api: openai", "default_api: openai\nlimits: {lease: 40s}\nlogging: {level: warn}")
        answer = stack.manage("POST", "/manage/reload")
        assert answer == {"changed": ["logging.level"], "needs_restart": ["limits.lease"]}
        assert checks(stack)["settings"] == "needs a restart: limits.lease"
        audit = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        assert [e["details"] for e in audit if e["action"] == "settings.reload"][-1]["needs_restart"] == [
            "limits.lease"
        ]


def test_settings_that_are_wrong_change_nothing(tmp_path: Path) -> None:
    """And why is said in the response and in the log; a metric and the ready page say that it was so."""
    with Stack(tmp_path) as stack:
        rewrite(stack, "[/v1/messages, ", "[/v1/messages, /v1/else, ")
        rewrite(stack, "store: {", "stored: {")
        hang_up(stack, failed=True)
        assert checks(stack)["settings"] == "not reloaded (see the log)"
        assert "llmproxy.yaml:" in stack.daemon.output() and "were not reloaded" in stack.daemon.output()
        assert "stored: is not a setting" in stack.daemon.output()
        with pytest.raises(urllib.error.HTTPError) as refused:
            stack.manage("POST", "/manage/reload")
        assert refused.value.code == 422 and b"Nothing was changed" in refused.value.read()
        assert stack.ask("GET", "/anthropic/v1/else").status == 403
        assert stack.ask("GET", "/v1/models").status == 200
        rewrite(stack, "stored: {", "redis: {url: 'redis:/:hunter33@h'}\nstore: {")
        hang_up(stack, failed=True)
        with pytest.raises(urllib.error.HTTPError) as refused:
            stack.manage("POST", "/manage/reload")
        assert b"redis.url: is not a Redis URL" in (said := refused.value.read())
        assert b"hunter33" not in said + stack.ask("GET", "/ready").body + stack.daemon.output().encode()
        rewrite(stack, "redis: {url: 'redis:/:hunter33@h'}\n", "limits: {backend: abacus}\n")
        with pytest.raises(urllib.error.HTTPError) as refused:
            stack.manage("POST", "/manage/reload")  # a restart would fail, so it is not put off until then
        assert b"limits.backend: No plugin provides ICountersFactory as 'abacus'" in refused.value.read()
        rewrite(stack, "limits: {backend: abacus}\n", "")
        hang_up(stack)
        assert checks(stack)["settings"] == "ok"
        assert stack.ask("GET", "/anthropic/v1/else").status != 403


def test_an_api_that_goes_and_one_that_comes(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        assert stack.ask("POST", "/mistral/v1/chat/completions", CHAT, JSON).status == 200
        text = (tmp_path / "llmproxy.yaml").read_text()
        (tmp_path / "llmproxy.yaml").write_text(text.replace("  mistral:\n", "  other:\n"))
        hang_up(stack)
        assert stack.ask("POST", "/mistral/v1/chat/completions", CHAT, JSON).status == 403, "of the default API now"
        assert stack.ask("POST", "/other/v1/chat/completions", CHAT, JSON).status == 503, "without a key"
        assert {each["name"] for each in stack.manage("GET", "/manage/apis")["data"]} >= {"other", "openai"}
        stack.manage("PATCH", f"/manage/projects/{stack.project}", {"api_keys": {"other": "sk-sim-mistral"}})
        assert stack.ask("POST", "/other/v1/chat/completions", CHAT, JSON).status == 200


@pytest.mark.long("1 s: fifteen reloads under load; what one does to requests and streams is shown by the others")
def test_many_reloads_under_load(tmp_path: Path) -> None:
    """Nobody notices: each is taken over, no request fails, no stream breaks."""
    with Stack(tmp_path, more="timeouts: {idle: 60s}") as stack:
        streams, statuses = Streams(stack, 10, 0.1), set()
        for number in range(60, 75):
            rewrite(stack, f"idle: {number}s", f"idle: {number + 1}s")
            hang_up(stack)
            for _ in range(5):
                statuses.add(stack.ask("POST", "/v1/chat/completions", CHAT.replace(b"true", b"false"), JSON).status)
        assert statuses == {200} and streams.ended() == [True] * 10
        assert (reloads(stack), reloads(stack, failed=True)) == (15, 0)


def test_a_request_that_a_reload_has_overtaken_is_no_example(tmp_path: Path) -> None:
    """What it was let through by is not in force any more: those that end after it must not make a flow of it."""
    slow = {**JSON, "X-Sim-Delay": "2"}
    with Stack(tmp_path) as stack:
        body = CHAT.replace(b"true", b"false")
        for _ in range(15):  # until the poll has seen that this token was made, and what is known of it stays
            assert stack.ask("GET", "/v1/models").status == 200
            time.sleep(0.1)
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(stack.ask("POST", "/v1/chat/completions", body, slow).status)
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: under_way(stack) == 4)
        rewrite(stack, "[/v1/chat/completions, /v1/responses,", "[/v1/responses,")
        hang_up(stack)
        for thread in threads:
            thread.join(30)
        assert statuses == [200] * 4
        assert [stack.ask("POST", "/v1/chat/completions", body, slow).status for _ in range(3)] == [403] * 3


def test_signals(tmp_path: Path) -> None:
    """SIGUSR1 and SIGHUP end nothing; SIGTERM drains, and the process ends with 0."""
    with Stack(tmp_path) as stack:
        streams = Streams(stack, 3)
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1):
            os.kill(stack.daemon.pid, number)
            eventually(lambda name=number.name: f"Received {name}" in stack.daemon.output())
            assert stack.ask("GET", "/v1/models").status == 200
        os.kill(stack.daemon.pid, signal.SIGTERM)
        assert streams.ended() == [True] * 3
        assert stack.daemon.stop(20) == 0
        assert "Received SIGTERM: draining." in stack.daemon.output()


def test_a_second_sigterm_cuts(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        streams = Streams(stack, 2, gap=1.0)
        eventually(lambda: under_way(stack) == 2)
        os.kill(stack.daemon.pid, signal.SIGTERM)
        eventually(lambda: "draining" in stack.daemon.output())
        begun = time.monotonic()
        assert stack.daemon.stop(30) == 0  # sends another
        assert time.monotonic() - begun < 15
        assert streams.ended() != [True] * 2


def test_a_log_file_that_is_rotated(tmp_path: Path) -> None:
    """twistd's C{--logfile}, in the background, moved away and opened anew."""
    port = free_port()
    (tmp_path / "apis.yaml").write_text(
        "apis: {a: {base_url: 'http://127.0.0.1:9', allowed_endpoints: [/v1/x]}}\n"
        f"server: {{listen: ['tcp:{port}:interface=127.0.0.1']}}\n"
    )
    command = ["twistd", "--logfile", "own.log", "--pidfile", "own.pid", "llmproxy", "--config", "apis.yaml"]
    done = run_command(command, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    pid, log = int((tmp_path / "own.pid").read_text()), tmp_path / "own.log"
    try:
        eventually(lambda: "Ready: 1 APIs." in log.read_text())
        log.rename(tmp_path / "old.log")
        os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: log.exists() and "Reloaded the settings" in log.read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not (tmp_path / "own.pid").exists())


def certificate(path: Path, name: str, key_path: Path | None = None) -> None:
    """A key and a certificate of its own for this host, in one PEM file unless the key has another."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(HOST))])
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    text, secret = made.public_bytes(serialization.Encoding.PEM), key.private_bytes(*form)
    if key_path is not None:
        key_path.write_bytes(secret)
    path.write_bytes(text if key_path is not None else secret + text)


def served(port: int) -> str:
    """The name in the certificate that is served there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities, which take long to read
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((HOST, port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        found = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
    return str(found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long("3 s: two workers, as one process"))])
def test_certificates_are_renewed(tmp_path: Path, workers: int) -> None:
    """New connections see the new ones, of each kind of endpoint; where one of them cannot be used all go on with what
    they had, and which one it is, is said."""
    pem, key, folder = tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "certificates"
    folder.mkdir()
    ports = [free_port(), free_port()]

    def renew(name: str) -> None:
        certificate(pem, name, key)
        certificate(folder / "localhost.pem", name)

    renew("first")
    stack = Stack(tmp_path, env={"LLMPROXY_SERVER_WORKERS": str(workers)})
    plain = f'"tcp:{stack.daemon.port}:interface=127.0.0.1"'
    ours = f"ssl:{ports[0]}:interface=127.0.0.1:privateKey={key}:certKey={pem}"
    named = f"tls:{folder}:{ports[1]}:interface=127.0.0.1"
    rewrite(stack, plain, f'{plain}, "{ours}", "{named}"')

    def all_serve(name: str) -> None:
        assert {served(port) for port in ports for _ in range(4)} == {name}

    def fails(why: str) -> None:
        with pytest.raises(urllib.error.HTTPError) as refused:
            stack.manage("POST", "/manage/reload")
        assert why in json.loads(refused.value.read())["error"]["message"]
        assert why in stack.daemon.output()
        assert checks(stack)["settings"] == "not reloaded (see the log)"

    with stack:
        eventually(lambda: workers == 1 or "2 of 2 workers" in stack.daemon.output(), 60)
        all_serve("first")
        renew("second")
        hang_up(stack)
        all_serve("second")
        pem.write_text("nonsense")
        fails(f"It cannot listen on {ours}: its certificate or key cannot be used")
        certificate(pem, "third", tmp_path / "another.key")
        fails(f"It cannot listen on {ours}: Certificate public and private keys do not match.")
        renew("third")
        certificate(folder / "localhost.pem", "third", tmp_path / "another.key")
        fails(f"{folder} has no certificate for a DNS name together with its key.")
        (folder / "localhost.pem").unlink()
        fails(f"there is no certificate in {folder} (NAME.pem).")
        all_serve("second")
        renew("fourth")
        hang_up(stack)
        all_serve("fourth")
        assert "Traceback" not in stack.daemon.output()
