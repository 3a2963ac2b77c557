"""What the cache owes to requests that may go the short way: the same as to those that go the long one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from llmproxy.auth.caching_validator import CachedTokenValidator
from llmproxy.model import Grant
from llmproxy.proxy.request_body import MAX_BUFFERED_BODY_BYTES
from tests.journey.test_caching import FRESH, MODELS, OPT_IN, answer
from tests.support.proxy_case import TOKEN, ProxyTestCase, request
from tests.support.responses import Response, parse_response

WARM = 3  # requests after which a head goes the short way


class Ways(ProxyTestCase):
    """One client, whose requests go the short way where there is one.

    @ivar short: How many have gone it, since somebody looked.
    """

    def validator(self) -> Any:
        tokens: Any = self.tokens
        return CachedTokenValidator(tokens, clock=self.network, now=self.network.seconds, ttl=1e6, journaled=True)

    def ways(self, **api: Any) -> Iterator[bool]:
        """Whether there is a short way: first not, then there is. Each has a proxy of its own."""
        self.tokens.grants[TOKEN] = Grant("project-1", token_id="token-1", project_active=True)
        for fast in (False, True):
            self.server = {"fast_path": fast}
            self.restart(**api)
            self.user = self.client()
            self.fresh = count()
            yield fast

    def asked(self, *lines: str, data: bytes = FRESH, **parts: Any) -> tuple[Response, bool]:
        """What becomes of a request, and whether the provider was asked, which says C{data} then."""
        calls = self.calls()
        self.user.send(request(*lines, **parts))
        if self.calls() == calls:
            return parse_response(self.user.take()), False
        self.provider.last.send(data)
        return parse_response(self.user.take()), True

    def get(self, *lines: str, **parts: Any) -> tuple[Response, bool]:
        return self.asked(*lines, **{"method": "GET", "path": MODELS, "body": None, **parts})

    def post(self, *lines: str, **parts: Any) -> tuple[Response, bool]:
        """A request that has not come before, unless its body is given."""
        body = b'{"model": "m", "n": %d}' % next(self.fresh)
        return self.asked(*lines, **{"path": MODELS, "body": body, **parts})

    def calls(self) -> int:
        return sum(bytes(peer.received).count(b" HTTP/1.1\r\n") for peer in self.provider.peers)

    @property
    def short(self) -> int:
        fast_path = self.proxy._parts.fast_path
        return 0 if fast_path is None else fast_path.served


class Requests(Ways):
    def test_conditions_of_a_post(self) -> None:
        """A 304 is no response to it, whatever was stored."""
        for fast in self.ways():
            said = answer('ETag: "x"', "Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT", body=b"[1]")
            for _ in range(WARM + 2):
                self.post(OPT_IN, data=said, body=b"{}")
            for line in (
                "If-Modified-Since: Mon, 23 Nov 2026 10:00:00 GMT",
                'If-None-Match: "x"',
                "If-None-Match: *",
            ):
                for _ in range(WARM + 2):
                    got, asked = self.post(OPT_IN, line, body=b"{}")
                    self.assertEqual((got.status, got.body, asked), (200, b"[1]", False), line)
            self.assertEqual(self.short > 0, fast)

    def test_no_cache(self) -> None:
        """The provider is asked each time, and what it says is stored for those who take it from there."""
        again = f"{OPT_IN}, no-cache"
        for fast in self.ways():
            for number in range(WARM + 2):
                said, body = answer(body=b"[%d]" % number), b'{"model": "m", "n": %d}' % (number % WARM)
                got, asked = self.post(again, data=said, body=body)
                self.assertEqual((got.body, got["X-Cache-Status"], asked), (b"[%d]" % number, "stored", True))
                got, asked = self.post(OPT_IN, body=body)
                self.assertEqual((got.body, got["X-Cache-Status"], asked), (b"[%d]" % number, "hit", False))
            self.assertEqual(self.post(again, body=body)[0]["Cache-Status"], "llmproxy; fwd=request; stored")
            self.post(again)
            self.assertEqual(self.short > 0, fast)

    def test_only_if_cached(self) -> None:
        """The provider is not asked, be the request one that the cache passes by."""
        only = "Cache-Control: public, max-age=60, only-if-cached"
        for fast in self.ways():
            for _ in range(WARM + 2):
                for number, lines in enumerate(
                    (
                        ["Cache-Control: only-if-cached"],
                        [only, "Range: bytes=0-1"],
                        [only, "Cache-Control: no-store"],
                        [only],
                    )
                ):
                    got, asked = self.post(*lines)
                    self.assertEqual((got.status, got.json["error"]["code"], asked), (504, "not_in_cache", False))
                    self.assertEqual(self.events.records[-1].cache, "miss" if number == 3 else "bypass")
            got, asked = self.post(only, body=b"[%b]" % (b" " * MAX_BUFFERED_BODY_BYTES))
            self.assertEqual((got.status, asked), (504, False))
            self.user = self.client()
            self.assertEqual(self.get("Cache-Control: only-if-cached", "If-Match: *")[0].status, 504)
            self.post(OPT_IN, body=b"{}")
            for _ in range(WARM + 2):
                self.assertEqual(self.post(only, body=b"{}")[0].status, 200)
            self.assertEqual(self.short > 0, fast)
            self.assertEqual(self.post(only)[0].status, 504)
            self.assertEqual(self.calls(), 1)
            self.provider.peers.clear()

    def test_only_if_cached_without_a_cache(self) -> None:
        """Then it is the provider's affair."""
        self.cache = {"enabled": False}
        for _ in self.ways():
            self.assertEqual(self.post("Cache-Control: only-if-cached")[0].status, 200)


class Changes(Ways):
    def test_a_request_whose_response_is_stored(self) -> None:
        """It may change something all the same: what is stored for its URI is forgotten (RFC 9111, section 4.4)."""
        for api, lines in ({}, [OPT_IN]), ({"cache": {"post": "always", "ttl": 60.0}}, []):
            for fast in self.ways(**api):
                for _ in range(WARM + 2):
                    self.assertEqual(self.get()[1], True)
                    self.assertEqual(self.get()[1], False)
                    got, _ = self.post(*lines, data=answer())
                    self.assertEqual(got["X-Cache-Status"], "stored")
                self.assertEqual(self.short > 0, fast)

    def test_one_that_changes_nothing(self) -> None:
        """A hit makes no call, and a failure changes nothing."""
        for _ in self.ways():
            for _ in range(WARM + 2):
                self.post(OPT_IN, body=b"{}")
            self.get()
            self.assertFalse(self.post(OPT_IN, body=b"{}")[1])
            self.post(OPT_IN, data=answer(status="500 No"))
            self.assertFalse(self.get()[1])

    def test_one_that_is_joined(self) -> None:
        """It is one call, whoever waits for it, and whoever leaves."""
        for _ in self.ways():
            self.get()
            first, second = self.client(), self.client()
            for client in (first, second):
                client.send(request(OPT_IN, path=MODELS, body=b"[1]"))
            first.reset()
            self.provider.last.send(answer())
            self.assertEqual(parse_response(second.take())["X-Cache-Status"], "coalesced")
            self.assertTrue(self.get()[1])
