from __future__ import annotations

from unittest import TestCase

from llmproxy.web.admin.pages.groups import as_tree, paths


class GroupTests(TestCase):
    def test_the_tree_and_the_way_to_each(self) -> None:
        """Each behind the one it belongs to, whatever their order; one whose parent is not there stands at the top."""
        rows = [("deep", "team"), ("top", None), ("team", "top"), ("lost", "gone"), ("second", "top")]
        tree = as_tree([{"id": name, "parent_id": parent} for name, parent in rows])
        self.assertEqual(
            [(each["id"], each["depth"]) for each in tree],
            [("top", 0), ("team", 1), ("deep", 2), ("second", 1), ("lost", 0)],
        )
        found = {name: [each["id"] for each in above] for name, above in paths(tree).items()}
        self.assertEqual(found, {"top": [], "team": ["top"], "deep": ["top", "team"], "second": ["top"], "lost": []})
