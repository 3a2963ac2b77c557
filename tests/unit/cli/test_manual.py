"""C{docs/cli.md} says all there is."""

from __future__ import annotations

import os
import re
import shlex
import unittest
from collections.abc import Iterator
from pathlib import Path

import click

from llmproxy.cli import main
from tests.unit.cli.daemon import DaemonTestCase

MANUAL = Path(__file__).parents[3] / "docs" / "cli.md"


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name."""
    yield name, command
    if isinstance(command, click.Group):
        for further, inner in command.commands.items():
            yield from commands(inner, f"{name} {further}")


class ManualTests(unittest.TestCase):
    def setUp(self) -> None:
        self.manual = MANUAL.read_text()

    def test_commands_and_options(self) -> None:
        """Every command has its part in the manual, with every option it takes."""
        parts = dict(re.findall(r"^##+ `([^`]+)`\n(.*?)(?=^##|\Z)", self.manual, re.MULTILINE | re.DOTALL))
        for name, command in commands(main, "llmproxy"):
            if isinstance(command, click.Group) and name != "llmproxy":
                continue
            self.assertIn(name, parts)
            for option in (p for p in command.params if isinstance(p, click.Option)):
                said = parts[name] + (parts["llmproxy"] if name != "llmproxy" else "")
                self.assertTrue(any(f"`{text}" in said for text in option.opts), (name, option.opts))

    def test_exit_codes(self) -> None:
        """Every way to end is in the manual."""
        for code in (0, 1, 2, os.EX_UNAVAILABLE, os.EX_NOPERM, os.EX_CONFIG):
            self.assertRegex(self.manual, rf"\| {code} \|")


class ExamplesTests(DaemonTestCase):
    async def test_every_example(self) -> None:
        """Every example, run in the manual's order, does what it is there for."""
        blocks = re.findall(r"^```console\n(.*?)^```", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        self.assertGreater(len(lines), 10)
        for line in lines:
            prompt, name, *arguments = shlex.split(
                line.replace("PROJECT_ID", "proj-1").replace("TOKEN_ID", "tok-1").replace("KEY_ID", "key-1")
            )
            self.assertEqual((prompt, name), ("$", "llmproxy"))
            await self.ok(*arguments, environ={"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"})
