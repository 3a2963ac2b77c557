"""Every module that the page about a request's way names exists."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROOMS = {path.name for path in (ROOT / "llmproxy").iterdir() if path.is_dir()}


class ArchitecturePageTests(unittest.TestCase):
    def test_what_it_names_exists(self) -> None:
        """Modules and packages, as C{`proxy/pipeline`}, C{`app.py`} or in the picture."""
        named = set(re.findall(r"\b((?:[a-z_]+/)*[a-z_]+(?:\.py)?/?)(?=`|:|<br/>|\"|\])", PAGE))
        modules = {name.rstrip("/") for name in named if name.split("/")[0] in ROOMS or name.endswith(".py")}
        self.assertGreater(len(modules), 25)
        package = ROOT / "llmproxy"
        gone = [m for m in modules if not (package / m).exists() and not (package / f"{m}.py").exists()]
        self.assertEqual(sorted(gone), [])
