"""What a flow was made from may change at any time: the next request goes by what holds then."""

from __future__ import annotations

import gc
from dataclasses import replace
from hashlib import sha256
from typing import Any
from weakref import ref

from twisted.internet.defer import Deferred, succeed

from llmproxy.auth.caching_validator import CachedTokenValidator
from llmproxy.model import Grant
from llmproxy.wire.server.channel import Channel
from tests.support.proxy_case import KEY, OTHER, TOKEN, ProxyTestCase, request
from tests.support.responses import Response, parse_response
from tests.support.transport import MemoryTransport

BODY = b'{"model":"gpt-4o","messages":[]}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
DOWN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
START = 1_000_000.0  # seconds since the epoch when the clock of the network begins


class Uses:
    """A store that is told how many requests tokens have made; nobody asks it here."""

    def count_uses(self, counts: Any, at: Any = None) -> Deferred[None]:
        return succeed(None)

    count_cache_hits = count_uses


class DirectCase(ProxyTestCase):
    """Begins with a connection whose requests are served directly."""

    server = {"fast_path": True}  # noqa: RUF012
    api = {  # noqa: RUF012
        "circuit_breaker": {"failures": 2, "cooldown": 30.0},
        "connection": {"max_open_per_project": 2},
    }
    grant = Grant("project-1", token_id="token-1", project_active=True)
    uses: Any = None
    size = 10
    direct = 0

    def setUp(self) -> None:
        super().setUp()
        self.tokens.grants[TOKEN] = self.grant
        self.warm()

    def warm(self) -> None:
        self.user = self.client()
        for _ in range(4):
            self.assertEqual(self.asked().status, 200)
        self.assert_direct(2)

    def validator(self) -> Any:
        tokens: Any = self.tokens
        self.caching = CachedTokenValidator(
            tokens,
            clock=self.network,
            now=lambda: START + self.network.seconds(),
            ttl=1e6,
            size=self.size,
            uses=self.uses,
            journaled=self.uses is None,
        )
        return self.caching

    def asked(self, answer: bytes = OK) -> Response:
        """What becomes of one more request."""
        self.user.send(request(body=BODY))
        self.at_provider = self.provider.last.take()
        if self.at_provider:
            self.provider.last.send(answer)
        return parse_response(self.user.take())

    def assert_direct(self, expected: int) -> None:
        """So many requests have been served directly, since this was asked last."""
        fast_path = self.proxy._parts.fast_path
        assert fast_path is not None
        before, self.direct = self.direct, fast_path.served
        self.assertEqual(self.direct - before, expected)


class Changes(DirectCase):
    def test_a_token_that_is_revoked(self) -> None:
        self.tokens.grants.clear()
        self.assertEqual(self.asked().status, 200)  # as long as nobody says so
        self.caching.forget_project("project-1")
        self.assertEqual((self.asked().status, self.at_provider), (401, b""))
        self.assert_direct(1)

    def test_a_token_that_expires(self) -> None:
        self.tokens.grants[TOKEN] = replace(self.grant, expires_at=START + 4.0)
        self.caching.forget_project("project-1")
        for _ in range(3):
            self.assertEqual(self.asked().status, 200)
        self.assert_direct(2)
        self.network.pass_time(3.0)
        self.assertEqual(self.asked().status, 200)
        self.network.pass_time(1.0)
        self.assertEqual((self.asked().status, self.at_provider), (401, b""))
        self.assert_direct(1)

    def test_a_grant_that_is_forgotten_for_others(self) -> None:
        """It is asked for again; what comes of that may be another."""
        self.tokens.grants[TOKEN] = Grant("project-1", token_id="token-1", project_active=True, models=("gpt-5*",))
        self.assertEqual(self.asked().status, 200)
        self.caching._grants.drop(self.caching.key(TOKEN))
        self.assertEqual((self.asked().status, self.at_provider), (403, b""))
        self.assert_direct(1)

    def test_another_provider_key(self) -> None:
        self.asked()
        self.assertIn(KEY.encode(), self.at_provider)
        self.projects.keys["project-1"] = "sk-quite-another"
        self.proxy._parts.keys.forget("project-1")
        for _ in range(3):
            self.asked()
            self.assertIn(b"sk-quite-another", self.at_provider)
        self.assert_direct(3)  # the first of them has made another flow

    def test_grants_that_are_too_old(self) -> None:
        """One request in a while goes the long way, by which its head is known again, wherever its bytes end."""
        for split in (False, True):
            self.caching.forget_project("project-1")
            for _ in range(3):
                sent = request(body=BODY)
                at = len(sent) - len(BODY) if split else 0
                self.user.send(sent[:at]) if split else None
                self.user.send(sent[at:])
                self.provider.last.send(OK)
                self.assertEqual(parse_response(self.user.take()).status, 200)
            self.assert_direct(2)

    def test_keys_that_are_too_old(self) -> None:
        """They are looked up again."""
        self.projects.keys["project-1"] = "sk-quite-another"
        self.network.pass_time(4.0)
        self.asked()
        self.assertIn(KEY.encode(), self.at_provider)
        self.network.pass_time(1.0)
        self.asked()
        self.assertIn(b"sk-quite-another", self.at_provider)
        self.assert_direct(1)

    def test_as_many_as_may_be_under_way(self) -> None:
        """Of one project; one more is refused, and the next is let through when one is over."""
        others = [self.client() for _ in range(2)]
        for other in others:
            other.send(request(body=BODY))
        under_way = [peer for peer in self.provider.peers if peer.take()]
        self.assertEqual((len(under_way), self.proxy._parts.shares.open), (2, {"openai": 2}))
        self.assertEqual((self.asked().status, self.at_provider), (429, b""))
        for peer in under_way:
            peer.send(OK)
        self.assertEqual([parse_response(other.take()).status for other in others], [200, 200])
        self.assertEqual(self.proxy._parts.shares.open, {"openai": 0})
        self.assertEqual(self.asked().status, 200)
        self.assert_direct(3)

    def test_a_breaker_that_opens(self) -> None:
        """After two failures nobody is asked; after the cooldown one is, and then all."""
        for _ in range(2):
            self.assertEqual(self.asked(DOWN).status, 503)
            self.assertTrue(self.at_provider)
        for _ in range(2):
            refused = self.asked()
            self.assertEqual((refused["X-LLMProxy-Error"], self.at_provider), ("circuit_open", b""))
        self.network.pass_time(31.0)
        self.assert_direct(0)
        for _ in range(4):
            self.assertEqual(self.asked().status, 200)

    def test_an_upstream_that_is_taken_out(self) -> None:
        self.proxy._parts.set_state("openai", 0, "disabled")
        self.assertEqual((self.asked().status, self.at_provider), (503, b""))
        self.proxy._parts.set_state("openai", 0, "enabled")
        for _ in range(3):
            self.assertEqual(self.asked().status, 200)
        self.assert_direct(1)

    def test_its_flow_is_forgotten(self) -> None:
        """As all are by a reload: what connections expect is no flow any more."""
        fast_path = self.proxy._parts.fast_path
        assert fast_path is not None
        fast_path.reconfigure(frozenset())
        for _ in range(3):
            self.assertEqual(self.asked().status, 200)
        self.assert_direct(1)

    def test_many_models(self) -> None:
        """Each request is recorded with its own."""
        names = [f"model-{number % 12}" for number in range(30)]
        for name in names:
            self.user.send(request(body=b'{"model":"%b"}' % name.encode()))
            self.provider.last.send(OK)
        self.assertEqual([record.model for record in self.events.records[-30:]], names)
        self.assert_direct(30)


class CountedUses(Changes):
    """The same where uses of tokens are counted one by one."""

    uses = Uses()

    def tearDown(self) -> None:
        sent = sum(record.attempts > 0 for record in self.events.records)
        counter = self.caching._counter
        assert counter is not None
        self.assertEqual(counter.pending, sent)
        super().tearDown()


class OneGrantAtATime(Changes):
    """A validator that keeps no more: another's request ends what is known of this one's."""

    size = 1

    def test_another_comes(self) -> None:
        self.tokens.grants[OTHER] = Grant("project-2", token_id="token-2", project_active=True)
        asked = self.tokens.asked
        self.client().send(request(body=BODY, token=OTHER))
        self.provider.last.send(OK)
        self.assertEqual(self.asked().status, 200)
        self.assertEqual(self.tokens.asked, asked + 2)
        self.assert_direct(0)


class Connections(DirectCase):
    """What is kept of them."""

    def test_what_was_expected_ends_with_its_connection(self) -> None:
        """Nothing of it waits for the collector, whose runs are rare."""
        fast_path = self.proxy._parts.fast_path
        assert fast_path is not None
        gc.disable()
        self.addCleanup(gc.enable)
        (known,) = fast_path.table._known.values()
        kept = ref(next(each for each in gc.get_objects() if isinstance(each, Channel) and each.expected is known))
        self.user.close()
        self.network.flow()
        own = [each for each in gc.get_referrers(kept()) if not isinstance(each, MemoryTransport)]
        self.assertEqual(own, [])

    def test_a_long_head_is_looked_up_each_time(self) -> None:
        """No connection keeps it."""
        self.user = self.client()
        for _ in range(5):
            self.user.send(request("X-Long: " + "a" * 20_000, body=BODY))
            self.provider.last.take()
            self.provider.last.send(OK)
            self.assertEqual(parse_response(self.user.take()).status, 200)
        self.assert_direct(3)
        kept = [each.expected for each in gc.get_objects() if isinstance(each, Channel) and each.expected is not None]
        self.assertEqual([known for known in kept if len(known.key) > 20_000], [])


class Hits(DirectCase):
    """Requests that are the same to the last byte, and to which the cache responds."""

    cache = {"streams": True}  # noqa: RUF012
    kept = OK.replace(b"Content-Type", b"Cache-Control: max-age=60\r\nContent-Type")
    body = BODY
    fields: tuple[str, ...] = ()

    def asked(self, answer: bytes = kept) -> Response:
        self.user.send(request("Cache-Control: public, max-age=60", *self.fields, body=self.body))
        self.at_provider = self.provider.last.take() if self.provider.peers else b""
        if self.at_provider:
            self.provider.last.send(answer)
        return parse_response(self.user.take())

    def warm(self) -> None:
        self.user = self.client()
        for _ in range(6):
            self.assertEqual(self.asked().status, 200)
        self.assertEqual(self.at_provider, b"")
        self.assert_direct(4)

    def test_a_token_that_is_revoked(self) -> None:
        self.tokens.grants.clear()
        self.caching.forget_project("project-1")
        self.assertEqual(self.asked().status, 401)
        self.assert_direct(0)

    def test_a_token_that_expires(self) -> None:
        self.tokens.grants[TOKEN] = replace(self.grant, expires_at=START + 4.0)
        self.caching.forget_project("project-1")
        for _ in range(4):
            self.assertEqual(self.asked().status, 200)
        self.network.pass_time(4.0)
        self.direct = 0
        self.assertEqual(self.asked().status, 401)

    def test_what_is_kept_is_purged(self) -> None:
        """The provider is asked again; what it says then is what the next get."""
        cache = self.proxy._parts.caching
        assert cache is not None
        self.successResultOf(Deferred.fromCoroutine(cache.purge("")))
        self.assertEqual(self.asked(self.kept.replace(b"{}", b"[]")).body, b"[]")
        self.assertNotEqual(self.at_provider, b"")
        self.assertEqual([self.asked().body for _ in range(4)], [b"[]"] * 4)

    def test_what_is_kept_grows_too_old(self) -> None:
        self.assertEqual(self.asked().header("Age"), "0")
        self.network.pass_time(59.0)
        self.assertEqual((self.asked().header("Age"), self.at_provider), ("59", b""))
        self.network.pass_time(1.0)
        self.asked()
        self.assertNotEqual(self.at_provider, b"")

    def test_a_digest_is_no_request(self) -> None:
        """A longer one is known by its digest; who sends that alone has said nothing."""
        self.body = BODY[:-1] + b" " * 3000 + b"}"
        for _ in range(4):
            self.assertEqual(self.asked().status, 200)
        self.assertEqual(self.at_provider, b"")
        sent = request("Cache-Control: public, max-age=60", body=self.body)
        other = self.client()
        for _ in range(4):  # whose own requests are known
            other.send(request("Cache-Control: public, max-age=60", body=BODY))
        other.take()
        before = self.proxy.metrics().requests
        other.send(sha256(sent).digest())
        self.assertNotIn(b"200 OK", other.take())
        self.assertEqual(self.proxy.metrics().requests, before)

    def test_long_heads_of_requests(self) -> None:
        """Likewise those: their flows are bounded by what they take, and would be kept by what nobody counts."""
        fast_path = self.proxy._parts.fast_path
        assert fast_path is not None
        fast_path.table.repeated.clear()
        self.fields = ("X-Long: " + "a" * 5000,)
        self.direct = fast_path.served
        for _ in range(5):
            self.assertEqual(self.asked().status, 200)
        self.assert_direct(3)
        self.assertEqual(len(fast_path.table.repeated), 0)

    def test_long_heads_of_responses(self) -> None:
        """They are sent all the same, but not kept once more for each request: the cache alone has a bound for them."""
        fast_path, cache = self.proxy._parts.fast_path, self.proxy._parts.caching
        assert fast_path is not None and cache is not None
        self.assertEqual(len(fast_path.table.repeated), 1)
        fast_path.table.repeated.clear()
        self.successResultOf(Deferred.fromCoroutine(cache.purge("")))
        long = self.kept.replace(b"Content-Type", b"X-Long: %b\r\nContent-Type" % (b"a" * 5000))
        for _ in range(6):
            self.assertEqual(self.asked(long).header("X-Long"), "a" * 5000)
        self.assertEqual(self.at_provider, b"")
        self.assertEqual(len(fast_path.table.repeated), 0)
