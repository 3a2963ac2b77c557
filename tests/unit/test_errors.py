"""That the page on errors tells what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from unittest import TestCase

from llmproxy import errors
from llmproxy.errors import identity, management, policy

MODULES = {module.__name__ for module in (errors, identity, policy, management)}
PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


def kinds(kind: type[errors.ProxyError] = errors.ProxyError) -> Iterator[type[errors.ProxyError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ in MODULES:
            yield from kinds(each)


class PageTests(TestCase):
    def test_each_code_has_its_row(self) -> None:
        """Status, code, whether to retry, and message are those of the code."""
        rows = set(re.findall(r"^\| (\d+) \| `(\w+)` \| (yes|no) \| (.+) \|$", PAGE, re.MULTILINE))
        there = {kind.code: kind for kind in kinds()}  # the last of each code is the most exact one
        self.assertEqual({code for _, code, _, _ in rows}, set(there))
        for status, code, retry, message in rows:
            same = [kind for kind in kinds() if kind.code == code]
            self.assertIn((int(status), retry == "yes", message), [(k.status, k.retry, k.message) for k in same])

    def test_codes_of_one_name_agree(self) -> None:
        """A code is never told with two statuses."""
        statuses: dict[str, set[int]] = {}
        for kind in kinds():
            statuses.setdefault(kind.code, set()).add(kind.status)
        self.assertEqual([code for code, of in statuses.items() if len(of) > 1], [])
