"""What commands print."""

from __future__ import annotations

import ast
from pathlib import Path
from unittest import TestCase

from llmproxy import cli


class EveryCommand(TestCase):
    def test_prints_where_failures_are_seen(self) -> None:
        """On standard output only by C{output.echo}; C{click.echo} passes over one that is closed."""
        for file in Path(cli.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.echo" and file.name != "output.py":
                    self.assertIn("err", [each.arg for each in node.keywords], f"{file}:{node.lineno}")
