"""C{/manage/cache}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from llmproxy.auth.lockout import FailedAttempts
from llmproxy.caching.keys import cache_key, variant_key
from llmproxy.caching.rules.entry import Entry, Variants
from llmproxy.errors.management import CacheUnavailable
from llmproxy.observability.metrics import ProxyMetrics
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.manage.endpoint import ManagementContext
from llmproxy.web.manage.tree import Management
from tests.support.caches import contents
from tests.unit.web.manage.management import TOKEN, ManagementTestCase

ENTRY = Entry(200, b"OK", b"", b"body", 0.0, 60.0)


class CacheTests(ManagementTestCase):
    def keep(
        self, api: str = "openai", tenant: tuple[str, ...] = ("p1",), target: str = "/v1/models", **more: Any
    ) -> str:
        """An answer, kept as the proxy keeps it; its key."""
        method, lines, marks = more.get("method", b"GET"), more.get("lines", []), self.cache.caching.policies[api].marks
        key = cache_key(api, tenant, method, b"/base" + target.encode(), lines, more.get("body"), marks)
        local = self.cache.caching.state.storage.local
        assert local is not None
        local.put_now(key, ENTRY, 4, 60.0)
        return key

    def left(self) -> int:
        local = self.cache.caching.state.storage.local
        assert local is not None
        return local.usage_now().entries

    def purge(self, **body: Any) -> int:
        reply = self.ask("POST", "/manage/cache/purge", body)
        self.assertEqual(reply.status, 200, reply.body)
        return int(reply.json["removed"])

    def again(self, **told: Any) -> None:
        """The same with other settings of the cache."""
        self.cache = contents(self.clock, **told)
        from llmproxy.web.root import Root

        self.root = Root(manage=self.management())

    def test_what_it_holds(self) -> None:
        """An operator sees how full it is and what it is good for."""
        self.keep()
        reply = self.ask("GET", "/manage/cache")
        self.assertEqual((reply.status, reply.json["entries"], reply.json["scope"]), (200, 1, "project"))
        self.assertGreater(reply.json["bytes"], 4)

    def test_counters(self) -> None:
        """They are those of the metrics."""
        self.root = self.root.__class__(
            manage=Management(
                ManagementContext(
                    projects=self.store,
                    tokens=self.store,
                    usage=self.usage,
                    audit=self.audit,
                    apis={"openai": ["/v1/models"]},
                    auth=ManagementAuth(TOKEN, FailedAttempts(), self.clock),
                    clock=self.clock,
                    now=self.clock.seconds,
                    cache=self.cache,
                    counts=lambda: succeed(ProxyMetrics(cache_hits=3, cache_misses=2, cache_bypass=1)),
                )
            )
        )
        said = self.ask("GET", "/manage/cache").json
        self.assertEqual((said["hits"], said["misses"], said["bypass"]), (3, 2, 1))

    def test_purging(self) -> None:
        """By API, project, path and its beginning, and all; and only that."""
        fill = [
            {},
            {"tenant": ("p2",)},
            {"api": "anthropic"},
            {"target": "/v1/models/a"},
            {"target": "/v1/models?x=1"},
            {"method": b"POST", "body": b"{}"},
            {"method": b"POST", "body": b"[]"},
            {"lines": [b"anthropic-version: 1"]},
        ]
        mine = {"api": "openai", "project_id": "p1"}
        for chosen, removed in (
            ({"all": True}, 8),
            ({"api": "openai"}, 7),
            ({"project_id": "p1"}, 7),
            (mine, 6),
            ({**mine, "prefix": "/v1/models"}, 6),
            ({**mine, "prefix": "/v1/models/"}, 1),
            ({**mine, "prefix": "/v2"}, 0),
            ({**mine, "path": "/v1/models"}, 4),
            ({**mine, "path": "/v1/models", "method": "GET"}, 2),
            ({**mine, "path": "/v1/models", "method": "HEAD"}, 2),
            ({**mine, "path": "/v1/models", "method": "POST"}, 2),
            ({**mine, "path": "/v1/models", "body": "{}"}, 1),
            ({**mine, "path": "/v1/models?x=1"}, 1),
            ({**mine, "path": "/v1/models", "headers": {"anthropic-version": "1"}}, 1),
        ):
            self.purge(all=True)
            for one in fill:
                self.keep(**one)  # type: ignore[arg-type]
            self.assertEqual(self.purge(**chosen), removed, chosen)
            self.assertEqual(self.left(), 8 - removed)

    def test_variants_go_too(self) -> None:
        """Whatever fields chose among them."""
        key = self.keep()
        local = self.cache.caching.state.storage.local
        assert local is not None
        local.put_now(key, Variants((b"a",), "1"), 1, 60.0)
        local.put_now(variant_key(key, "1", (b"a",), [b"A: 1"]), ENTRY, 1, 60.0)
        self.assertEqual(self.purge(api="openai", project_id="p1", path="/v1/models", method="GET"), 2)

    def test_tokens_of_their_own(self) -> None:
        """With C{scope: token} one token's answers can go by themselves."""
        self.again(scope="token")
        for token in ("t1", "t2"):
            self.keep(tenant=("p1", token))
        self.assertEqual(self.purge(project_id="p1", token_id="t1"), 1)
        self.assertEqual(self.purge(project_id="p1"), 1)
        for token in ("t1", "t2"):
            self.keep(tenant=("p1", token))
        mine = {"api": "openai", "project_id": "p1"}
        for chosen in ({"path": "/v1/models"}, {"prefix": "/v1"}):
            self.refused(self.ask("POST", "/manage/cache/purge", {**mine, **chosen}), 422, "token_id")
            self.assertEqual(self.purge(**mine, **chosen, token_id="t1"), 1)
            self.keep(tenant=("p1", "t1"))

    def test_tokens_that_share(self) -> None:
        """With C{scope: project} nothing belongs to a token, and what is called so is not taken for it."""
        self.keep(target="")
        local = self.cache.caching.state.storage.local
        assert local is not None
        local.put_now(cache_key("openai", ("p1",), b"GET", b"/t1/x", []), ENTRY, 4, 60.0)
        self.refused(self.ask("POST", "/manage/cache/purge", {"project_id": "p1", "token_id": "t1"}), 422, "scope")
        self.assertEqual(self.left(), 2)

    def test_long_paths(self) -> None:
        """One is purged, not what begins as it does; of a long beginning no more counts than stands in keys."""
        path = "/v1/" + "x" * 300
        for end in ("a", "b", "b/c"):
            self.keep(target=path + end)
        mine = {"api": "openai", "project_id": "p1"}
        self.assertEqual(self.purge(**mine, path=path), 0)
        self.assertEqual(self.purge(**mine, path=path + "b"), 1)
        self.assertEqual(self.purge(**mine, path=path + "a", method="GET"), 1)
        self.keep(target=path + "a")
        self.assertEqual(self.purge(**mine, prefix=path + "b"), 2)

    def test_shared_by_all(self) -> None:
        """With C{scope: shared} nothing belongs to a project."""
        self.again(scope="shared")
        self.keep(tenant=())
        self.refused(self.ask("POST", "/manage/cache/purge", {"project_id": "p1"}), 422, "shared")
        self.assertEqual(self.purge(api="openai", path="/v1/models"), 1)

    def test_what_is_no_choice(self) -> None:
        """Nothing is removed by mistake."""
        self.keep()
        for body in (
            {},
            {"all": False},
            {"all": True, "api": "openai"},
            {"api": "nobody"},
            {"path": "/v1/models"},
            {"api": "openai", "path": "/v1/models"},
            {"api": "openai", "project_id": "p1", "path": "/a", "prefix": "/a"},
            {"token_id": "t"},
            {"api": "openai", "method": "GET"},
            {"api": "openai", "project_id": "p1", "path": "a"},
            {"api": "openai", "project_id": "p1", "path": "/é"},
            {"everything": True},
        ):
            self.refused(self.ask("POST", "/manage/cache/purge", body), 422)
        self.assertEqual(self.left(), 1)

    def test_it_is_written_down(self) -> None:
        """Who emptied the cache stays known."""
        self.purge(api="openai", project_id="p1")
        (entry,) = self.audit.entries
        self.assertEqual((entry.action, entry.project_id, entry.outcome), ("cache.purge", "p1", "success"))
        self.assertEqual(entry.details, {"all": False, "api": "openai", "removed": 0})

    def test_no_cache(self) -> None:
        """An operator is told that there is none."""
        self.cache = None  # type: ignore[assignment]
        from llmproxy.web.root import Root

        self.root = Root(manage=self.management())
        self.refused(self.ask("GET", "/manage/cache"), 404, "cache.enabled")
        self.refused(self.ask("POST", "/manage/cache/purge", {"all": True}), 404, "cache.enabled")

    def test_a_cache_that_cannot_be_purged(self) -> None:
        """An operator is told, and what was tried is written down."""

        class Away:
            def purge(self, prefix: str) -> Deferred[int]:
                return fail(CacheUnavailable())

        self.cache = contents(self.clock, Away())  # type: ignore[arg-type]
        from llmproxy.web.root import Root

        self.root = Root(manage=self.management())
        self.refused(self.ask("POST", "/manage/cache/purge", {"all": True}), 503, "Purge again")
        (entry,) = self.audit.entries
        self.assertEqual((entry.action, entry.outcome), ("cache.purge", "failure"))

    def test_a_cache_that_takes_its_time(self) -> None:
        """The answer waits for it."""
        waiting: Deferred[int] = Deferred()

        class Slow:
            def purge(self, prefix: str) -> Deferred[int]:
                return waiting

        self.cache = contents(self.clock, Slow())  # type: ignore[arg-type]
        from llmproxy.web.root import Root

        self.root = Root(manage=self.management())
        self.assertEqual(self.ask("POST", "/manage/cache/purge", {"all": True}).status, 0)
