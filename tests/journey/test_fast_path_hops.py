"""Flows whose requests have a choice: of several keys and of several upstreams. What is chosen is what the long way
would have chosen."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from zope.interface import implementer

from llmproxy.interfaces import IProviderKeyLists
from llmproxy.proxy.fast_path.service import MAX_HOPS
from llmproxy.upstream.key_states import KeyState
from tests.journey.test_fast_path import APIS, BODIES, FIELDS, GRANTS, STEP, WaysCase
from tests.journey.test_fast_path_changes import DOWN, OK, DirectCase
from tests.support.examples import examples
from tests.support.proxy_case import Projects, request
from tests.support.responses import Response, parse_response

KEYS = ("sk-provider-one-0123456789", "sk-provider-two-0123456789", "sk-provider-three-0123456789")
BALANCES = ("least_busy", "round_robin", "failover", "affinity")
LIMITED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n"


@implementer(IProviderKeyLists)
class ListedKeys(Projects):
    """A store in which each project has several keys."""

    listed: tuple[str, ...] = KEYS

    async def get_api_keys_for_project(self, project_id: str, api: str = "") -> tuple[str, ...]:
        return self.listed


class SeveralKeys(WaysCase):
    """A request goes with the key whose turn it is, or that its session or its beginning belongs to."""

    balance = "round_robin"

    def _start(self, *args: Any, **settings: Any) -> None:
        self.projects = ListedKeys()
        super()._start(*args, **{"balance": self.balance, "affinity": {"headers": ["Idempotency-Key"]}, **settings})

    def _finish(self) -> None:
        states: list[KeyState] = list(self.proxy._parts.upstreams.keys._states.values())
        super()._finish()
        self.assertEqual([state.in_flight for state in states], [0] * len(states))

    @examples(100)
    @given(
        st.sampled_from(sorted(GRANTS)),
        st.lists(STEP, min_size=1, max_size=6),
        st.sampled_from((BODIES[0], BODIES[1])),
        st.sampled_from(("whole", "stream at once", "stream")),
        st.sampled_from(APIS),
        st.sampled_from(BALANCES),
    )
    def test_both_ways_are_one(
        self, grant: str, steps: list[Any], body: bytes, usual: str, api: dict[str, Any], balance: str
    ) -> None:
        self.api, self.balance = api, balance
        heads = dict.fromkeys(lines for _, lines, *_ in steps)
        before = [(body, lines, True, usual, "one read") for lines in heads for _ in range(3)]
        self.assert_one(grant, before + steps)

    def test_they_go_the_short_way(self) -> None:
        """However one is chosen."""
        for self.balance in BALANCES:
            step = (BODIES[0], FIELDS[2], True, "whole", "one read")
            self.assertEqual(self.play(False, "free", [step] * 8), self.play(True, "free", [step] * 8))
            self.assertEqual(self.short, 6, self.balance)


class DirectChoices(DirectCase):
    """Two upstreams and three keys, and what may happen to them."""

    other = ("203.0.113.6", 8000)
    api = {  # noqa: RUF012
        "upstreams": [{"base_url": "http://203.0.113.5:8000"}, {"base_url": "http://203.0.113.6:8000/base"}],
        "balance": "round_robin",
        "circuit_breaker": {"failures": 1, "cooldown": 30.0},
    }

    projects: ListedKeys

    def _start(self, *args: Any, **settings: Any) -> None:
        self.network.servers[self.other] = self.provider
        self.projects = ListedKeys()
        super()._start(*args, **settings)

    def warm(self) -> None:
        """Two requests make the flow, and two the connections."""
        self.user = self.client()
        self.went: Counter[tuple[str, str]] = Counter()
        for _ in range(12):
            self.assertEqual(self.asked().status, 200)
        self.assert_direct(10)
        self.went.clear()

    def asked(self, answer: bytes = OK, then: bytes = OK) -> Response:
        """What becomes of one more request.

        @param then: The answer of whoever it goes on to.
        """
        self.user.send(request(body=BODIES[0]))
        for said in (answer, then):
            taken = ((peer, peer.take()) for peer in self.provider.peers if not peer.end)
            peer, sent = next((each for each in taken if each[1]), (None, b""))
            if peer is not None:
                (target,), (key,) = re.findall(rb"^POST (\S+)", sent), re.findall(rb"Bearer (\S+)", sent)
                self.went[target.decode(), key.decode()] += 1
                peer.send(said)
        return parse_response(self.user.take())

    def all_asked(self, count: int) -> None:
        """Each of so many is answered, and served directly."""
        for _ in range(count):
            self.assertEqual(self.asked().status, 200)
        self.assert_direct(count)

    def test_each_in_turn(self) -> None:
        """Each upstream, and there each key, as often as any other; each with a target and a head of its own."""
        self.all_asked(12)
        targets = ("/v1/chat/completions", "/base/v1/chat/completions")
        self.assertEqual(self.went, {(target, key): 2 for target in targets for key in KEYS})

    def test_a_key_at_its_limit(self) -> None:
        """Its request goes on with another; it is left alone there for as long as the provider says, and then comes
        back."""
        self.assertEqual(self.asked(LIMITED).status, 200)
        limited, self.went = next(iter(self.went)), Counter()
        self.assert_direct(0)
        self.all_asked(12)
        self.assertEqual((self.went[limited], len(self.went)), (0, 5))
        self.network.pass_time(21.0)
        self.assertEqual(self.asked().status, 200)  # whose keys were looked up too long ago
        self.assert_direct(0)
        self.all_asked(12)
        self.assertGreater(self.went[limited], 0)

    def test_an_upstream_that_is_down(self) -> None:
        """Its breaker opens, and all go to the other; the request that tries it again goes the long way."""
        self.assertEqual(self.asked(DOWN).status, 503)
        ((down, _),) = self.went
        self.went.clear()
        self.assert_direct(0)
        self.all_asked(6)
        self.assertNotIn(down, {target for target, _ in self.went})
        self.network.pass_time(31.0)
        self.went.clear()
        for _ in range(8):
            self.assertEqual(self.asked().status, 200)
        self.assertIn(down, {target for target, _ in self.went})
        self.assert_direct(6)  # nor does one go that way whose keys were looked up too long ago

    def test_an_upstream_that_is_taken_out(self) -> None:
        """Nothing goes there until it is back."""
        self.proxy._parts.set_state("openai", 0, "disabled")
        for _ in range(8):
            self.assertEqual(self.asked().status, 200)
        self.assertEqual({target for target, _ in self.went}, {"/base/v1/chat/completions"})
        self.assert_direct(6)
        self.proxy._parts.set_state("openai", 0, "enabled")
        for _ in range(8):
            self.assertEqual(self.asked().status, 200)
        self.assertEqual(len({target for target, _ in self.went}), 2)
        self.assert_direct(6)

    def test_too_many_to_choose_from(self) -> None:
        """They go the long way, as well as ever."""
        self.projects.listed = tuple(f"sk-provider-{number}-0123456789" for number in range(MAX_HOPS // 2 + 1))
        self.proxy._parts.keys.forget("project-1")
        for _ in range(2 * len(self.projects.listed)):
            self.assertEqual(self.asked().status, 200)
        self.assertEqual((len(self.went), set(self.went.values())), (2 * len(self.projects.listed), {1}))
        self.assert_direct(0)

    def test_nothing_is_there(self) -> None:
        """The pipeline says so."""
        for number in range(2):
            self.proxy._parts.upstreams.of("openai").members[number].state = "disabled"
        self.assertEqual((self.asked().status, self.went), (503, {}))

    def test_connections_are_gone(self) -> None:
        """Others are made, and none is passed over."""
        for peer in self.provider.peers:
            if not peer.end:
                peer.close()
        for _ in range(12):
            self.assertEqual(self.asked().status, 200)
        self.assertEqual(set(self.went.values()), {2})
        self.assert_direct(12)

    def test_states_of_keys_that_are_forgotten(self) -> None:
        """What was known of a key is known by another from then on: so it is for flows."""
        states = self.proxy._parts.upstreams.keys
        states._size = 1
        states.of("other", "http://other.test", "project-2", b"key")
        states._size = 100
        self.assertEqual(self.asked(LIMITED).status, 200)
        limited, self.went = next(iter(self.went)), Counter()
        for _ in range(12):
            self.assertEqual(self.asked().status, 200)
        self.assertEqual((self.went[limited], len(self.went)), (0, 5))
        self.assert_direct(12)
