"""The C{llmproxy} command as a process, beside a daemon that runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import ANY

from tests.support.admin_visitor import Visitor
from tests.support.postgres import PostgreSQL
from tests.support.processes import Daemon, free_port, run_command
from tests.support.redis_server import RedisServer
from tests.support.stack import ENCRYPTION, KEYS, MANAGEMENT, Stack, eventually


def llmproxy(
    *arguments: str, cwd: Path, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    clean = {name: value for name, value in os.environ.items() if "LLMPROXY" not in name}
    return run_command(["llmproxy", *arguments], stdin=stdin or "", env={**clean, **(env or {})}, cwd=cwd)


def test_settings_and_plugins(tmp_path: Path) -> None:
    """What `config show` says is what the daemon that runs with that file does, and it names its plugins."""
    with Stack(tmp_path, more="limits: {requests_per_minute: 7}") as stack:
        path = str(tmp_path / "llmproxy.yaml")
        done = llmproxy("config", "show", path, "--effective", "--output", "json", cwd=tmp_path, env=stack.env)
        assert done.returncode == 0, done.stderr
        rows = {row["setting"]: row for row in json.loads(done.stdout)["data"]}
        limit = rows["apis.openai.limits.requests_per_minute"]
        line = (tmp_path / "llmproxy.yaml").read_text().splitlines()[limit["line"] - 1]
        assert limit["value"] == 7
        assert "requests_per_minute: 7" in line
        assert [stack.ask("GET", "/v1/models").status for _ in range(8)] == [*[200] * 7, 429]
        assert rows["server.listen"]["value"] == [f"tcp:{stack.daemon.port}:interface=127.0.0.1"]
        assert rows["cache.enabled"]["source"] == "default"
        assert MANAGEMENT not in done.stdout
        plugins = llmproxy("plugins", cwd=tmp_path)
        assert plugins.returncode == 0
        assert rows["cache.backend"]["value"] in {row.split()[1] for row in plugins.stdout.splitlines()}


def findings(cwd: Path, env: dict[str, str], code: int) -> dict[str, dict[str, str]]:
    """What `doctor` says of the settings there, by subject."""
    done = llmproxy("doctor", "llmproxy.yaml", "--output", "json", cwd=cwd, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in (MANAGEMENT, ENCRYPTION, *KEYS.values()))
    return {each["subject"]: each for each in json.loads(done.stdout)["data"]}


def test_doctor(tmp_path: Path) -> None:
    """A set-up that works passes; of one that is broken in many ways it says each, what to do, and ends with 1."""
    with Stack(tmp_path) as stack:
        without = {"api_keys": {"azure": None}}  # whose list of models the simulator does not have
        stack.manage("PATCH", f"/manage/projects/{stack.project}", without)
        found = findings(tmp_path, stack.env, 0)
        assert {each["state"] for each in found.values()} <= {"ok", "warning"}, found
        for subject in ("store", "provider keys", "apis.openai", "apis.openai key", "clock"):
            assert found[subject]["state"] == "ok", found[subject]
        stack.manage("PATCH", f"/manage/projects/{stack.project}", {"api_keys": {"openai": "sk-wrong"}})
        stack.manage("POST", "/manage/projects", {"name": "Two", "api_keys": {"anthropic": KEYS["anthropic"]}})
        refused = findings(tmp_path, stack.env, 1)["apis.openai key"]
        assert refused["state"] == "failed"
        assert f"llmproxy project update {stack.project} --api-key openai=prompt" in refused["advice"]
        said = llmproxy("doctor", "llmproxy.yaml", cwd=tmp_path, env=stack.env)
        assert "\x1b" not in said.stdout  # colours are for terminals
        stack.simulator.stop()
    wrong = {
        **stack.env,
        "LLMPROXY_ENCRYPTION_KEY": "another encryption key, long enough",
        "LLMPROXY_AUDIT_FILE": str(tmp_path),
        "LLMPROXY_LIMITS_BACKEND": "redis",
        "LLMPROXY_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
    }
    found = findings(tmp_path, wrong, 1)
    for subject, advice in (
        ("files", "Correct the setting"),
        ("provider keys", "encryption key"),
        ("redis for limits", "Is it running"),
        ("apis.openai", "Is it running"),  # the simulator has ended
    ):
        assert found[subject]["state"] == "failed", found[subject]
        assert advice in found[subject]["advice"]
    done = llmproxy("doctor", "none.yaml", cwd=tmp_path)
    assert done.returncode == 78


def test_doctor_and_postgresql(tmp_path: Path, postgres: PostgreSQL) -> None:
    """A server that is there, and rejects who connects, is told from one that is not."""
    url = postgres.url().replace("llmproxy@", "somebody@")
    (tmp_path / "llmproxy.yaml").write_text(
        "apis: {openai: {base_url: 'http://127.0.0.1:1', allowed_endpoints: [/v1/models]}}"
    )
    store = findings(tmp_path, {"LLMPROXY_STORE_URL": url, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION}, 1)["store"]
    assert store["detail"] == "It cannot be used: connection rejected."
    assert "user, password and database" in store["advice"]


def test_doctor_and_redis(tmp_path: Path) -> None:
    """A Redis that may evict limits is no place for them, unless that is allowed."""
    evicting = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    with Stack(tmp_path) as stack, RedisServer(tmp_path, *evicting) as redis:
        stack.manage("PATCH", f"/manage/projects/{stack.project}", {"api_keys": {"azure": None}})
        env = {**stack.env, "LLMPROXY_LIMITS_BACKEND": "redis", "LLMPROXY_REDIS_URL": redis.url}
        assert "noeviction" in findings(tmp_path, env, 1)["redis for limits"]["advice"]
        env["LLMPROXY_LIMITS_ALLOW_EVICTION"] = "true"
        assert findings(tmp_path, env, 0)["redis for limits"]["state"] == "ok"


def test_doctor_is_interrupted(tmp_path: Path) -> None:
    """What was not looked at to its end is not said to have failed."""
    with closing(socket.create_server(("127.0.0.1", 0))) as provider:
        provider.settimeout(30)
        port = provider.getsockname()[1]
        (tmp_path / "llmproxy.yaml").write_text(
            f"apis: {{a: {{base_url: 'http://127.0.0.1:{port}', allowed_endpoints: [/v1/models]}}}}\n"
        )
        command = [sys.executable, "-c", "from llmproxy.cli import main; main()", "doctor", "llmproxy.yaml"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as doctor:
            connection, _ = provider.accept()
            doctor.send_signal(signal.SIGINT)
            out, err = doctor.communicate(timeout=30)
            connection.close()
    assert (doctor.returncode, out, err.strip()) == (1, "", "Aborted!")


def test_chat(tmp_path: Path) -> None:
    """A conversation through the daemon, in both formats, with the token's limits; one that is revoked ends it."""
    with Stack(tmp_path) as stack:
        token = stack.new_token(requests_per_minute=60)
        env = {"LLMPROXY_URL": stack.url, "LLMPROXY_TOKEN": token}
        for arguments in (
            ("--model", "gpt-4o-mini"),
            ("--model", "claude-sonnet-4-5", "--api", "anthropic", "--format", "anthropic"),
        ):
            done = llmproxy("chat", *arguments, cwd=tmp_path, stdin="Hello\nAnd again\n", env=env)
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.strip().splitlines()) >= 2
            assert done.stderr.count("output tokens") == 2
            assert "of 60 requests left this minute" in done.stderr
        env["LLMPROXY_TOKEN"] = token + "x"
        assert llmproxy("chat", "--model", "gpt-4o-mini", cwd=tmp_path, stdin="Hello\n", env=env).returncode == 77


def test_completion(tmp_path: Path) -> None:
    """A real bash completes a command with the script."""
    script = tmp_path / "llmproxy.bash"
    script.write_text(llmproxy("completion", "bash", cwd=tmp_path).stdout)
    program = tmp_path / "llmproxy"
    program.write_text(f"#!{sys.executable}\nfrom llmproxy.cli import main\nmain(prog_name='llmproxy')\n")
    program.chmod(0o755)
    commands = (
        f'PATH="{tmp_path}:$PATH"; source {script}; COMP_WORDS=(llmproxy proje); COMP_CWORD=1; '
        '_llmproxy_completion llmproxy; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stdout.split() == ["project"], done.stderr


LITELLM = """\
model_list:
  - model_name: gpt
    litellm_params: {{model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY, api_base: "{url}/v1"}}
"""


def test_import_litellm(tmp_path: Path) -> None:
    """A daemon runs with what was imported, serves the model that was listed, and no other."""
    with Stack(tmp_path) as stack:
        (tmp_path / "config.yaml").write_text(LITELLM.format(url=f"http://127.0.0.1:{stack.simulator.port}"))
        keys = {"keys": [{"key_alias": "team", "rpm_limit": 2}]}
        (tmp_path / "keys.json").write_text(json.dumps(keys))
        done = llmproxy("import", "litellm", "config.yaml", "--keys", "keys.json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        commands = [line.removeprefix("#   ") for line in done.stdout.splitlines() if line.startswith("#   ")]
        port = free_port()
        (tmp_path / "imported.yaml").write_text(
            done.stdout + f"\nserver: {{listen: ['tcp:{port}:interface=127.0.0.1']}}\n"
        )
        home = tmp_path / "imported"
        home.mkdir()
        arguments = ("llmproxy", "--config", str(tmp_path / "imported.yaml"))
        env = {**stack.env, "LLMPROXY_STATE_DIR": str(home / "state"), "LLMPROXY_AUDIT_FILE": "",
               "LLMPROXY_STORE_URL": f"sqlite:///{home}/llmproxy.db"}  # fmt: skip
        with Daemon(*arguments, port=port, log=home / "log", env=env) as daemon:
            cli_env = {**env, "LLMPROXY_URL": daemon.url, "OPENAI_API_KEY": KEYS["openai"]}
            made = llmproxy(*shlex.split(commands[0])[1:], "--output", "json", cwd=home, env=cli_env)
            assert made.returncode == 0, made.stderr
            line = commands[1].replace("PROJECT_ID", json.loads(made.stdout)["id"])
            token = json.loads(llmproxy(*shlex.split(line)[1:], "--output", "json", cwd=home, env=cli_env).stdout)[
                "token"
            ]
            talk = {"LLMPROXY_URL": daemon.url, "LLMPROXY_TOKEN": token}
            name = llmproxy("chat", "--model", "gpt-4o-mini", cwd=home, stdin="Hello\n", env=talk)
            assert name.returncode == 0, name.stderr
            assert "of 2 requests left" in name.stderr
            assert llmproxy("chat", "--model", "o3", cwd=home, stdin="Hello\n", env=talk).returncode != 0


def test_requests_activity_and_logging(tmp_path: Path) -> None:
    """What the API has of them, on the command line."""
    with Stack(tmp_path) as stack:

        def says(*command: str) -> Any:
            done = run_command(["llmproxy", "--url", stack.url, "--output", "json", *command], env=stack.env)
            assert done.returncode == 0, done.stdout + done.stderr
            return json.loads(done.stdout)

        body = b'{"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}'
        answer = stack.ask("POST", "/v1/chat/completions", body)
        assert answer.status == 200
        name = str(answer.header("x-request-id"))
        eventually(
            lambda: name in [each["request_id"] for each in says("request", "list", "--project", "Team")["data"]]
        )
        assert says("request", "list", "--status", "4xx", "--model", "gpt-4o", "--limit", "5")["data"] == []
        shown = says("request", "show", name)
        assert (shown["request_id"], shown["model"]) == (name, "gpt-4o") and shown["timeline"]
        eventually(lambda: says("activity", "--period", "1h")["total"]["requests"] >= 1)
        eventually(lambda: "gpt-4o" in [each["name"] for each in says("activity", "--by", "model")["data"]])
        for command in (("request", "list"), ("activity",), ("activity", "--by", "project")):
            table = run_command(["llmproxy", "--url", stack.url, *command], env=stack.env)
            assert table.returncode == 0 and "USD" in table.stdout, table.stderr
        assert says("log-level", "debug") == says("log-level") == {"level": "debug"}
        assert stack.manage("GET", "/manage/logging") == {"level": "debug"}


def test_what_runs_there(tmp_path: Path) -> None:
    """Version, APIs, a key, settings, sessions and the audit log of a daemon, asked of it by its URL alone."""
    with Stack(tmp_path) as stack:

        def ends(*command: str) -> tuple[int, Any]:
            done = run_command(["llmproxy", "--url", stack.url, "--output", "json", *command], env=stack.env)
            assert "Traceback" not in done.stderr
            return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

        assert ends("version")[1]["version"] == metadata.version("llmproxy")
        assert [each["name"] for each in ends("api", "list")[1]["data"]] == list(KEYS)
        assert ends("openapi")[1]["paths"]["/manage/version"]
        key = stack.manage("POST", "/manage/keys", {"name": "Lead", "role": "operator"})
        code, shown = ends("key", "show", key["id"])
        assert (code, shown["name"], shown.get("key")) == (0, "Lead", None)
        rows = {row["setting"]: row["value"] for row in ends("config", "show", "--daemon")[1]["data"]}
        assert rows["apis.openai.base_url"] == stack.simulator.url and "cache.enabled" not in rows
        assert ends("config", "show", "--daemon", "etc/apis.yaml")[0] == 2
        browser = Visitor(stack.daemon.port)
        assert browser.sign_in().status == 303
        (session,) = ends("session", "list")[1]["data"]
        assert session["subject"] == "management"
        assert ends("session", "end", session["id"])[0] == 0
        assert browser.get("/admin/tokens").status == 401
        assert ends("session", "end", session["id"])[0] == 1
        assert [each["outcome"] for each in ends("audit", "list", "--action", "session.end")[1]["data"]] == [
            *("failure", "intent", "success", "intent")
        ]
        assert ends("audit", "verify", "--daemon") == (0, {"entries": ANY, "problem": ""})
        with closing(sqlite3.connect(tmp_path / "llmproxy.db")) as database, database:
            database.execute("DELETE FROM audit_log WHERE seq = 3")
        code, verdict = ends("audit", "verify", "--daemon")
        assert code == 1 and verdict["problem"]


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    """It is said, and of a secret that is lost so, whose it is; a closed output is no good end either."""
    with Stack(tmp_path) as stack:
        code = "from llmproxy.cli import main; main()"
        env = {**os.environ, **stack.env, "LLMPROXY_URL": stack.url, "LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT}

        def ends(to: str, *command: str) -> tuple[int, str]:
            shell = ["sh", "-c", f'exec "$@" {to}', "sh", sys.executable, "-c", code, *command]
            done = subprocess.run(shell, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=60)
            return done.returncode, done.stderr

        status, said = ends("> /dev/full", "token", "create", "--project", stack.project, "--name", "lost")
        [token] = [each for each in stack.manage("GET", "/manage/tokens")["data"] if each["name"] == "lost"]
        assert (status, said) == (
            74,
            "Error: Standard output cannot be written: No space left on device. The token "
            f"{token['id']} is valid, and was not shown. Run: llmproxy token revoke {token['id']}\n",
        )
        status, said = ends(">&-", "key", "create", "--name", "lost", "--role", "viewer")
        [key] = stack.manage("GET", "/manage/keys")["data"]
        assert status == 74 and said.startswith("Error: Standard output cannot be written: it is closed. The key ")
        assert said.endswith(f"Run: llmproxy key revoke {key['id']}\n")
