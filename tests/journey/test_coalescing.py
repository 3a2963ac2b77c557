"""The same request from many at once: one call to the provider, and nobody's business is anybody else's."""

from __future__ import annotations

import gzip
from typing import Any

from tests.journey.test_caching import FRESH, MODELS, OPT_IN, answer
from tests.support.network import Peer
from tests.support.proxy_case import CHAT, KEY, OTHER, STREAM, TOKEN, ProxyTestCase, chunk, request
from tests.support.responses import parse_response

BODY = b'{"model": "m", "stream": true}'
DONE = b"data: [DONE]\n\n"
EVENTS = [b'data: {"n": %d}\n\n' % n for n in range(5)]


class Joining(ProxyTestCase):
    cache = {"streams": True}  # noqa: RUF012

    def stream(self, *lines: str, **parts: Any) -> Peer:
        return self.ask(OPT_IN, *lines, **{"path": CHAT, "body": BODY, **parts})

    def calls(self) -> int:
        """How many the provider has got."""
        return sum(bytes(peer.received).count(b" HTTP/1.1\r\n") for peer in self.provider.peers)

    def send(self, *events: bytes, end: bool = False) -> None:
        for event in events:
            self.provider.last.send(chunk(event))
        if end:
            self.provider.last.send(b"0\r\n\r\n")

    def test_many_at_once(self) -> None:
        """One call, and everybody gets every byte, in pieces as they come; later the cache has it."""
        clients = [self.stream() for _ in range(100)]
        self.provider.last.send(STREAM)
        self.send(*EVENTS[:2])
        late = [self.stream() for _ in range(20)]
        self.assertEqual(parse_response(bytes(late[0].received)).body, b"".join(EVENTS[:2]))
        self.send(*EVENTS[2:], DONE, end=True)
        whole = b"".join([*EVENTS, DONE])
        got = [parse_response(client.take()) for client in [*clients, *late]]
        self.assertEqual({(r.status, r.body, r.complete) for r in got}, {(200, whole, True)})
        self.assertEqual(self.calls(), 1)
        self.assertEqual(len(got[0].chunks), 6)
        self.assertEqual([r["X-Cache-Status"] for r in got], ["stored"] + ["coalesced"] * 119)
        self.assertIn("collapsed", got[1]["Cache-Status"])
        again = parse_response(self.stream().take())
        self.assertEqual((again.body, again["X-Cache-Status"], again.complete), (whole, "hit", True))
        self.assertEqual(self.calls(), 1)
        self.assertEqual(self.tokens.counted, [TOKEN])
        self.assertEqual(self.proxy.metrics().cache_hits, 120)

    def test_before_there_is_an_answer(self) -> None:
        """Whoever comes while the provider thinks waits with the others."""
        first, second = self.stream(), self.stream()
        self.provider.last.send(STREAM + chunk(EVENTS[0]))
        for client in (first, second):
            self.assertEqual(parse_response(bytes(client.received)).body, EVENTS[0])
        self.assertEqual(self.calls(), 1)

    def test_the_first_leaves(self) -> None:
        """The others do not notice; what it has cost is told in its record once all is over."""
        for leave in (Peer.reset, Peer.close):
            self.restart()
            first, second = self.stream(), self.stream()
            leave(first)
            self.assertEqual(self.events.records, [])
            self.provider.last.send(STREAM)
            self.send(*EVENTS, DONE, end=True)
            self.assertEqual(parse_response(second.take()).body, b"".join([*EVENTS, DONE]))
            self.assertEqual(sorted(r.outcome for r in self.events.records), ["cancelled", "complete"])

    def test_the_first_leaves_in_the_middle(self) -> None:
        """Likewise once it has begun."""
        first, second = self.stream(), self.stream()
        self.provider.last.send(STREAM)
        self.send(*EVENTS[:2])
        first.reset()
        self.assertEqual((self.provider.last.end, self.events.records), ("", []))
        self.send(*EVENTS[2:], DONE, end=True)
        self.assertEqual(parse_response(second.take()).body, b"".join([*EVENTS, DONE]))
        self.assertEqual(sorted(r.outcome for r in self.events.records), ["cancelled", "complete"])

    def test_the_last_leaves(self) -> None:
        """Then the provider is stopped at once, whether or not it had begun."""
        for begun in (False, True):
            self.restart()
            clients = [self.stream() for _ in range(3)]
            if begun:
                self.provider.last.send(STREAM + chunk(EVENTS[0]))
            for client in clients:
                self.assertEqual(self.provider.last.end, "")
                client.reset()
            self.assertEqual(self.provider.last.end, "reset")
            self.assertEqual([r.outcome for r in self.events.records], ["cancelled"] * 3)
            self.stream()
            self.assertEqual(self.calls(), 2)
            self.provider.peers.clear()

    def test_a_slow_reader(self) -> None:
        """It holds up nobody, and gets all of it."""
        slow, quick = self.stream(), self.stream()
        slow.pause()
        self.provider.last.send(STREAM)
        events = [b"data: " + b"x" * 10_000 + b"\n\n"] * 20
        self.send(*events, DONE, end=True)
        self.assertTrue(parse_response(quick.take()).complete)
        self.assertLess(len(slow.received) + len(slow.transport.inbox) + len(slow.transport.other.unsent), 100_000)
        slow.resume()
        self.assertEqual(parse_response(slow.take()).body, b"".join([*events, DONE]))

    def test_all_are_slow(self) -> None:
        """Then the provider is made to wait."""
        clients = [self.stream(), self.stream()]
        for client in clients:
            client.pause()
        self.provider.last.send(STREAM)
        for _ in range(40):
            self.provider.last.send(chunk(b"data: " + b"x" * 10_000 + b"\n\n"))
        self.assertGreater(self.provider.last.unsent, 100_000)
        clients[0].resume()
        self.assertEqual(self.provider.last.unsent, 0)

    def test_a_slow_reader_of_what_is_too_large(self) -> None:
        """Once it cannot be kept, nobody waits for one that lies a megabyte behind: it is cut, the others go on."""
        self.cache = {"streams": True, "max_object_bytes": 50_000}
        self.restart()
        slow, quick = self.stream(), self.stream()
        slow.pause()
        self.provider.last.send(STREAM)
        events = [b"data: " + b"x" * 50_000 + b"\n\n"] * 30
        self.send(*events)
        self.assertEqual(self.calls(), 1)
        later = self.stream()
        self.assertEqual(self.calls(), 2)
        del self.provider.peers[-1]
        self.send(DONE, end=True)
        self.assertEqual(len(parse_response(quick.take()).body), sum(map(len, [*events, DONE])))
        slow.resume()
        self.assertFalse(parse_response(slow.take()).complete)
        outcomes = sorted((r.outcome, r.error) for r in self.events.records)
        self.assertEqual(outcomes, [("cancelled", "client_stalled"), ("complete", "")])
        later.reset()

    def test_an_answer_for_one_alone(self) -> None:
        """What may not be shared is not: everybody asks for himself."""
        clients = [self.ask(method="GET", path=MODELS, body=None) for _ in range(3)]
        self.assertEqual(self.calls(), 1)
        self.provider.peers[0].send(answer("Cache-Control: no-store", body=b'"1"'))
        self.assertEqual(self.calls(), 3)
        for number, peer in enumerate(self.provider.peers):
            if number:
                peer.send(answer("Cache-Control: no-store", body=b'"%d"' % (number + 1)))
            elif peer.received.count(b" HTTP/1.1") > 1:
                peer.send(answer("Cache-Control: no-store", body=b'"again"'))
        bodies = [parse_response(client.take()).body for client in clients]
        self.assertEqual((bodies[0], len(set(bodies))), (b'"1"', 3))

    def test_variants(self) -> None:
        """One who would have been answered otherwise asks for himself."""
        french = self.ask("Accept-Language: fr", method="GET", path=MODELS, body=None)
        german = self.ask("Accept-Language: de", method="GET", path=MODELS, body=None)
        self.assertEqual(self.calls(), 1)
        self.provider.peers[0].send(answer("Cache-Control: max-age=9", "Vary: Accept-Language", body=b'"fr"'))
        self.assertEqual(parse_response(french.take()).body, b'"fr"')
        self.assertEqual(self.calls(), 2)
        self.provider.last.send(answer("Cache-Control: max-age=9", "Vary: Accept-Language", body=b'"de"'))
        self.assertEqual(parse_response(german.take()).body, b'"de"')

    def test_an_answer_that_must_be_asked_for_each_time(self) -> None:
        """It is kept, but whoever waits must ask whether it is true for himself."""
        clients = [self.ask(method="GET", path=MODELS, body=None) for _ in range(2)]
        self.provider.last.send(answer("Cache-Control: no-cache", 'ETag: "x"', body=b'"x"'))
        self.assertEqual(parse_response(clients[0].take())["X-Cache-Status"], "stored")
        self.assertEqual(self.calls(), 2)
        self.provider.last.send(answer("Cache-Control: no-cache", 'ETag: "y"', body=b'"y"'))
        self.assertEqual(parse_response(clients[1].take()).body, b'"y"')

    def test_an_answer_that_is_not_what_the_other_wants(self) -> None:
        """One who wants it fresher asks for himself."""
        first = self.ask(method="GET", path=MODELS, body=None)
        second = self.ask("Cache-Control: min-fresh=60", method="GET", path=MODELS, body=None)
        self.provider.last.send(answer("Cache-Control: max-age=30"))
        self.assertEqual(parse_response(first.take()).status, 200)
        self.assertEqual(self.calls(), 2)
        second.reset()

    def test_a_key_in_what_everybody_may_be_given(self) -> None:
        """With C{scope: shared} the provider's key is starred out of any answer that others get."""
        self.cache = {"scope": "shared"}
        self.restart()
        clients = [self.ask(method="GET", path=MODELS, body=None, token=token) for token in (TOKEN, OTHER)]
        self.assertEqual(self.calls(), 1)
        self.provider.last.send(answer("Cache-Control: public, max-age=9", body=KEY.encode()))
        for client in clients:
            self.assertEqual(parse_response(client.take()).body, b"*" * len(KEY))

    def test_a_key_in_a_coding(self) -> None:
        """It cannot be starred out there while the rest goes on: nobody joins a coded answer that everybody might."""
        self.cache = {"scope": "shared"}
        coded = ("Cache-Control: public, max-age=9", "Content-Encoding: gzip")
        for body in (gzip.compress(b'{"you_sent":"%b"}' % KEY.encode()), gzip.compress(b"{}")):
            self.restart()
            self.provider.peers.clear()
            mine, theirs = (self.ask(method="GET", path=MODELS, body=None, token=token) for token in (TOKEN, OTHER))
            self.assertEqual(self.calls(), 1)
            self.provider.last.send(answer(*coded, body=body))
            self.assertEqual(parse_response(mine.take()).body, body)
            self.assertEqual((self.calls(), theirs.take()), (2, b""))
            self.provider.last.send(answer(*coded, body=gzip.compress(b"[]")))
            self.assertEqual(parse_response(theirs.take()).body, gzip.compress(b"[]"))
            later = self.ask(method="GET", path=MODELS, body=None, token=OTHER)
            self.assertEqual((self.calls(), parse_response(later.take())["X-Cache-Status"]), (2, "hit"))

    def test_nobody_keeps_a_hung_response_going(self) -> None:
        """One that has been silent, or has taken, longer than a client would wait is joined by nobody."""
        for seconds, more in ((1.0, b""), (4.0, EVENTS[1])):
            self.restart(timeouts={"idle": 5.0, "stream": 30.0})
            self.provider.peers.clear()
            first = self.stream()
            self.provider.last.send(STREAM + chunk(EVENTS[0]))
            for number in range(8):
                if number == 4:
                    second = self.stream()
                self.network.pass_time(seconds)
                self.provider.last.send(chunk(more) if more else b"")
            self.assertEqual((first.end != "", second.end, self.calls()), (True, "", 1))
            third = self.stream()
            self.assertEqual(self.calls(), 2)
            self.provider.last.send(STREAM + chunk(DONE) + b"0\r\n\r\n")
            self.assertEqual(parse_response(third.take()).body, DONE)

    def test_what_belongs_to_the_first_alone(self) -> None:
        """Who joins gets the fields that a hit would have."""
        head = ("Set-Cookie: session=1", "x-ratelimit-remaining-requests: 17", "x-request-id: r1", "Retry-After: 1")
        for length in ((), ("Transfer-Encoding: chunked",)):
            self.restart()
            first, second = (self.ask(method="GET", path=MODELS, body=None) for _ in range(2))
            whole = answer("Cache-Control: max-age=9", "ETag: 1", *head, *length, body=b"{}")
            if length:
                whole = whole.replace(b"\r\nContent-Length: 2", b"").replace(b"{}", chunk(b"{}"))
            self.provider.last.send(whole)
            self.network.pass_time(2.0)
            late = self.ask(method="GET", path=MODELS, body=None)
            if length:
                self.provider.last.send(b"0\r\n\r\n")
            hit = self.ask(method="GET", path=MODELS, body=None)
            mine, *theirs = (parse_response(client.take()) for client in (first, second, late, hit))
            own = ("Set-Cookie", "x-ratelimit-remaining-requests", "X-Upstream-Request-ID", "Retry-After")
            self.assertEqual([mine[name] for name in own], ["session=1", "17", "r1", "1"])
            for got in theirs:
                self.assertEqual(([got.all(name) for name in own], got.body, got["ETag"]), ([[]] * 4, b"{}", "1"))
            self.assertEqual([got["Age"] for got in theirs], ["0", "2", "2"])

    def test_tenants(self) -> None:
        """Nobody joins another project's call."""
        self.stream()
        self.stream(token=OTHER)
        self.assertEqual(self.calls(), 2)

    def test_the_provider_fails(self) -> None:
        """All are told, without asking once more each."""
        clients = [self.stream() for _ in range(3)]
        self.provider.last.reset()
        self.assertEqual([parse_response(c.take()).status for c in clients], [502, 502, 502])
        self.assertEqual(self.calls(), 1)

    def test_the_first_may_not_call(self) -> None:
        """That one's token is used up is no reason to refuse the others."""
        from llmproxy import errors

        uses = 0

        async def spend(token: str) -> Any:
            nonlocal uses
            uses += 1
            if uses == 1:
                raise errors.QuotaExceeded
            return await self.tokens.validate_token(token)

        waiting: list[Any] = []
        key = self.projects.keys["project-1"]
        from twisted.internet.defer import Deferred

        self.projects.keys["project-1"] = slow = Deferred()
        self.tokens.validate_token_with_tracking = spend  # type: ignore[method-assign]
        first, second = self.stream(), self.stream()
        self.projects.keys["project-1"] = key
        slow.callback(key)
        self.network.flow()
        del waiting
        self.assertEqual(parse_response(first.take()).status, 429)
        self.provider.last.send(STREAM + chunk(DONE) + b"0\r\n\r\n")
        self.assertEqual(parse_response(second.take()).status, 200)

    def test_a_cut_stream(self) -> None:
        """All see that it is cut, and nothing is kept."""
        clients = [self.stream(), self.stream()]
        self.provider.last.send(STREAM + chunk(EVENTS[0]))
        self.provider.last.reset()
        for client in clients:
            got = parse_response(client.take())
            self.assertEqual((got.body, got.complete, client.end != ""), (EVENTS[0], False, True))
        self.assertEqual([r.outcome for r in self.events.records], ["truncated", "truncated"])
        self.stream()
        self.assertEqual(len(self.provider.peers), 2)

    def test_switched_off(self) -> None:
        """Then everybody makes his own call."""
        self.cache = {"streams": True, "coalesce": False}
        self.restart()
        self.stream()
        self.stream()
        self.assertEqual(self.calls(), 2)

    def test_a_plain_answer(self) -> None:
        """It need not be a stream."""
        clients = [self.ask(method="GET", path=MODELS, body=None) for _ in range(3)]
        self.provider.last.send(FRESH)
        statuses = [parse_response(client.take())["X-Cache-Status"] for client in clients]
        self.assertEqual(statuses, ["stored", "coalesced", "coalesced"])

    def test_revalidation(self) -> None:
        """One question to the provider is enough for all."""
        self.ask(method="GET", path=MODELS, body=None)
        self.provider.last.send(answer("Cache-Control: max-age=5", 'ETag: "x"', body=b'"x"'))
        self.network.pass_time(6.0)
        self.provider.last.take()
        clients = [self.ask(method="GET", path=MODELS, body=None) for _ in range(3)]
        self.assertEqual(self.calls(), 1)
        self.provider.last.send(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        self.assertEqual([parse_response(c.take()).body for c in clients], [b'"x"'] * 3)


class Streams(ProxyTestCase):
    """Which streams are kept, and how they are given again."""

    cache = {"streams": True}  # noqa: RUF012

    def kept(self, stream: bytes, *lines: str, provider: str = "openai", cut: bool = False) -> bool:
        """Whether a stream that the provider sends is given to the next one who asks."""
        self.restart(provider=provider)
        self.provider.peers.clear()
        client = self.ask(OPT_IN, body=BODY)
        self.provider.last.send(
            STREAM[:-2] + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + chunk(stream)
        )
        if cut:
            self.provider.last.reset()
        else:
            self.provider.last.send(b"0\r\n\r\n")
        self.assertEqual(parse_response(client.take()).body, stream)
        before = len(self.events.records)
        again = self.ask(OPT_IN, body=BODY)
        hit = len(self.events.records) > before
        if hit:
            self.assertEqual(parse_response(again.take()).body, stream)
        self.assertEqual(self.events.records[0].cache, "stored" if hit else "miss")
        return hit

    def test_complete_ones(self) -> None:
        """As each provider ends them."""
        event = b"data: {}\n\n"
        self.assertTrue(self.kept(event + DONE))
        self.assertTrue(self.kept(event + DONE, provider="mistral"))
        self.assertTrue(
            self.kept(event + b'event: message_stop\ndata: {"type":"message_stop"}\n\n', provider="anthropic")
        )
        self.assertTrue(self.kept(b'event: response.completed\ndata: {"type":"response.completed"}\n\n'))
        self.assertTrue(self.kept(b"data: {}\r\n\r\n", provider="google"))
        self.assertTrue(self.kept(event + DONE, provider="generic"))
        self.assertTrue(self.kept(event + DONE, "Cache-Control: no-cache"))

    def test_incomplete_ones(self) -> None:
        """Half an answer is never given as a whole one."""
        event = b"data: {}\n\n"
        self.assertFalse(self.kept(event))
        self.assertFalse(self.kept(event + DONE, cut=True))
        self.assertFalse(self.kept(event + DONE, provider="anthropic"))
        self.assertFalse(self.kept(b'data: {"error": {"message": "x"}}\n\n' + DONE))
        self.assertFalse(self.kept(event + b'data: {"id":"a","error":{"message":"x"},"choices":[]}\n\n' + DONE))
        self.assertFalse(self.kept(b"data: {}\r\n\r\n", provider="google", cut=True))
        self.assertFalse(self.kept(event, provider="generic"))
        self.assertFalse(self.kept(event + DONE, "Cache-Control: no-store"))

    def test_not_unless_the_operator_says_so(self) -> None:
        """C{streams: false} is the default."""
        self.cache = {}
        self.assertFalse(self.kept(DONE))

    def test_too_large(self) -> None:
        """A stream beyond C{max_object_bytes} passes and is not kept."""
        self.cache = {"streams": True, "max_object_bytes": 100}
        self.assertFalse(self.kept(b": " + b"x" * 200 + b"\n\n" + DONE))

    def test_at_its_own_pace(self) -> None:
        """C{replay: timed}: the pieces come as they came, and no gap is longer than two seconds."""
        self.cache = {"streams": True, "replay": "timed"}
        self.restart()
        client = self.ask(OPT_IN, body=BODY)
        self.provider.last.send(STREAM)
        for event, wait in ((b"data: 1\n\n", 0.5), (b"data: 2\n\n", 10.0), (DONE, 0.0)):
            self.provider.last.send(chunk(event))
            self.network.pass_time(wait)
        self.provider.last.send(b"0\r\n\r\n")
        client.take()
        again = self.ask(OPT_IN, body=BODY)
        self.assertEqual(parse_response(bytes(again.received)).body, b"data: 1\n\n")
        self.network.pass_time(0.5)
        self.assertEqual(parse_response(bytes(again.received)).body, b"data: 1\n\ndata: 2\n\n")
        self.network.pass_time(1.9)
        self.assertFalse(parse_response(bytes(again.received)).complete)
        self.network.pass_time(0.2)
        got = parse_response(again.take())
        self.assertEqual((got.body, got.complete, len(got.chunks)), (b"data: 1\n\ndata: 2\n\n" + DONE, True, 3))

    def test_leaving_a_replay(self) -> None:
        """Nothing goes on without a client."""
        self.test_at_its_own_pace()
        client = self.ask(OPT_IN, body=BODY)
        client.reset()
        self.assertEqual(self.events.records[-1].outcome, "cancelled")


class Truncated(ProxyTestCase):
    def test_a_body_that_is_cut(self) -> None:
        """Neither one that ends before its length, nor one whose end cannot be told, is kept."""
        for data in (
            answer("Cache-Control: max-age=60", body=b"0123456789")[:-3],
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nall of it, perhaps",
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        ):
            self.restart()
            self.provider.peers.clear()
            self.ask(method="GET", path=MODELS, body=None)
            self.provider.last.send(data)
            self.provider.last.close()
            self.ask(method="GET", path=MODELS, body=None)
            self.assertEqual(len(self.provider.peers), 2, data)

    def test_a_body_that_is_too_large(self) -> None:
        """Whether it says so first, or turns out to be."""
        self.cache = {"max_object_bytes": 1000}
        chunked = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
        for data in (
            answer("Cache-Control: max-age=60", body=b"x" * 1001),
            chunked + chunk(b"x" * 600) + chunk(b"x" * 600) + b"0\r\n\r\n",
        ):
            self.restart()
            self.provider.peers.clear()
            client = self.ask(method="GET", path=MODELS, body=None)
            self.provider.last.send(data)
            self.assertGreater(len(parse_response(client.take()).body), 1000)
            self.assertEqual(self.events.records[-1].cache, "miss")
            self.provider.last.take()
            self.ask(method="GET", path=MODELS, body=None)
            self.assertIn(b"GET", bytes(self.provider.last.received))
            self.assertEqual(self.proxy._parts.caching.state.in_flight.buffered, 0)  # type: ignore[union-attr]


__all__ = ["request"]
