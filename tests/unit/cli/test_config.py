"""C{llmproxy config show}."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

from click.testing import CliRunner, Result

from llmproxy.cli import main
from tests.support.proxy_case import FAST_PATH
from tests.unit.cli.test_daemon import SETTINGS


class ShowTests(unittest.TestCase):
    def show(self, *arguments: str, text: str = SETTINGS) -> Result:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "apis.yaml"
            path.write_text(text)
            self.path = str(path)
            # Another variable is set where the suites run without the fast path.
            environ = {FAST_PATH: None, "LLMPROXY_REDIS_URL": "redis://:hunter2@cache/0"}
            return CliRunner().invoke(main, ["config", "show", self.path, *arguments], env=environ)

    def test_set(self) -> None:
        """Only what is set, each with its source, and no password."""
        lines = [line.split() for line in self.show().stdout.splitlines()]
        self.assertEqual(lines[0], ["SETTING", "SOURCE", "VALUE"])
        self.assertIn(["default_api", f"{self.path}:1", "openai"], lines)
        self.assertIn(["redis.url", "LLMPROXY_REDIS_URL", "redis://***@cache/0"], lines)
        self.assertEqual(len(lines), 5)

    def test_effective(self) -> None:
        """With the defaults, as JSON."""
        rows = {row["setting"]: row for row in json.loads(self.show("--effective", "--output", "json").stdout)["data"]}
        self.assertEqual(rows["cache.enabled"] | {"setting": ""}, {
            "setting": "", "value": True, "source": "default", "file": None, "line": None,
        })  # fmt: skip
        self.assertEqual((rows["default_api"]["file"], rows["default_api"]["line"]), (self.path, 1))

    def test_wrong(self) -> None:
        """Settings that are wrong hold nowhere."""
        result = self.show(text=SETTINGS.replace("base_url", "bsae_url"))
        self.assertEqual((result.exit_code, result.stdout), (78, ""))
        self.assertIn("bsae_url", result.stderr)
