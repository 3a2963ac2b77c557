"""C{docs/caching.md} says all that the cache says."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import TestCase

import llmproxy
from llmproxy.config.load import parse

PACKAGE = Path(llmproxy.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "caching.md").read_text("utf-8")


class CachingPageTests(TestCase):
    def test_every_reason(self) -> None:
        """Each word of C{X-Cache-Debug} is explained."""
        files = ("caching/fill.py", "caching/rules/response.py", "caching/rules/storing.py")
        sources = "".join((PACKAGE / name).read_text("utf-8") for name in files)
        found = re.findall(r'NotStored\("([a-z-]+)"\)|return "([a-z-]+)"|"(cut|forgone)"', sources)
        words = {word for groups in found for word in groups if word}
        self.assertGreater(len(words), 12)
        self.assertEqual([word for word in sorted(words) if f"`{word}`" not in PAGE], [])

    def test_the_settings(self) -> None:
        """The example is one that the daemon takes."""
        (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        api = "    base_url: https://api.openai.com\n    allowed_endpoints: [/v1/embeddings]\n"
        settings = parse(example.replace("  openai:\n", "  openai:\n" + api), "example", {})
        self.assertEqual((settings.cache.scope, settings.apis["openai"].cache.post), ("project", "optin"))
