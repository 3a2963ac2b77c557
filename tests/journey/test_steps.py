"""What a request's time went into, as its record has it."""

from __future__ import annotations

from typing import Any

from llmproxy.base.request_steps import decode
from llmproxy.model import RequestRecord
from tests.support.proxy_case import OK, ProxyTestCase, request
from tests.support.responses import parse_response

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def steps(record: RequestRecord) -> list[tuple[Any, ...]]:
    """Those that took time, and all attempts."""
    found = decode(record.steps)
    return [(each.name, each.at, each.seconds, each.result) for each in found if each.seconds or each.result]


class StepsTests(ProxyTestCase):
    def test_a_slow_validator(self) -> None:
        grant, waiting = self.delayed_grant()
        client = self.ask()
        self.network.pass_time(0.5)
        waiting.callback(grant)
        self.network.flow()
        self.network.pass_time(0.25)
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)
        record = self.record()
        self.assertEqual((record.auth_time, record.queue_time, record.upstream_time), (0.5, 0.0, 0.25))
        self.assertEqual(steps(record), [("auth", 0.0, 0.5, None), ("attempt", 0.5, 0.25, "200")])

    def test_a_client_that_did_not_wait(self) -> None:
        """All of its time went into the step in which it left."""
        _, waiting = self.delayed_grant()
        client = self.ask()
        self.network.pass_time(0.5)
        client.close()
        self.network.flow()
        self.assertTrue(waiting.called)
        record = self.record()
        self.assertEqual((record.outcome, record.auth_time, record.queue_time), ("cancelled", 0.5, 0.0))

    def test_all_connections_are_busy(self) -> None:
        """The second waits for the first one's, which is part of its attempt, and no time of the provider's."""
        self.restart(connection={"max_conns_per_host": 1, "max_open_per_project": 5})
        first, second = self.ask(), self.ask()
        self.network.pass_time(1.0)
        self.provider.last.send(OK)
        self.assertEqual(parse_response(first.take()).status, 200)
        self.network.pass_time(0.25)
        self.provider.last.send(OK)
        self.assertEqual(parse_response(second.take()).status, 200)
        one, two = self.events.records
        self.assertEqual((one.queue_time, two.queue_time), (0.0, 1.0))
        self.assertEqual((two.first_byte, two.upstream_time), (1.25, 1.25))
        self.assertEqual(steps(two), [("connection", 0.0, 1.0, None), ("attempt", 1.0, 0.25, "200")])

    def test_nobody_got_a_connection(self) -> None:
        """All of its attempt was waiting."""
        self.restart(connection={"max_conns_per_host": 1, "max_open_per_project": 5}, timeouts={"connect": 2.0})
        first, second = self.ask(), self.ask()
        self.network.pass_time(2.0)
        self.assertEqual(parse_response(second.take()).status, 503)
        record = next(each for each in self.events.records if each.status == 503)
        self.assertEqual((record.error, record.queue_time), ("upstream_busy", 2.0))
        self.assertEqual(steps(record), [("connection", 0.0, 2.0, None), ("attempt", 2.0, 0.0, "busy")])
        self.provider.last.send(OK)
        self.assertEqual(parse_response(first.take()).status, 200)

    def test_a_second_attempt(self) -> None:
        """With its pause."""
        self.restart(retries={"attempts": 2, "on": [503], "backoff": "1s"})
        client = self.ask()
        self.network.pass_time(0.25)
        self.provider.last.send(BUSY)
        self.network.flow()
        self.network.pass_time(5.0)
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)
        record = self.record()
        self.assertEqual(record.attempted, "0/0:503 0/0:200")
        (first, pause, second) = steps(record)
        self.assertEqual(first, ("attempt", 0.0, 0.25, "503"))
        self.assertEqual((pause[0], pause[1], second[0], second[3]), ("pause", 0.25, "attempt", "200"))
        self.assertAlmostEqual(pause[2] + second[2], 5.0)

    def test_a_slow_body(self) -> None:
        """One that has to be known before it is sent: that is no time of the credential's."""
        self.restart(param_whitelist={"model": ["gpt-4o"]})
        client = self.client()
        whole = request(body=b'{"model": "gpt-4o"}')
        client.send(whole[:-5])
        self.network.pass_time(0.75)
        client.send(whole[-5:])
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)
        record = self.record()
        self.assertEqual((record.auth_time, record.queue_time), (0.75, 0.0))
        self.assertEqual(steps(record), [("body", 0.0, 0.75, None), ("attempt", 0.75, 0.0, "200")])

    def test_the_usual_request(self) -> None:
        """One that a flow sends has the times that say all, and no steps."""
        for _ in range(4):
            self.assertEqual(self.exchange().status, 200)
        record = self.events.records[-1]
        self.assertEqual((record.auth_time, record.queue_time), (0.0, 0.0))
        self.assertIn([each.result for each in decode(record.steps) if each.name == "attempt"], (["200"], []))
