"""The classes that C{docs/library.md} shows keep what they promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any
from unittest import TestCase

from zope.interface import Interface, implementedBy
from zope.interface.verify import verifyObject

import llmproxy

PAGE = (Path(llmproxy.__file__).parents[1] / "docs" / "library.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def classes(code: str, names: dict[str, Any]) -> list[type]:
    """The classes of an example. Nothing else of it is run but its imports, without that of a reactor."""
    kept: list[ast.stmt] = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom):
            node.names = [name for name in node.names if name.name not in ("endpoints", "reactor")]
        if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef):
            kept.append(node)
    exec(compile(ast.Module(kept, []), "docs/library.md", "exec"), names)
    return [names[node.name] for node in kept if isinstance(node, ast.ClassDef)]


class LibraryPageTests(TestCase):
    def test_what_is_implemented(self) -> None:
        """Whoever copies an example has an object that provides all of its interface."""
        names: dict[str, Any] = {}
        shown = {
            (made.__name__, interface.__name__)
            for name in ("basic", "observers", "plugin", "validator")
            for made in classes(EXAMPLES[name], names)
            for interface in implementedBy(made)
            if interface is not Interface and verifyObject(interface, made())
        }
        self.assertLessEqual({("OneToken", "ITokenValidator"), ("OneKey", "IProviderKeys")}, shown)
        self.assertGreater(len(shown), 5)
