"""Requests that ask for the same at the same time, of which some go the short way: nobody notices that."""

from __future__ import annotations

import gzip
import re
from dataclasses import asdict
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from llmproxy.model import Allowance, Grant
from tests.journey.test_fast_path import (
    FOR_A_MINUTE,
    GRANTS,
    JSON,
    SAID,
    USAGE,
    SlowCounters,
    WaysCase,
    unframed,
    whole,
)
from tests.support.examples import examples
from tests.support.network import Peer
from tests.support.proxy_case import KEY, STREAM, TOKEN, chunk, request
from tests.unit.metering.samples import CHAT_USAGE, events

KEPT = whole(USAGE, FOR_A_MINUTE)
ANSWERS: dict[str, tuple[bytes | None, ...]] = {
    "to keep": (KEPT,),
    "without a word": (JSON,),
    "in pieces": (JSON[:40], JSON[40:190], JSON[190:]),
    "not to be kept": (whole(USAGE, "Cache-Control: no-store"),),
    "private": (whole(USAGE, "Cache-Control: private"),),
    "varies": (whole(USAGE, FOR_A_MINUTE, "Vary: traceparent"),),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunk(USAGE)
        + b"0\r\n\r\n",
    ),
    "stream at once": (STREAM + chunk(SAID + events({"usage": CHAT_USAGE}) + b"data: [DONE]\n\n") + b"0\r\n\r\n",),
    "stream": (STREAM + chunk(SAID), chunk(SAID), chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"),
    "stream that is not whole": (STREAM + chunk(SAID) + b"0\r\n\r\n",),
    "key": (whole(b'{"echo":"%b"}' % KEY.encode()),),
    "coded": (whole(gzip.compress(USAGE, mtime=0), FOR_A_MINUTE, "Content-Encoding: gzip"),),
    "coded key": (whole(gzip.compress(KEY.encode(), mtime=0), FOR_A_MINUTE, "Content-Encoding: gzip"),),
    "no gzip": (whole(USAGE, FOR_A_MINUTE, "Content-Encoding: gzip"),),
    "unknown coding": (whole(USAGE, FOR_A_MINUTE, "Content-Encoding: compress"),),
    "refused": (whole(b'{"error":{"message":"no"}}', status="400 Bad Request"),),
    "unavailable": (whole(b"{}", status="503 Service Unavailable"),),
    "throttled": (whole(b"{}", "Retry-After: 1", status="429 Too Many Requests"),),
    "gone": (None,),
    "cut": (JSON[:-5], None),
}
CLIENTS = 3
BODIES = (b'{"model":"gpt-4o","messages":[1]}', b'{"model":"gpt-4o","messages":[2],"stream":true}')
TRACES = ("traceparent: 00-0123-45-01", "traceparent: 00-ffff-ee-00")
STEP = st.one_of(
    st.tuples(
        st.just("ask"), st.integers(0, CLIENTS - 1), st.sampled_from(BODIES), st.booleans(), st.sampled_from(TRACES)
    ),
    st.tuples(st.just("answer"), st.sampled_from(sorted(ANSWERS))),
    st.tuples(st.just("leave"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 2.0, 61.0, 700.0))),
    st.tuples(st.just("purge")),
)
ALLOWANCES = {
    "free": GRANTS["free"],
    "limited": GRANTS["roomy"],
    "narrow": Grant("project-1", token_id="token-1", project_active=True, allowance=Allowance(concurrency=2)),
}
# What a response is called whose head was sent before it was cut, and one that was known to be by then.
_STORED = b"X-Cache-Status: stored\r\nX-Cache-Debug: uri-miss\r\nCache-Status: llmproxy; fwd=uri-miss; stored\r\n"
_CUT = b"X-Cache-Status: miss\r\nX-Cache-Debug: cut\r\nCache-Status: llmproxy; fwd=uri-miss\r\n"
_OWN_ID = re.compile(rb"[0-9a-f]{18}-[0-9a-f]+|\r\nDate: [^\r]*GMT")


class Crowd(WaysCase):
    """Some clients, and a provider that answers them one after the other."""

    def begin(self, fast: bool, grant: str) -> None:
        self.server = {"fast_path": fast}
        super(WaysCase, self).setUp()
        self.tokens.grants[TOKEN] = ALLOWANCES[grant]
        self.users = [self.client() for _ in range(CLIENTS)]
        self.answered = dict[Peer, int]()
        self.fresh = count(100)
        for _ in range(3):  # by which the head is known, and its token known again
            self.ask_for(0, b'{"model":"gpt-4o","messages":[%d]}' % next(self.fresh))
            self.answer("to keep")
        self.users[0].take()

    def ask_for(self, number: int, body: bytes, *, opted: bool = True, trace: str = TRACES[0]) -> None:
        if self.users[number].end:
            self.users[number] = self.client()
        lines = ["Cache-Control: public, max-age=60"] if opted else []
        self.users[number].send(request(*lines, trace, body=body))
        self.network.pass_time(self.limits_take)

    def asked(self) -> list[Peer]:
        """Those at which a request waits for its answer."""
        return [
            peer
            for peer in self.provider.peers
            if not peer.end and bytes(peer.received).count(b" HTTP/1.1\r\n") > self.answered.get(peer, 0)
        ]

    def calls(self) -> int:
        return sum(bytes(peer.received).count(b" HTTP/1.1\r\n") for peer in self.provider.peers)

    def answer(self, name: str) -> None:
        for peer in self.asked()[:1]:
            self.answered[peer] = self.answered.get(peer, 0) + 1
            for piece in ANSWERS[name]:
                if piece is None:
                    peer.close()
                elif not peer.end:
                    peer.send(piece)

    def purge(self) -> None:
        caching = self.proxy._parts.caching
        assert caching is not None
        self.successResultOf(Deferred.fromCoroutine(caching.purge("")))

    def play(self, fast: bool, grant: str, steps: list[Any]) -> list[Any]:
        """All that anybody notices."""
        self.begin(fast, grant)
        noticed: list[Any] = []
        busy = set[int]()
        for what, *said in steps:
            if what == "ask":
                number, body, opted, trace = said
                if number not in busy or self.users[number].end:
                    busy.add(number)
                    self.ask_for(number, body, opted=opted, trace=trace)
            elif what == "answer":
                self.answer(*said)
            elif what == "leave" and not self.users[said[0]].end:
                self.users[said[0]].reset()
                busy.discard(said[0])
            elif what == "wait":
                self.network.pass_time(said[0])
            elif what == "purge":
                self.purge()
            got = [unframed(_OWN_ID.sub(b"ID", client.take()).replace(_CUT, _STORED)) for client in self.users]
            busy -= {number for number, data in enumerate(got) if data}
            caching = self.proxy._parts.caching
            assert caching is not None
            noticed.append(
                (
                    (what, *said),
                    got,
                    [client.end for client in self.users],
                    [(bytes(peer.received), peer.end) for peer in self.provider.peers],
                    len(caching.state.in_flight),
                    (caching.state.stores, caching.state.hits),
                )
            )
        self.network.pass_time(1000.0)
        noticed.append([(bytes(peer.received), peer.end) for peer in self.provider.peers])
        records = [record._replace(request_id="", steps="") for record in self.events.records]
        noticed += sorted(records, key=repr)  # the ends of one turn are told in any order
        noticed += [asdict(self.proxy.metrics()), self.tokens.counted]
        parts = self.proxy._parts
        assert parts.caching is not None
        self.assertEqual((len(parts.caching.state.in_flight), parts.caching.state.in_flight.buffered), (0, 0))
        self.short = 0 if parts.fast_path is None else parts.fast_path.served
        super(WaysCase, self).tearDown()
        return noticed


class Joins(Crowd):
    """What is joined while it is on the short way."""

    @given(st.sampled_from(sorted(ALLOWANCES)), st.lists(STEP, max_size=12))
    @examples(60)
    def test_nobody_notices(self, grant: str, steps: list[Any]) -> None:
        self.assert_one(grant, steps)

    def same(self, *numbers: int) -> list[Any]:
        """These clients ask for the same."""
        return [("ask", number, BODIES[0], True, TRACES[0]) for number in numbers]

    def outcomes(self, steps: list[Any], grant: str = "free") -> list[tuple[str, str]]:
        """As both ways have them: what became of each at the cache, and by itself."""
        self.assert_one(grant, steps)
        self.play(True, grant, steps)
        return sorted((record.cache, record.outcome) for record in self.events.records[3:])

    def test_alone(self) -> None:
        """It goes the short way from its first byte to its last."""
        self.assertEqual(self.outcomes([*self.same(0), ("answer", "to keep"), *self.same(1)])[0], ("hit", "complete"))
        self.assertEqual(self.short, 3)
        self.assertEqual(self.calls(), 4)

    def test_joined(self) -> None:
        """One call for all, whatever its response is made of."""
        for name in ("to keep", "without a word", "in pieces", "chunked", "stream", "stream at once"):
            got = self.outcomes([*self.same(0, 1, 2), ("answer", name)])
            self.assertEqual(got, [("coalesced", "complete")] * 2 + [("stored", "complete")], name)
            self.assertEqual(self.calls(), 4)

    def test_joined_when_a_part_of_its_response_is_there(self) -> None:
        """Both get all of it, by one call."""
        self.begin(True, "free")
        self.ask_for(0, BODIES[0])
        (peer,) = self.asked()
        peer.send(KEPT[:-20])
        self.ask_for(1, BODIES[0])
        peer.send(KEPT[-20:])
        self.assertEqual([user.take()[-20:] for user in self.users], [KEPT[-20:], KEPT[-20:], b""])
        self.assertEqual(self.calls(), 4)
        self.assertEqual(sorted(record.cache for record in self.events.records[3:]), ["coalesced", "stored"])
        super(WaysCase, self).tearDown()

    def test_the_first_leaves(self) -> None:
        """The call goes on for the others."""
        got = self.outcomes([*self.same(0, 1), ("leave", 0), ("answer", "to keep"), *self.same(2)])
        self.assertEqual(got, [("coalesced", "complete"), ("hit", "complete"), ("stored", "cancelled")])
        self.assertEqual(self.calls(), 4)

    def test_all_leave(self) -> None:
        """The call is given up."""
        got = self.outcomes([*self.same(0, 1), ("leave", 0), ("leave", 1)])
        self.assertEqual([outcome for _, outcome in got], ["cancelled"] * 2)
        self.assertEqual([peer.end != "" for peer in self.provider.peers], [True])

    def test_no_response(self) -> None:
        """All are told, and nobody asks again."""
        for answer in ([("answer", "gone")], [("answer", "cut")], [("wait", 700.0)]):
            got = self.outcomes([*self.same(0, 1), *answer])
            self.assertEqual({outcome for _, outcome in got} & {"complete"}, set(), answer)

    def test_a_response_for_one_alone(self) -> None:
        """The others ask by themselves."""
        got = self.outcomes([*self.same(0, 1), ("answer", "private"), ("answer", "to keep")])
        self.assertEqual(got, [("miss", "complete"), ("stored", "complete")])
        self.assertEqual(self.calls(), 5)

    def test_whatever_the_cache_is_told(self) -> None:
        for told in (
            {"max_object_bytes": 64},
            {"coalesce": False},
            {"scope": "shared"},
            {"scope": "token"},
            {"streams": False},
            {"replay": "timed"},
        ):
            self.cache = {"streams": True, **told}  # type: ignore[misc]
            for name in ANSWERS:
                steps = [*self.same(0), ("answer", name), *self.same(1), ("answer", name)]
                self.assert_one("free", [*steps, ("wait", 61.0), *self.same(0, 1), ("answer", name), ("answer", name)])

    def test_what_is_purged_meanwhile(self) -> None:
        """Is not stored, whether it is joined or not."""
        for asked in ((0,), (0, 1)):
            got = self.outcomes(
                [*self.same(*asked), ("purge",), ("answer", "to keep"), *self.same(2), ("answer", "to keep")]
            )
            self.assertNotIn(("hit", "complete"), got)


class JoinsOfThoseThatWait(Joins):
    """Likewise, where limits are counted elsewhere, and take a while to say what they admit."""

    limits_take = 0.01

    def _start(self, *args: Any, **settings: Any) -> None:
        super()._start(*args, **settings)
        limiter = self.proxy._parts.quota
        limiter._counters = SlowCounters(limiter._counters, self.network, self.limits_take)
        limiter._local = None

    def test_joined_before_it_is_sent(self) -> None:
        """The limits are asked again, and one call is made."""
        self.begin(True, "limited")
        self.limits_take = 0.0
        for number in range(2):
            self.ask_for(number, BODIES[0])
        self.assertEqual(self.calls(), 3)
        self.network.pass_time(0.02)
        self.answer("to keep")
        self.assertEqual(self.calls(), 4)
        self.assertEqual([b"200 OK" in user.take() for user in self.users], [True, True, False])
        self.assertEqual(sorted(record.cache for record in self.events.records[3:]), ["coalesced", "stored"])
        super(WaysCase, self).tearDown()
