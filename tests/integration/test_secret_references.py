"""Provider keys that the daemon finds elsewhere: variables, files, a plugin of one's own."""

from __future__ import annotations

import json
import os
import sqlite3
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_library import EXAMPLES
from tests.support.responses import Response
from tests.support.stack import ENCRYPTION, KEYS, MANAGEMENT, Stack, eventually

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
JSON = {"Content-Type": "application/json"}
FIRST, SECOND = "sk-sim-first-0123456789", "sk-sim-second-0123456789"


def ask(stack: Stack, token: str | None = None) -> Response:
    return stack.ask("POST", "/openai/v1/chat/completions", CHAT, JSON, **({"token": token} if token else {}))


def refer(stack: Stack, reference: str) -> dict[str, Any]:
    """The project, whose key for C{openai} is this from now on."""
    return stack.manage("PATCH", f"/manage/projects/{stack.project}", {"api_keys": {"openai": reference}})


def sent(stack: Stack) -> str:
    """The key that the provider was sent last."""
    line = next(line for line in stack.last()["headers"] if line.startswith("Authorization:"))
    return str(line).removeprefix("Authorization: Bearer ")


def secrets(stack: Stack) -> str:
    return str(json.loads(stack.ask("GET", "/ready").body)["checks"]["secrets"])


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    kept = tmp_path / "secrets"
    kept.mkdir()
    env = {"TEAM_API_KEY": FIRST, "OTHER_VARIABLE": SECOND, "OTHER_API_KEY": SECOND}
    further = f"secrets: {{environment: ['TEAM_*'], directories: [{kept}], refresh: 1s}}\n"
    with Stack(tmp_path, further=further, env=env) as running:
        yield running


def test_variable(stack: Stack) -> None:
    """The provider is sent what the variable holds; the API and the database have nothing but its name."""
    shown = refer(stack, "env:TEAM_API_KEY")
    assert shown["api_keys"]["openai"] == "env:TEAM_API_KEY"
    for _ in range(3):  # the third by its flow
        ask(stack)
        assert sent(stack) == FIRST
    stored = sqlite3.connect(stack.home / "llmproxy.db").execute("select reference from provider_keys").fetchall()
    assert ("env:TEAM_API_KEY",) in stored
    for path in ("llmproxy.db", "llmproxy.db-wal", "llmproxy.log", "audit.jsonl"):
        assert FIRST.encode() not in (stack.home / path).read_bytes()
    assert secrets(stack) == "ok"


def test_file_that_changes(stack: Stack) -> None:
    """Requests go with the new key within seconds, without a restart; also those that have a flow."""
    file = stack.home / "secrets" / "openai"
    file.write_text(FIRST + "\n")
    refer(stack, f"file:{file}")
    for _ in range(3):
        ask(stack)
        assert sent(stack) == FIRST
    replacement = file.with_name("new")
    replacement.write_text(SECOND + "\n")
    os.replace(replacement, file)

    def followed() -> bool:
        ask(stack)
        return sent(stack) == SECOND

    eventually(followed, 30)


def test_several(stack: Stack) -> None:
    """Any of several keys may be kept elsewhere. One that is missing is left out, and one that changes is used."""
    file = stack.home / "secrets" / "openai"
    file.write_text(FIRST)
    keys = [f"file:{file}", "sk-sim-openai-in-the-store", "env:TEAM_API_KEY_2", "env:TEAM_API_KEY"]
    shown = stack.manage("PATCH", f"/manage/projects/{stack.project}", {"api_keys": {"openai": keys}})
    assert shown["api_keys"]["openai"][::2] == keys[::2]
    assert "in-the-store" not in json.dumps(shown)
    entry = json.loads((stack.home / "audit.jsonl").read_text().splitlines()[-1])
    assert f"file:{file}, env:TEAM_API_KEY_2, env:TEAM_API_KEY" in json.dumps(entry)
    assert FIRST not in json.dumps(entry)

    def used() -> set[str]:
        found = set()
        for _ in range(6):
            ask(stack)
            found.add(sent(stack))
        return found

    assert used() == {FIRST, "sk-sim-openai-in-the-store"}
    assert "env:TEAM_API_KEY_2" in eventually(lambda: (said := secrets(stack)) != "ok" and said)
    file.write_text(SECOND)
    eventually(lambda: used() == {SECOND, "sk-sim-openai-in-the-store", FIRST})


def test_missing(stack: Stack) -> None:
    """503 and its code, a word on the ready page and in the log; all is well again once the file is there."""
    file = stack.home / "secrets" / "openai"
    refer(stack, f"file:{file}")
    answer = ask(stack)
    assert (answer.status, answer.header("X-LLMProxy-Error")) == (503, "upstream_auth_error")
    assert str(file) not in answer.body.decode(), "no path of the server for clients"
    eventually(lambda: secrets(stack) == f"missing: file:{file}: the file cannot be read: it is not there")
    assert json.loads(stack.ask("GET", "/ready").body)["status"] == "degraded"
    log = (stack.home / "llmproxy.log").read_text()
    assert "Requests that need it get 503" in log
    metrics = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    assert "llmproxy_secret_references_missing 1" in metrics
    file.write_text(SECOND)
    eventually(lambda: secrets(stack) == "ok", 30)
    eventually(lambda: ask(stack).status != 503)
    assert sent(stack) == SECOND
    file.unlink()
    eventually(lambda: ask(stack).status == 503, 30)


def test_known_before_it_is_needed(stack: Stack) -> None:
    """A daemon that starts says what is missing before a request needs it."""
    refer(stack, "env:TEAM_UNSET_API_KEY")
    second = stack.another("second")
    with second:
        ready = json.loads(stack.ask("GET", "/ready", port=second.port).body)
        assert ready["checks"]["secrets"] == "missing: env:TEAM_UNSET_API_KEY: the variable is not set"


def test_what_may_not_be_referred_to(stack: Stack) -> None:
    """No other variable, no other file, nothing of the daemon's own; not by a link, a detour or a copy either."""
    kept = stack.home / "secrets"
    (kept / "passwd").symlink_to("/etc/passwd")
    (kept / "log").symlink_to(stack.home / "llmproxy.log")
    (kept / "own").write_text(ENCRYPTION.replace(" ", "-"))
    (kept / "token").write_text(MANAGEMENT)
    for reference in (
        "env:OTHER_VARIABLE",
        "env:OTHER_API_KEY",
        "env:LLMPROXY_ENCRYPTION_KEY",
        "env:LLMPROXY_MANAGEMENT_TOKEN",
        "env:",
        "file:/etc/passwd",
        f"file:{kept}",
        f"file:{kept}/../llmproxy.yaml",
        f"file:{stack.home}/state/encryption-key",
        "file:secrets/openai",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            refer(stack, reference)
        assert refused.value.code == 422, reference
        assert "root:" not in refused.value.read().decode()
    before = len(stack.recorded())
    for name, why in {
        "passwd": "it leads out of secrets.directories",
        "log": "it leads out of secrets.directories",
        "token": "it is a secret of llmproxy itself",
    }.items():
        refer(stack, f"file:{kept}/{name}")
        assert ask(stack).status == 503, name
        eventually(lambda name=name, why=why: secrets(stack) == f"missing: file:{kept}/{name}: {why}")
    assert len(stack.recorded()) == before, "nothing of it went to the provider"


def test_only_admins(stack: Stack) -> None:
    """Who may set provider keys may not have the server read its own variables for that."""
    made = stack.manage("POST", "/manage/keys", {"name": "ops", "role": "operator"})
    bound = stack.manage("POST", "/manage/keys", {"name": "lead", "role": "operator", "projects": [stack.project]})
    body = json.dumps({"api_keys": {"openai": "env:TEAM_API_KEY"}}).encode()
    for key in (made["key"], bound["key"]):
        answer = stack.ask("PATCH", f"/manage/projects/{stack.project}", body, JSON, token=key)
        assert answer.status == 403, answer.body
    plain = json.dumps({"api_keys": {"openai": "sk-plain"}}).encode()
    assert stack.ask("PATCH", f"/manage/projects/{stack.project}", plain, JSON, token=made["key"]).status == 200


def test_altered_in_the_database(stack: Stack) -> None:
    """Who can write into the database alone cannot have another variable read."""
    refer(stack, "env:TEAM_API_KEY")
    with sqlite3.connect(stack.home / "llmproxy.db", timeout=20) as database:
        database.execute("update provider_keys set reference = 'env:TEAM_SECOND_KEY' where reference is not null")
    second = stack.another("second")
    with second:
        stack.ask("POST", "/openai/v1/chat/completions", CHAT, JSON, port=second.port)
        assert sent(stack) == FIRST


def test_plugin(tmp_path: Path) -> None:
    """The example of the manual, found by its name."""
    plugins = tmp_path / "plugins" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "shelf_plugin.py").write_text(EXAMPLES["secrets"])
    further = f"secrets: {{refresh: 1s, stores: [{{type: shelf, path: {tmp_path}/shelf.json}}]}}\n"
    (tmp_path / "shelf.json").write_text(json.dumps({"team/openai": KEYS["openai"]}))
    with Stack(tmp_path, further=further, env={"PYTHONPATH": str(tmp_path / "plugins")}) as stack:
        refer(stack, "shelf:team/openai")
        ask(stack)
        assert sent(stack) == KEYS["openai"]
        for key in (SECOND, FIRST):  # the first may be read by the check that follows a start
            (tmp_path / "shelf.json").write_text(json.dumps({"team/openai": key}))

            def followed(key: str = key) -> bool:
                ask(stack)
                return sent(stack) == key

            eventually(followed, 30)
        refer(stack, "shelf:nothing")
        assert ask(stack).status == 503
        assert "shelf:nothing: nothing is not on the shelf" in secrets(stack)
