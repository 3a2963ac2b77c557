"""C{llmproxy run} and C{llmproxy check-config}."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from click.testing import CliRunner

from llmproxy.cli import main
from llmproxy.cli.daemon import twistd_command

SETTINGS = """\
default_api: openai
apis:
  openai:
    base_url: https://api.openai.com
    allowed_endpoints: [/v1/models]
"""


class CheckConfigTests(unittest.TestCase):
    def check(self, text: str) -> tuple[int, str, str]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "apis.yaml"
            path.write_text(text)
            result = CliRunner().invoke(main, ["check-config", str(path)])
        return result.exit_code, result.stdout, result.stderr

    def test_right(self) -> None:
        """Settings that the daemon would take end with 0."""
        code, said, _ = self.check(SETTINGS)
        self.assertEqual(code, 0, said)

    def test_wrong(self) -> None:
        """Settings that it would not end with 78, and say all that is wrong."""
        code, said, wrong = self.check(SETTINGS.replace("base_url", "bsae_url").replace("default_api", "defautl_api"))
        self.assertEqual((code, said), (78, ""))
        self.assertIn("bsae_url", wrong)
        self.assertIn("defautl_api", wrong)

    def test_what_no_start_would_take(self) -> None:
        """Plugins are looked for and endpoints taken apart as by a start, and what is wrong has its line."""
        code, said, wrong = self.check(SETTINGS + 'cache: {backend: memcached}\nserver: {listen: ["tpc:80"]}\n')
        self.assertEqual((code, said), (78, ""))
        lines = [line.partition(".yaml:")[2] for line in wrong.splitlines()]
        self.assertEqual(
            lines,
            [
                "6:9: cache.backend: No plugin provides ICacheFactory as 'memcached'. Known: memory, redis.",
                "7:19: server.listen[0]: It cannot listen on tpc:80: it is no endpoint that Twisted knows "
                "(Unknown endpoint type: 'tpc').",
                "",
            ],
        )


class RunTests(unittest.TestCase):
    def test_command(self) -> None:
        """The process becomes twistd in the foreground, with what it was given."""
        line = twistd_command("x.yaml", ["--listen", "tcp:1"])
        self.assertEqual(" ".join(line[4:]), "-n --pidfile= llmproxy --config x.yaml --listen tcp:1")

    def test_twistd(self) -> None:
        """That command is twistd."""
        line = [*twistd_command("x.yaml", [])[:4], "--version"]
        said = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir())
        self.assertIn("twistd (the Twisted daemon)", said.stdout)

    def test_options_pass(self) -> None:
        """Options that are not ours are for the daemon."""
        context = main.commands["run"].make_context("run", ["--config", "x", "--listen", "tcp:1", "--check"])
        self.assertEqual(context.params, {"config": "x", "twistd_args": ("--listen", "tcp:1", "--check")})
        self.assertEqual(twistd_command("x", [])[0], sys.executable)
