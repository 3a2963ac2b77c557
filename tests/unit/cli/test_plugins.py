"""C{llmproxy plugins}."""

from __future__ import annotations

import json
import unittest
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner
from twisted.plugin import getPlugins

from llmproxy.cli import main, plugins


class PluginsTests(unittest.TestCase):
    def test_built_in(self) -> None:
        """What comes with llmproxy is there, with the setting that names it."""
        result = CliRunner().invoke(main, ["plugins", "--output", "json"])
        self.assertEqual(result.exit_code, 0)
        found = {(row["setting"], row["name"]): row["provided_by"] for row in json.loads(result.stdout)["data"]}
        self.assertEqual(found["events.sinks[].type", "file"], "llmproxy.observability.file_sink.FileSinkFactory")
        for setting in ("cache.backend", "limits.backend"):
            for name in ("memory", "redis"):
                self.assertIn((setting, name), found)

    def test_twice(self) -> None:
        """Two of one name would stop the daemon; here they are shown, and the exit status says so."""

        def doubled(interface: Any) -> list[Any]:
            return [*getPlugins(interface), *getPlugins(interface)]

        with patch.object(plugins, "getPlugins", doubled):
            result = CliRunner().invoke(main, ["plugins"])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("cache.backend: memory", result.stderr)
        self.assertEqual(result.stdout.count("FileSinkFactory"), 2)
