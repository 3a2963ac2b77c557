"""What stands above the settings file, through the daemon: the environment, and the command line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST, Daemon, free_port, run_command
from tests.support.proxy_case import FAST_PATH
from tests.support.redis_server import RedisServer
from tests.support.responses import parse_response
from tests.support.setting_variables import settable, values
from tests.support.settings_stack import SettingsStack
from tests.support.stack import ENCRYPTION, MANAGEMENT, eventually
from tests.unit.wire.authority import Authority

TWISTD = Path(sys.executable).with_name("twistd")
SECRETS = ("MANAGEMENT_TOKEN", "ENCRYPTION_KEY")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SettingsStack]:
    with SettingsStack(tmp_path_factory.mktemp("environment"), {"other": {}}) as running:
        yield running


def started(daemon: Daemon, variables: Mapping[str, str], *arguments: str, port: int = 0) -> Daemon:
    """The same with further variables and flags, and without the secrets; it has not been started."""
    without = {f"{prefix}{name}{end}": "" for prefix in ("LLMPROXY_", "") for name in SECRETS for end in ("", "_FILE")}
    env = {**without, **variables}
    return Daemon(*daemon.args, *arguments, port=port or daemon.port, log=daemon.log, env=env)


def connected(path: Path) -> socket.socket | None:
    """A connection; C{None} where nobody listens there yet."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def shown(daemon: Daemon, path: Path) -> dict[str, tuple[Any, str]]:
    """Every setting's value, and where it comes from, as the daemon says on its own socket for management."""
    with eventually(lambda: connected(path), 30) as connection:
        head = f"GET /manage/settings HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {MANAGEMENT}"
        connection.sendall(f"{head}\r\n\r\n".encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    response = parse_response(received)
    assert response.status == 200, (received, daemon.output())
    return {each["setting"]: (each["value"], each["source"]) for each in response.json["data"]}


def test_every_variable(stack: SettingsStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands above the file, for a daemon that has all of them at once; without them all is as the file says."""
    monkeypatch.delenv(FAST_PATH, raising=False)  # by which the suites are run both ways
    home, port = stack.home, free_port()
    Authority(home)  # for ca.pem
    in_file = {
        "server": {"workers": 2, "admin_listen": [f"unix:{home}/plain.sock"]},
        "limits": {"backend": "redis"},
        "auth": {"oidc": {"profiles": {"small": {}}}},
    }
    told = {**values(home, port), "LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION}
    with started(stack.another("told", **in_file), told, port=port) as daemon:
        with_all = shown(daemon, home / "admin.sock")
    del in_file["server"]["workers"], in_file["limits"]
    with stack.another("plain", **in_file) as daemon:
        without = shown(daemon, home / "plain.sock")
    as_before = {"LLMPROXY_SERVER_WORKERS", "LLMPROXY_LIMITS_BACKEND", "LLMPROXY_EVENTS_BUS"}
    for name, leaf in settable():
        path = ".".join(map(str, leaf.path))
        assert with_all[path][1] == name
        assert without[path][1] != name
        assert (with_all[path][0] == without[path][0]) is (name in as_before), path


@pytest.mark.parametrize("prefix", ["LLMPROXY_", ""])
@pytest.mark.parametrize("end", ["", "_FILE"])
def test_secrets(stack: SettingsStack, prefix: str, end: str, tmp_path: Path) -> None:
    """Of each name: the token is the one that is let in, with the key the store's provider keys are read."""
    variables = {}
    for name, secret in zip(SECRETS, (f"{MANAGEMENT}-{prefix}{end}", ENCRYPTION), strict=True):
        file = tmp_path / name
        file.write_text(f"{secret}\n")
        file.chmod(0o600)
        variables[f"{prefix}{name}{end}"] = str(file) if end else secret
    with started(stack.another("secrets"), variables) as daemon:
        asked = [
            stack.ask("GET", "/manage/projects", token=token, port=daemon.port).status
            for token in (f"{MANAGEMENT}-{prefix}{end}", MANAGEMENT)
        ]
        assert asked == [200, 401]
        assert stack.ask("GET", "/v1/models", port=daemon.port).status == 200


def test_names_of_other_proxies(stack: SettingsStack, tmp_path: Path) -> None:
    """C{HTTP_CACHE_ENABLED} and its like; a name that is nobody's is said to set nothing."""
    fresh = {"X-Sim-Header": "Cache-Control: public, max-age=600"}
    other = stack.another("other-names")
    secrets = {"MANAGEMENT_TOKEN": MANAGEMENT, "ENCRYPTION_KEY": ENCRYPTION}
    misspelt = {"LLMPROXY_CACHE_ENABELD": "true"}
    with started(other, {**secrets, **misspelt, "HTTP_CACHE_ENABLED": "false"}) as daemon:
        assert stack.ask("GET", "/v1/models", headers=fresh, port=daemon.port).header("X-Cache-Status") == "disabled"
        eventually(lambda: "The variable LLMPROXY_CACHE_ENABELD sets nothing" in daemon.output())
    with RedisServer(tmp_path) as redis:
        told = {
            "HTTP_CACHE_BACKEND": "redis",
            "REDIS_CACHE_URL": redis.url,
            "REDIS_CACHE_KEY_PREFIX": "other-names:",
        }
        with started(other, {**secrets, **told}) as daemon:

            def stored() -> bool:
                stack.ask("GET", "/v1/models", headers=fresh, port=daemon.port)
                return b"other-names:" in redis.command("KEYS", "*")

            eventually(stored)


def test_listen(stack: SettingsStack) -> None:
    """Each C{--listen} is an address of its own, and the file's are none any more."""
    other, ports = stack.another("listening"), [free_port(), free_port()]
    flags = [f"--listen=tcp:{port}:interface={HOST}" for port in ports]
    with started(other, stack.env, *flags, port=ports[1]):
        assert [stack.ask("GET", "/v1/models", port=port).status for port in ports] == [200, 200]
        with pytest.raises(ConnectionRefusedError):
            stack.ask("GET", "/v1/models", port=other.port)


def test_config_and_check(tmp_path: Path) -> None:
    """C{--config} names the file, whose default is C{etc/apis.yaml}; C{--check} only says what is wrong with it."""
    (tmp_path / "etc").mkdir()
    api = {"base_url": "http://127.0.0.1:1", "allowed_endpoints": ["/v1/models"]}
    (tmp_path / "etc" / "apis.yaml").write_text(json.dumps({"apis": {"usual": api}}))
    (tmp_path / "other.yaml").write_text(json.dumps({"apis": {"other": {**api, "timeouts": {"idle": "long"}}}}))

    def check(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [str(TWISTD), "-n", "--pidfile=", "llmproxy", *flags, "--check"]
        return run_command(command, cwd=tmp_path)

    done = [check(), check("--config", "other.yaml"), check("-c", "other.yaml")]
    assert [each.returncode for each in done] == [0, 78, 78]
    assert "usual" in done[0].stdout and not (tmp_path / "data").exists()
    for each in done[1:]:
        assert "other.yaml:1:" in each.stderr and "idle" in each.stderr
