"""What is kept and given again: hits, revalidation, opting in, and whose answers are whose."""

from __future__ import annotations

import gzip
from email.utils import formatdate
from typing import Any

from twisted.internet.defer import Deferred

from llmproxy.caching.storage import CacheStorage
from llmproxy.model import Grant
from tests.support.caches import Far, PluginCache
from tests.support.proxy_case import CHAT, KEY, OTHER, STREAM, TOKEN, ProxyTestCase, chunk, request
from tests.support.responses import Response, parse_response

MODELS = "/v1/models"
OPT_IN = "Cache-Control: public, max-age=60"


def answer(*lines: str, body: bytes = b"{}", status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


FRESH = answer("Cache-Control: max-age=60")


class Caching(ProxyTestCase):
    def get(self, *lines: str, **parts: Any) -> Response | None:
        """What a client gets without the provider being asked; C{None} where it is asked."""
        before = sum(len(peer.received) for peer in self.provider.peers)
        client = self.ask(*lines, **{"method": "GET", "path": MODELS, "body": None, **parts})
        asked = sum(len(peer.received) for peer in self.provider.peers) > before
        self.client_asked = client
        return None if asked else parse_response(client.take())

    def answered(self, data: bytes) -> Response:
        """What it gets once the provider has answered."""
        self.provider.last.take()
        self.provider.last.send(data)
        return parse_response(self.client_asked.take())

    def fill(self, *lines: str, data: bytes = FRESH, **parts: Any) -> Response:
        """A first request, and the provider's answer."""
        self.assertIsNone(self.get(*lines, **parts))
        return self.answered(data)

    def hit(self, *lines: str, **parts: Any) -> Response:
        got = self.get(*lines, **parts)
        assert got is not None, "the provider was asked"
        return got


class Hits(Caching):
    def test_the_second_time(self) -> None:
        """The provider is asked once; the answer is the same, with its age."""
        first = self.fill(data=answer("Cache-Control: max-age=60", "X-Other: a", "X-Other: b", body=b"[1,2]"))
        self.assertEqual(first["X-Cache-Status"], "stored")
        self.assertEqual(first["Cache-Status"], "llmproxy; fwd=uri-miss; stored")
        self.network.pass_time(5.0)
        got = self.hit()
        self.assertEqual((got.status, got.body, got["Age"]), (200, b"[1,2]", "5"))
        self.assertEqual((got.all("X-Other"), got["Cache-Control"]), (["a", "b"], "max-age=60"))
        self.assertEqual((got["X-Cache-Status"], got["Cache-Status"]), ("hit", "llmproxy; hit; ttl=55"))
        self.assertEqual([r.cache for r in self.events.records], ["stored", "hit"])
        record = self.events.records[1]
        self.assertEqual(
            (record.outcome, record.status, record.bytes_out, record.upstream_status), ("complete", 200, 5, None)
        )

    def test_it_costs_no_use(self) -> None:
        """Neither a use of the token nor a look-up of the provider's key."""
        self.fill()
        self.projects.keys.clear()
        self.hit()
        self.assertEqual(self.tokens.counted, [TOKEN])

    def test_the_token_is_still_looked_at(self) -> None:
        """A hit is none for somebody who may not call."""
        self.fill()
        del self.tokens.grants[TOKEN]
        self.assertEqual(self.hit().json["error"]["code"], "token_not_found")

    def test_the_project_is_still_looked_at(self) -> None:
        """Nor for a project that is inactive."""
        self.fill()
        self.projects.active = False
        self.assertEqual(self.hit().json["error"]["code"], "project_inactive")

    def test_each_has_its_own_request_id(self) -> None:
        """What belongs to one exchange is not given to another."""
        self.fill(
            data=answer("Cache-Control: max-age=60", "x-request-id: r1", "Set-Cookie: a=b", "x-ratelimit-remaining: 1")
        )
        got = self.hit("X-Request-ID: mine")
        self.assertEqual(got["X-Request-ID"], "mine")
        for name in ("X-Upstream-Request-ID", "Set-Cookie", "x-ratelimit-remaining"):
            self.assertEqual(got.all(name), [])

    def test_it_is_over_when_it_is_stale(self) -> None:
        """Then the provider is asked again."""
        self.fill()
        self.network.pass_time(60.0)
        got = self.fill()
        self.assertEqual(got["Cache-Status"], "llmproxy; fwd=stale; stored")
        self.hit()

    def test_head(self) -> None:
        """It is answered from what a C{GET} has brought."""
        self.fill(data=answer("Cache-Control: max-age=60", body=b"[1,2]"))
        self.begin_with_head()
        client = self.client()
        client.send(request(method="HEAD", path=MODELS, body=None))
        head, _, rest = client.take().partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 5", head)
        self.assertEqual(rest, b"")

    def begin_with_head(self) -> None:
        self.restart(allowed_methods=["GET", "HEAD", "POST"])
        self.fill(data=answer("Cache-Control: max-age=60", body=b"[1,2]"))

    def test_only_if_cached(self) -> None:
        """A client may ask for what is there and nothing else."""
        got = self.hit("Cache-Control: only-if-cached")
        self.assertEqual((got.status, got.json["error"]["code"]), (504, "not_in_cache"))
        self.fill()
        self.assertEqual(self.hit("Cache-Control: only-if-cached").status, 200)

    def test_a_condition_that_holds(self) -> None:
        """A client that has the answer already is told so."""
        self.fill(data=answer("Cache-Control: max-age=60", 'ETag: "x"'))
        got = self.hit('If-None-Match: W/"x"')
        self.assertEqual((got.status, got["ETag"], got.body), (304, '"x"', b""))
        self.assertEqual(self.hit('If-None-Match: "y"').status, 200)

    def test_parts_are_passed_by(self) -> None:
        """A part of an answer is asked of the provider, and not kept."""
        self.fill()
        self.assertIsNone(self.get("Range: bytes=0-1"))
        got = self.answered(
            answer("Cache-Control: max-age=60", "Content-Range: bytes 0-1/2", status="206 Partial Content")
        )
        self.assertEqual(got["X-Cache-Status"], "bypass")
        self.assertEqual(self.hit().status, 200)

    def test_a_client_that_wants_nothing_kept(self) -> None:
        """C{no-store} keeps it out of the cache both ways."""
        self.assertEqual(self.fill("Cache-Control: no-store")["X-Cache-Status"], "bypass")
        self.fill()
        self.assertIsNone(self.get("Cache-Control: no-store"))

    def test_errors_of_the_provider(self) -> None:
        """They are kept only if it says so, and without its key."""
        self.fill(data=answer(status="404 Not Found"))
        body = f"no {KEY} here".encode()
        got = self.fill(data=answer("Cache-Control: max-age=60", f"X-Key: {KEY}", status="404 Not Found", body=body))
        stars = "*" * len(KEY)
        self.assertEqual((got.body, got["X-Key"]), (f"no {stars} here".encode(), stars))
        got = self.hit()
        self.assertEqual((got.status, got.body, got["X-Key"]), (404, f"no {stars} here".encode(), stars))

    def test_an_answer_that_holds_the_key(self) -> None:
        """It passes, as any 200 does, but the key is never written into a cache."""
        got = self.fill(data=answer("Cache-Control: max-age=60", body=KEY.encode()))
        self.assertEqual(got.body, KEY.encode())
        self.assertIsNone(self.get())

    def test_a_coded_answer_that_holds_the_key(self) -> None:
        """Nor is it within a coding, whoever may be served; what cannot be decoded might hold it."""
        coding = ("Cache-Control: public, max-age=60", "Content-Encoding: gzip")
        key = gzip.compress(b'{"you_sent":"%b"}' % KEY.encode())
        for scope in ("project", "shared"):
            self.cache = {"scope": scope}
            for body in (key, gzip.compress(b"{}")[:-1], b"{}", gzip.compress(b" " * 5_000_000)):
                self.restart()
                self.assertEqual(self.fill(data=answer(*coding, body=body)).body, body)
                self.assertIsNone(self.get(token=TOKEN if scope == "project" else OTHER))
                self.assertEqual(self.events.records[0].cache, "miss")
            self.restart()
            self.fill(data=answer(*coding, body=gzip.compress(b"{}")))
            self.hit()
        self.restart()
        got = self.fill(data=answer(coding[0], "Content-Encoding: compress"))
        self.assertEqual((got["X-Cache-Status"], got["X-Cache-Debug"]), ("miss", "unknown-coding"))
        self.assertIsNone(self.get())

    def test_kept_by_default(self) -> None:
        """Only where the operator says for how long."""
        self.fill(data=answer())
        self.assertIsNone(self.get())
        self.cache = {"default_ttl": 30.0}
        self.restart()
        self.fill(data=answer())
        self.hit()

    def test_switched_off(self) -> None:
        """Then nothing is kept, and answers say so."""
        self.cache = {"enabled": False}
        self.restart()
        self.assertEqual(self.fill()["X-Cache-Status"], "disabled")
        self.assertIsNone(self.get())

    def test_a_large_answer_is_given_at_the_clients_pace(self) -> None:
        """Who does not read is not sent more than the network takes."""
        body = bytes(range(256)) * 3000
        self.fill(data=answer("Cache-Control: max-age=60", body=body))
        client = self.client()
        client.pause()
        client.send(request(method="GET", path=MODELS, body=None))
        self.assertLess(len(client.transport.inbox) + len(client.transport.other.unsent), 300_000)
        client.resume()
        got = parse_response(client.take())
        self.assertEqual((got.status, len(got.body)), (200, len(body)))
        self.assertTrue(got.body == body)

    def test_browsers_are_answered_for_their_own_origin(self) -> None:
        """What another page was told is not told to this one."""
        self.restart(allowed_origins=["https://a.example", "https://b.example"])
        self.fill(
            "Origin: https://a.example", data=answer("Cache-Control: max-age=60", "Access-Control-Allow-Origin: *")
        )
        got = self.hit("Origin: https://b.example")
        self.assertEqual(got.all("Access-Control-Allow-Origin"), ["https://b.example"])


class Revalidation(Caching):
    VALID = answer("Cache-Control: max-age=10", 'ETag: "x"', "X-A: 1", body=b"[1]")

    def stale(self) -> None:
        self.fill(data=self.VALID)
        self.network.pass_time(11.0)
        self.assertIsNone(self.get())

    def test_not_modified(self) -> None:
        """The provider is asked whether it is still true; the body is not sent again."""
        self.stale()
        self.assertIn('If-None-Match: "x"', self.forwarded_request()[1])
        got = self.answered(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nCache-Control: max-age=20\r\nX-A: 2\r\n\r\n')
        self.assertEqual((got.status, got.body, got["X-A"], got["X-Cache-Status"]), (200, b"[1]", "2", "revalidated"))
        self.assertEqual(got["Cache-Status"], "llmproxy; fwd=stale; fwd-status=304; ttl=20")
        self.network.pass_time(15.0)
        self.assertEqual(self.hit()["X-A"], "2")
        self.assertEqual([r.cache for r in self.events.records], ["stored", "revalidated", "hit"])

    def test_modified(self) -> None:
        """The new answer takes the place of the old."""
        self.stale()
        got = self.answered(answer("Cache-Control: max-age=10", body=b"[2]"))
        self.assertEqual((got.body, got["X-Cache-Status"]), (b"[2]", "stored"))
        self.assertEqual(self.hit().body, b"[2]")

    def test_modified_and_not_to_be_kept(self) -> None:
        """Nor is the old one then."""
        self.stale()
        self.answered(answer("Cache-Control: no-store"))
        self.assertIsNone(self.get())
        self.assertNotIn("If-None-Match", "".join(self.forwarded_request()[1]))

    def test_a_reload(self) -> None:
        """C{no-cache} asks the provider even if what is kept is fresh."""
        self.fill(data=self.VALID)
        self.assertIsNone(self.get("Cache-Control: no-cache"))
        got = self.answered(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        self.assertEqual((got.status, got.body), (200, b"[1]"))
        self.assertIn("fwd=request", got["Cache-Status"])

    def test_what_the_client_has_is_another_matter(self) -> None:
        """A 304 to our question is not one to the client's, unless it is."""
        self.stale()
        self.answered(self.VALID)
        self.network.pass_time(11.0)
        self.assertIsNone(self.get('If-None-Match: "mine"'))
        self.assertEqual(self.answered(b"HTTP/1.1 304 Not Modified\r\n\r\n").status, 200)
        self.network.pass_time(11.0)
        self.assertIsNone(self.get('If-None-Match: "x"'))
        self.assertEqual(self.answered(b"HTTP/1.1 304 Not Modified\r\n\r\n").status, 304)

    def test_a_clients_own_condition_without_anything_kept(self) -> None:
        """It goes to the provider as it is, and so does its answer come back."""
        self.assertIsNone(self.get('If-None-Match: "x"'))
        self.assertIn('If-None-Match: "x"', self.forwarded_request()[1])
        self.assertEqual(self.answered(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n').status, 304)
        self.assertIsNone(self.get())

    def test_stale_if_error(self) -> None:
        """An old answer is better than none, where the provider has said so."""
        lenient = answer("Cache-Control: max-age=10, stale-if-error=60", body=b"[1]")
        self.fill(data=lenient)
        self.network.pass_time(11.0)
        self.assertIsNone(self.get())
        got = self.answered(answer(status="503 Service Unavailable"))
        self.assertEqual((got.status, got.body, got["X-Cache-Debug"]), (200, b"[1]", "stale-if-error"))
        self.assertEqual((got["X-Cache-Status"], got["Cache-Status"]), ("stale", "llmproxy; fwd=stale; ttl=-1"))
        record = self.events.records[-1]
        self.assertEqual((record.cache, record.outcome, record.upstream_status), ("stale", "complete", 503))
        self.assertEqual((self.proxy.metrics().cache_hits, len(self.tokens.counted)), (1, 2))
        self.assertIsNone(self.get())
        self.provider.last.reset()  # the connection had been used before, so it is tried once more
        self.provider.last.reset()
        self.assertEqual(parse_response(self.client_asked.take()).body, b"[1]")
        self.network.pass_time(60.0)
        self.assertIsNone(self.get())
        self.assertEqual(self.answered(answer(status="503 Service Unavailable")).status, 503)

    def test_stale_while_revalidate(self) -> None:
        """The client does not wait; the next one has the fresh answer."""
        self.fill(data=answer("Cache-Control: max-age=10, stale-while-revalidate=60", body=b"[1]"))
        self.network.pass_time(11.0)
        client = self.ask(method="GET", path=MODELS, body=None)
        self.assertEqual(parse_response(client.take()).body, b"[1]")
        self.provider.last.take()
        self.provider.last.send(answer("Cache-Control: max-age=10", body=b"[2]"))
        self.assertEqual(self.hit().body, b"[2]")
        told = [(r.request_id.endswith("-refresh"), r.outcome, r.cache) for r in self.events.records]
        self.assertEqual(told[1:3], [(False, "complete", "hit"), (True, "complete", "stored")])

    def hung(self, head: bytes, **settings: Any) -> None:
        """A refresh whose response stops in the middle, by this head."""
        self.restart(timeouts={"request": 30.0, "idle": 5.0}, **settings)
        self.provider.peers.clear()
        self.fill(data=answer("Cache-Control: max-age=10, stale-while-revalidate=60", body=b"[1]"))
        self.network.pass_time(11.0)
        self.ask(method="GET", path=MODELS, body=None)
        self.provider.last.send(head)

    def test_a_refresh_that_hangs(self) -> None:
        """It has no more time than a client's request, and the next one refreshes again."""
        half = answer("Cache-Control: max-age=10", body=b"[2]")[:-1]
        events = STREAM[:-2] + b"Cache-Control: max-age=10\r\n\r\n" + chunk(b"data: 1\n\n")
        for head, seconds in ((half, 30.0), (events, 5.0)):
            self.cache = {"streams": True}
            self.hung(head)
            self.network.pass_time(seconds - 0.5)
            self.assertEqual((self.provider.last.end, self.proxy.metrics().in_flight), ("", 1))
            self.network.pass_time(1.0)
            self.assertEqual((self.provider.last.end, self.proxy.metrics().in_flight), ("reset", 0))
            record = self.events.records[-1]
            self.assertEqual((record.outcome, record.error, record.cache), ("truncated", "upstream_timeout", "miss"))
            self.ask(method="GET", path=MODELS, body=None)
            self.provider.last.send(answer("Cache-Control: max-age=10", body=b"[3]"))
            self.assertEqual(self.hit().body, b"[3]")

    def test_who_joins_a_refresh_that_hangs(self) -> None:
        """Sees that it is half, when its own time is over; nobody joins one that has taken too long."""
        self.hung(answer("Cache-Control: max-age=100", body=b"[2]")[:-1])
        self.network.pass_time(20.0)
        joined = self.ask("Cache-Control: max-age=30", method="GET", path=MODELS, body=None)
        self.network.pass_time(15.0)
        self.assertEqual((len(self.provider.peers), joined.end), (1, ""))
        later = self.ask("Cache-Control: max-age=40", method="GET", path=MODELS, body=None)
        self.assertEqual(len(self.provider.peers), 2)
        self.provider.last.send(answer("Cache-Control: max-age=100", body=b"[3]"))
        self.assertEqual(parse_response(later.take()).body, b"[3]")
        self.network.pass_time(16.0)
        self.assertNotEqual(joined.end, "")
        self.assertFalse(parse_response(joined.take()).complete)
        self.assertEqual(self.provider.peers[0].end, "reset")
        told = [(r.request_id.endswith("-refresh"), r.outcome, r.cache) for r in self.events.records[2:]]
        self.assertEqual(
            sorted(told),
            [(False, "complete", "stored"), (False, "truncated", "coalesced"), (True, "truncated", "miss")],
        )
        self.assertEqual(self.hit().body, b"[3]")

    def test_a_refresh_that_does_not_come(self) -> None:
        """It ends with the process."""
        self.fill(data=answer("Cache-Control: max-age=10, stale-while-revalidate=60", body=b"[1]"))
        self.network.pass_time(11.0)
        self.ask(method="GET", path=MODELS, body=None)
        self.successResultOf(self.proxy._parts.caching.stopService())  # type: ignore[union-attr]
        self.network.flow()
        self.assertEqual(self.provider.last.end, "reset")
        self.assertEqual(self.events.records[-1].outcome, "cancelled")

    def test_a_refresh_that_has_begun(self) -> None:
        """It ends with the process too."""
        self.fill(data=answer("Cache-Control: max-age=10, stale-while-revalidate=60", body=b"[1]"))
        self.network.pass_time(11.0)
        self.ask(method="GET", path=MODELS, body=None)
        self.provider.last.send(answer("Cache-Control: max-age=10", body=b"[2]")[:-1])
        self.successResultOf(self.proxy._parts.caching.stopService())  # type: ignore[union-attr]
        self.network.flow()
        self.assertEqual(self.provider.last.end, "reset")
        self.assertEqual(self.events.records[-1].outcome, "cancelled")


class Variants(Caching):
    def test_by_what_the_provider_names(self) -> None:
        """A client gets what was meant for requests like its own."""
        french, german = (
            answer("Cache-Control: max-age=60", "Vary: Accept-Language", body=b) for b in (b"[1]", b"[2]")
        )
        self.fill("Accept-Language: fr", data=french)
        self.fill("Accept-Language: de", data=german)
        self.assertEqual(self.hit("Accept-Language: fr").body, b"[1]")
        self.assertEqual(self.hit("Accept-Language: de", "X-Other: 1").body, b"[2]")
        self.assertIsNone(self.get())

    def test_an_encoding_that_the_client_does_not_take(self) -> None:
        """It is not given one, though the provider forgot C{Vary}."""
        coded = answer("Cache-Control: max-age=60", "Content-Encoding: gzip", body=gzip.compress(b"{}"))
        self.fill("Accept-Encoding: gzip", data=coded)
        self.hit("Accept-Encoding: gzip")
        self.assertIsNone(self.get())

    def test_changes(self) -> None:
        """A request that changes something makes all variants doubtful."""
        self.fill("Accept-Language: fr", data=answer("Cache-Control: max-age=60", "Vary: Accept-Language"))
        self.assertIsNone(self.get(method="POST", path=MODELS, body=b"{}"))
        self.answered(answer(status="500 No"))
        self.hit("Accept-Language: fr")
        self.assertIsNone(self.get(method="POST", path=MODELS, body=b"{}"))
        self.answered(answer())
        self.assertIsNone(self.get("Accept-Language: fr"))

    def test_changes_elsewhere(self) -> None:
        """So are the places that the answer names."""
        self.fill()
        self.assertIsNone(self.get(method="POST", path=CHAT, body=b"{}"))
        self.answered(answer("Location: /v1/models", status="201 Created"))
        self.assertIsNone(self.get())


class OptingIn(Caching):
    def post(self, *lines: str, body: bytes = b'{"model": "m"}', **parts: Any) -> Response | None:
        return self.get(*lines, **{"method": "POST", "path": CHAT, "body": body, **parts})

    def test_a_post_that_does_not(self) -> None:
        """Nobody's conversation is kept unasked."""
        for lines in ([], ["Cache-Control: max-age=60"], ["Cache-Control: public"], ["Cache-Control: no-cache"]):
            for _ in range(2):
                self.assertIsNone(self.post(*lines))
                self.assertEqual(self.answered(answer())["X-Cache-Status"], "bypass")

    def test_a_post_that_does(self) -> None:
        """The same body is answered again, for as long as was asked for."""
        for wish in (OPT_IN, "Cache-Control: s-maxage=60"):
            self.restart()
            self.assertIsNone(self.post(wish))
            self.assertEqual(self.answered(answer(body=b"[1]"))["X-Cache-Status"], "stored")
            got = self.post(wish)
            assert got is not None
            self.assertEqual((got.body, got["X-Cache-Status"]), (b"[1]", "hit"))
            self.assertEqual(self.events.records[-1].model, "m")
            self.assertIsNone(self.post(wish, body=b'{"model": "m" }'))
            self.answered(answer())
            self.network.pass_time(61.0)
            self.assertIsNone(self.post(wish))

    def test_a_younger_one_is_wanted(self) -> None:
        """C{max-age} is also how old an answer may be."""
        self.assertIsNone(self.post(OPT_IN))
        self.answered(answer())
        self.network.pass_time(10.0)
        self.assertIsNone(self.post("Cache-Control: public, max-age=5"))

    def test_the_provider_has_the_last_word(self) -> None:
        """What it forbids is not kept, whatever the client says."""
        for said in ("no-store", "private", "max-age=0", "no-cache"):
            self.assertIsNone(self.post(OPT_IN))
            self.answered(answer(f"Cache-Control: {said}"))
            self.assertIsNone(self.post(OPT_IN))
            self.answered(answer(f"Cache-Control: {said}"))

    def test_no_conditions_of_our_own(self) -> None:
        """On a C{POST} they would mean something else: one that is stale is sent again as it came."""
        valid = answer('ETag: "x"', "Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT", body=b"[1]")
        self.assertIsNone(self.post(OPT_IN))
        self.answered(valid)
        self.network.pass_time(61.0)
        self.assertIsNone(self.post(OPT_IN))
        self.assertNotIn("If-", "".join(self.forwarded_request()[1]))
        self.assertEqual(self.answered(valid)["Cache-Status"], "llmproxy; fwd=stale; stored")
        self.network.pass_time(61.0)
        self.assertIsNone(self.post(OPT_IN, 'If-None-Match: "y"'))
        self.assertIn('If-None-Match: "y"', self.forwarded_request()[1])
        got = self.answered(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n')
        self.assertEqual((got.status, got["X-Cache-Status"]), (304, "miss"))

    def test_stale_ones_are_soon_forgotten(self) -> None:
        """Nothing is kept for a revalidation that never comes."""
        self.assertIsNone(self.post(OPT_IN))
        self.answered(answer('ETag: "x"'))
        self.network.pass_time(60.0 + 60.0 + 32.0)
        caching = self.proxy._parts.caching
        assert caching is not None
        self.assertEqual(self.successResultOf(caching.state.storage.cache.usage()).entries, 0)

    def test_failures_are_not_kept(self) -> None:
        """The next one may succeed."""
        for status in ("400 Bad Request", "429 Too Many", "500 No"):
            self.assertIsNone(self.post(OPT_IN))
            self.answered(answer(status=status))
            self.assertIsNone(self.post(OPT_IN))
            self.answered(answer(status=status))

    def test_always(self) -> None:
        """An operator may have all answers of an API kept, unless the client says no."""
        self.restart(cache={"post": "always", "ttl": 30.0})
        self.assertIsNone(self.post())
        self.answered(answer())
        self.assertIsNotNone(self.post())
        for no in ("no-cache", "no-store"):
            self.assertIsNone(self.post(f"Cache-Control: {no}"))
            self.answered(answer())
        self.network.pass_time(31.0)
        self.assertIsNone(self.post())

    def test_never(self) -> None:
        """An operator may have none kept."""
        self.restart(cache={"post": "never"})
        self.assertIsNone(self.post(OPT_IN))
        self.answered(answer())
        self.assertIsNone(self.post(OPT_IN))

    def test_a_body_in_pieces(self) -> None:
        """It is read whole before it is looked up, and reaches the provider whole."""
        client = self.client()
        sent = request(OPT_IN, body=b"0123456789")
        client.send(sent[:-5])
        self.assertEqual(self.provider.peers, [])
        client.send(sent[-5:])
        self.assertEqual(self.forwarded_request()[2], b"0123456789")
        self.provider.last.send(answer())
        self.assertIsNotNone(self.post(OPT_IN, body=b"0123456789"))

    def test_a_body_that_is_not_announced(self) -> None:
        """It is not held up for the cache's sake."""
        client = self.client()
        client.send(request(OPT_IN, "Transfer-Encoding: chunked", body=None) + chunk(b"first"))
        self.assertTrue(self.forwarded_request()[2].endswith(b"first\r\n"))
        client.send(b"0\r\n\r\n")
        self.provider.last.send(answer())
        self.assertEqual(parse_response(client.take())["X-Cache-Status"], "bypass")


class Tenants(Caching):
    """Two projects, two tokens in one of them, and everything that a client may send."""

    THIRD = "sk-lp-" + "3" * 43

    STEERING = (
        "X-Project-ID: project-1", "X-LLMProxy-Project: project-1", "X-Cache-Key: k", "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Host: a", "X-Original-URL: /v1/models", "X-Rewrite-URL: /v1/models", "Forwarded: host=a",
        "Cookie: llmproxy=project-1", "X-Token-ID: token-1", "X-Cache-Tenant: project-1", "Via: 1.1 a",
        "OpenAI-Project: project-1", "OpenAI-Organization: project-1", "X-HTTP-Method-Override: GET", "X-Tenant: a",
        "Cache-Control: max-stale", "Cache-Control: only-if-cached, max-stale", "Surrogate-Capability: a=1",
        "X-Request-ID: project-1", "X-Api-Version: 1", "Connection: authorization", "X-Cache-Status: hit",
        "If-None-Match: *", "X-Amz-Cf-Id: 1", "X-Vary: a", "Vary: *", "Origin: https://a.example", "Pragma: x",
    )  # fmt: skip

    def setUp(self) -> None:
        super().setUp()
        self.tokens.grants[self.THIRD] = Grant("project-1", token_id="token-3")

    def mine(self, **parts: Any) -> None:
        self.fill(data=answer("Cache-Control: public, max-age=60", 'ETag: "x"', body=b'"mine"'), **parts)

    def test_another_project_never_gets_it(self) -> None:
        """Whatever header it sends."""
        self.mine()
        for line in self.STEERING:
            got = self.get(line, token=OTHER)
            if got is None:
                got = self.answered(answer(body=b'"yours"'))
            self.assertNotIn(b"mine", got.body, line)
            self.assertNotIn("hit", got.all("X-Cache-Status"), line)
        self.assertEqual(self.hit().body, b'"mine"')

    def test_nor_by_anything_in_its_query(self) -> None:
        """A key in the query is no part of what is asked for."""
        self.restart(query_key=True)
        self.mine(path=MODELS + "?a=1")
        self.assertIsNone(self.get(path=f"{MODELS}?a=1&key={OTHER}", token=None))
        self.answered(answer())
        self.assertEqual(self.hit(path=f"{MODELS}?a=1&key={TOKEN}", token=None).body, b'"mine"')

    def test_another_token_of_the_project_does(self) -> None:
        """They share what the project's key has brought."""
        self.mine()
        self.assertEqual(self.hit(token=self.THIRD).body, b'"mine"')

    def test_not_where_tokens_are_separate(self) -> None:
        """C{scope: token}: then C{private} answers are kept too."""
        self.cache = {"scope": "token"}
        self.restart()
        self.fill(data=answer("Cache-Control: private, max-age=60"))
        self.assertIsNone(self.get(token=self.THIRD))
        self.answered(answer())
        self.hit()

    def test_tokens_that_nobody_knows(self) -> None:
        """C{scope: token} with a validator that only tells projects: nothing is kept."""
        self.cache = {"scope": "token"}
        self.restart()
        self.tokens.grants[TOKEN] = "project-1"
        self.assertEqual(self.fill()["X-Cache-Status"], "bypass")

    def test_everybody_where_the_operator_says_so(self) -> None:
        """C{scope: shared}, and only what the provider calls public."""
        self.cache = {"scope": "shared"}
        self.restart()
        self.mine()
        self.assertEqual(self.hit(token=OTHER).body, b'"mine"')
        self.restart()
        self.fill()
        self.assertIsNone(self.get(token=OTHER))

    def test_versions_of_a_providers_api(self) -> None:
        """An answer to another version's request is another answer."""
        self.fill("anthropic-version: 2023-06-01")
        self.assertIsNone(self.get("anthropic-version: 2026-10-21"))
        self.answered(FRESH)
        self.hit("Anthropic-Version: 2023-06-01")


class Elsewhere:
    """The same with a cache that only speaks bytes, as one in another process."""

    def _start(self, *args: Any, **settings: Any) -> None:
        super()._start(*args, **settings)  # type: ignore[misc]
        self.far = Far(self.network)  # type: ignore[attr-defined]
        caching = self.proxy._parts.caching  # type: ignore[attr-defined]
        if caching is not None:
            caching.state.storage.cache.stopService()
            caching.state.storage = CacheStorage(self.far, caching.state.now)

    def _finish(self) -> None:
        self.far.inner.stopService()
        super()._finish()  # type: ignore[misc]


class HitsInAPlugin(Hits):
    """The same with an in-process cache of somebody else's."""

    def _start(self, *args: Any, **settings: Any) -> None:
        super()._start(*args, **settings)
        caching = self.proxy._parts.caching
        if caching is not None:
            caching.state.storage.cache.stopService()  # type: ignore[attr-defined]
            caching.state.storage = CacheStorage(PluginCache(self.network), caching.state.now)


class HitsElsewhere(Elsewhere, Hits):
    def test_a_cache_that_takes_its_time(self) -> None:
        """A request waits for it; a client that leaves does not, and the provider is not asked."""
        self.far.get = lambda key: Deferred()  # type: ignore[method-assign]
        clients = [self.ask(method="GET", path=MODELS, body=None) for _ in range(2)]
        self.assertEqual(self.provider.peers, [])
        for client in clients:
            client.reset()
        self.assertEqual([record.outcome for record in self.events.records], ["cancelled", "cancelled"])
        self.assertEqual(self.provider.peers, [])


class RevalidationElsewhere(Elsewhere, Revalidation):
    pass


class VariantsElsewhere(Elsewhere, Variants):
    pass


class Dates(Caching):
    def test_a_response_without_one(self) -> None:
        """It passes as it came; what is stored of it says when that was."""
        at = formatdate(1_000_000.0 + self.network.seconds(), usegmt=True)
        self.assertEqual(self.fill().all("Date"), [])
        self.network.pass_time(5.5)
        got = self.hit()
        self.assertEqual((got.all("Date"), got["Age"]), ([at], "5"))

    def test_what_the_providers_clock_says(self) -> None:
        """C{Expires} and C{Date} are taken at their word."""
        now = 1_000_000.0 + self.network.seconds()
        date, expires = (formatdate(now + more, usegmt=True) for more in (-5.0, 25.0))
        self.fill(data=answer(f"Date: {date}", f"Expires: {expires}"))
        self.network.pass_time(20.0)
        self.assertEqual(self.hit()["Age"], "25")
        self.network.pass_time(5.0)
        self.assertIsNone(self.get())
