"""Settings whose difference no other test shows: each with and without."""

from __future__ import annotations

import json
from typing import Any

from tests.journey.test_caching import Caching, answer
from tests.support.proxy_case import OK, ProxyTestCase
from tests.support.responses import parse_response

USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"audio_tokens": 400},
    "completion_tokens_details": {"audio_tokens": 50},
}
WRITES = {"input_tokens": 100, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 0, "output_tokens": 10}


def told(model: str, usage: dict[str, Any], **more: Any) -> bytes:
    body = json.dumps({"model": model, "usage": usage, **more}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Connections(ProxyTestCase):
    def test_how_long_an_unused_one_is_kept(self) -> None:
        for seconds in (90, 5):
            self.restart(timeouts={"idle_connection": float(seconds)})
            self.exchange()
            self.network.pass_time(seconds - 0.5)
            self.assertEqual(self.provider.last.end, "")
            self.network.pass_time(1)
            self.assertTrue(self.provider.last.end)

    def kept(self, **connection: int) -> int:
        """How many of three are there when nobody uses them."""
        self.restart(connection=connection)
        self.provider.peers.clear()
        asked = [self.ask() for _ in range(3)]
        for peer in list(self.provider.peers):
            peer.send(OK)
        self.assertEqual([parse_response(client.take()).status for client in asked], [200] * 3)
        return sum(not peer.end for peer in self.provider.peers)

    def test_how_many_unused_ones_are_kept(self) -> None:
        self.assertEqual(self.kept(), 3)
        self.assertEqual(self.kept(max_idle_conns_per_host=2), 2)
        self.assertEqual(self.kept(max_idle_conns=1), 1)

    def test_how_many_there_are_at_once(self) -> None:
        """Who finds none free waits for one."""
        self.restart(connection={"max_conns_per_host": 1, "max_open_per_project": 5})
        dialled = self.network.dialled
        first, second = self.ask(), self.ask()
        self.assertEqual(self.network.dialled, dialled + 1)
        for client in (first, second):
            self.provider.last.send(OK)
            self.assertEqual(parse_response(client.take()).status, 200)
        self.assertEqual(self.network.dialled, dialled + 1)


class Limits(ProxyTestCase):
    def test_what_is_reckoned_where_a_request_says_no_maximum(self) -> None:
        body = b'{"model": "gpt-4o", "messages": []}'
        for default, asked in ((4096, False), (100, True)):
            with self.subTest(default=default):
                self.restart(limits={"budget_tokens": ["2000/day"], "default_output_tokens": default})
                dialled = self.network.dialled
                client = self.ask(body=body)
                self.assertEqual(self.network.dialled > dialled, asked)
                if asked:
                    self.provider.last.send(OK)
                self.assertEqual(parse_response(client.take()).status, 200 if asked else 429)


class Prices(ProxyTestCase):
    def cost(self, usage: dict[str, Any], path: str = "/v1/chat/completions", **price: Any) -> float:
        self.prices = [{"model": "mine", "input": 1.0, "output": 10.0, **price}]
        self.restart()
        self.exchange(body=b'{"model":"mine","messages":[]}', path=path, answer=told("mine", usage))
        cost = self.events.records[-1].cost_usd
        assert cost is not None
        return cost

    def test_sound_and_requests(self) -> None:
        text = (1000 * 1 + 100 * 10) / 1e6
        self.assertAlmostEqual(self.cost(USAGE), text, 12)
        self.assertAlmostEqual(self.cost(USAGE, input_audio=20.0), text + 400 * 19 / 1e6, 12)
        self.assertAlmostEqual(self.cost(USAGE, output_audio=80.0), text + 50 * 70 / 1e6, 12)
        self.assertAlmostEqual(self.cost(USAGE, per_request=0.5), text + 0.5, 12)

    def test_what_comes_from_the_providers_cache(self) -> None:
        usage = {"prompt_tokens": 1000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 600}}
        self.assertAlmostEqual(self.cost(usage), 1000 / 1e6, 12)
        self.assertAlmostEqual(self.cost(usage, cached=0.1), (400 + 600 * 0.1) / 1e6, 12)

    def test_whose_price_it_is(self) -> None:
        """By the API and the model that it names; and what is billed beside tokens."""
        text = (1000 * 1 + 100 * 10) / 1e6
        self.assertAlmostEqual(self.cost(USAGE, api="openai"), text, 12)
        self.assertAlmostEqual(self.cost(USAGE, api="open*", model="min*"), text, 12)
        for other in ({"api": "anthropic"}, {"model": "yours"}):
            with self.assertRaises(AssertionError):
                self.cost(USAGE, **other)

    def test_what_is_billed_beside_tokens(self) -> None:
        searched = {"input_tokens": 100, "output_tokens": 10, "server_tool_use": {"web_search_requests": 3}}
        self.api = {"provider": "anthropic", "allowed_endpoints": ["/v1/messages"]}
        text = (100 * 1 + 10 * 10) / 1e6
        self.assertAlmostEqual(self.cost(searched, "/v1/messages", units={"web_searches": 0.5}), text + 1.5, 12)
        self.assertAlmostEqual(self.cost(searched, "/v1/messages", units={"web_searches": 0.0}), text, 12)

    def test_what_is_written_to_the_providers_cache(self) -> None:
        self.api = {"provider": "anthropic", "allowed_endpoints": ["/v1/messages"]}
        usual = self.cost(WRITES, "/v1/messages")
        self.assertAlmostEqual(usual, (1100 * 1 + 10 * 10) / 1e6, 12)
        self.assertAlmostEqual(self.cost(WRITES, "/v1/messages", cache_write=3.0), usual + 1000 * 2 / 1e6, 12)


class Kept(Caching):
    def test_how_much_is_kept(self) -> None:
        """What was used least recently goes first."""
        for size, there in ((1_000_000, True), (15_000, False)):
            self.cache = {"max_bytes": size}
            self.restart()
            for name in ("a", "b"):
                data = answer("Cache-Control: max-age=60", body=b"[%b]" % (b"1," * 4500 + b"1"))
                self.fill(path=f"/v1/models/{name}", data=data)
            self.hit(path="/v1/models/b")
            self.assertEqual(self.get(path="/v1/models/a") is not None, there)

    def test_what_says_only_when_it_was_changed(self) -> None:
        data = answer("Date: Tue, 13 Jan 1970 13:46:40 GMT", "Last-Modified: Mon, 12 Jan 1970 13:46:40 GMT")
        for heuristics in (False, True):
            self.cache = {"heuristics": heuristics}
            self.restart()
            self.fill(data=data)
            self.assertEqual(self.get() is not None, heuristics)
