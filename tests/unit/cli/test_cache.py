"""C{llmproxy cache}."""

from __future__ import annotations

import json

from tests.unit.cli.daemon import DaemonTestCase


class CacheTests(DaemonTestCase):
    async def test_stats(self) -> None:
        """What the cache holds, for people and for scripts."""
        self.assertIn("entries", await self.ok("cache", "stats"))
        self.assertEqual(json.loads(await self.ok("cache", "stats", "--output", "json"))["entries"], 0)

    async def test_purge(self) -> None:
        """What is chosen goes, and is counted."""
        local = self.cache.caching.state.storage.local
        assert local is not None
        for key in ("openai/p1/base/a GET 1", "openai/p1/base/b GET 1", "openai/p2/base/a GET 1"):
            local.put_now(key, b"", 1, 60.0)
        arguments = ("--api", "openai", "--project", "p1")
        said = await self.ok("cache", "purge", *arguments, "--path", "/a", "--method", "GET")
        self.assertEqual(said.split(), ["removed", "1"])
        self.assertEqual((await self.ok("cache", "purge", *arguments)).split(), ["removed", "1"])
        self.assertEqual((await self.ok("cache", "purge", "--all")).split(), ["removed", "1"])

    async def test_no_choice(self) -> None:
        """Nothing goes by mistake."""
        self.assertIn("say what to remove", await self.fails(1, "cache", "purge"))
