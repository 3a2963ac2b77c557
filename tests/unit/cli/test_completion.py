"""C{llmproxy completion}."""

from __future__ import annotations

import unittest

from click.testing import CliRunner

from llmproxy.cli import main
from llmproxy.cli.completion import VARIABLE


class CompletionTests(unittest.TestCase):
    def test_scripts(self) -> None:
        """Each shell gets a script of its own, which asks this command."""
        scripts = set()
        for shell in ("bash", "zsh", "fish"):
            result = CliRunner().invoke(main, ["completion", shell])
            self.assertEqual(result.exit_code, 0, result.output)
            self.assertIn(f"{VARIABLE}={shell}_complete", result.stdout)
            scripts.add(result.stdout)
        self.assertEqual(len(scripts), 3)

    def test_other_shells(self) -> None:
        self.assertEqual(CliRunner().invoke(main, ["completion", "tcsh"]).exit_code, 2)

    def test_completed(self) -> None:
        """Commands and their options are completed."""
        for words, wanted in (("llmproxy toke", "token"), ("llmproxy token create --budget-u", "--budget-usd")):
            environ = {VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
            result = CliRunner().invoke(main, [], env=environ, prog_name="llmproxy", complete_var=VARIABLE)
            self.assertIn(wanted, result.stdout)
