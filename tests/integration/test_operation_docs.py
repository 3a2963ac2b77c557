"""What the page about operation says to do, done."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml

from llmproxy.config.model import Server
from tests.support.stack import KEYS, SETTINGS, Stack, eventually

PAGE = (Path(__file__).parents[2] / "docs" / "operation.md").read_text("utf-8")
CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'


class FilesOfItsOwn(Stack):
    """One whose secrets are files that the first start has made."""

    settings = SETTINGS.replace("store:", "ledger: {{interval: 50ms}}\nstore:")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.env.pop("LLMPROXY_ENCRYPTION_KEY")
        self.daemon = self.another()

    def chat(self) -> int:
        return self.ask("POST", "/v1/chat/completions", CHAT, {"Content-Type": "application/json"}).status

    def lines(self) -> int:
        return sum(row["requests"] for row in self.manage("GET", "/manage/usage")["data"])


def test_a_backup_is_restored(tmp_path: Path) -> None:
    """Database and key, copied while the daemon runs, make a daemon that knows tokens, keys and ledger."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with FilesOfItsOwn(tmp_path) as stack:
        assert stack.chat() == 200
        eventually(lambda: stack.lines() == 1)
        with sqlite3.connect(tmp_path / "llmproxy.db") as live, sqlite3.connect(copy / "llmproxy.db") as backup:
            live.backup(backup)
        shutil.copy2(tmp_path / "state" / "encryption-key", copy)
        later = stack.new_token()
        assert stack.ask("GET", "/v1/models", token=later).status == 200
        stack.daemon.stop()
        for path in tmp_path.glob("llmproxy.db*"):
            path.unlink()
        (tmp_path / "state" / "encryption-key").unlink()
        shutil.copy2(copy / "llmproxy.db", tmp_path)
        shutil.copy2(copy / "encryption-key", tmp_path / "state")
        with stack.another("restored") as stack.daemon:
            assert stack.chat() == 200
            assert stack.ask("GET", "/v1/models", token=later).status == 401
            eventually(lambda: stack.lines() >= 2)
            assert sorted(stack.manage("GET", f"/manage/projects/{stack.project}")["api_keys"]) == sorted(KEYS)


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_settings(text: str) -> None:
    """The examples are settings that the daemon takes."""
    assert Server.model_validate(yaml.safe_load(text)["server"])
