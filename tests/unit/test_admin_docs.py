from __future__ import annotations

import re
from pathlib import Path
from unittest import TestCase

from llmproxy.web.admin.rendering import MENU

DOCS = Path(__file__).parents[2] / "docs"
MAX_IMAGE_BYTES = 200 * 1024
MAX_IMAGES_BYTES = 800 * 1024


class AdminPageTests(TestCase):
    page = (DOCS / "admin.md").read_text()

    def test_every_page_is_explained(self) -> None:
        for _, name, _ in MENU:
            self.assertIn(f"\n| {name} | ", self.page)

    def test_pictures(self) -> None:
        """They are there, each is shown, and a clone does not grow by them without end."""
        shown = set(re.findall(r"!\[[^]]+\]\(images/(admin-[\w-]+\.png)\)", self.page))
        sizes = {path.name: path.stat().st_size for path in (DOCS / "images").glob("admin-*.png")}
        self.assertEqual(shown, set(sizes))
        self.assertLessEqual(max(sizes.values()), MAX_IMAGE_BYTES)
        self.assertLessEqual(sum(sizes.values()), MAX_IMAGES_BYTES)
