"""The C{llmproxy} command as a process, beside a daemon that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.stack import MANAGEMENT, Stack


def llmproxy(
    *arguments: str, cwd: Path, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    clean = {name: value for name, value in os.environ.items() if "LLMPROXY" not in name}
    command = [sys.executable, "-c", "from llmproxy.cli import main; main(prog_name='llmproxy')", *arguments]
    return subprocess.run(
        command, cwd=cwd, input=stdin, env={**clean, **(env or {})}, capture_output=True, text=True, timeout=120
    )


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
