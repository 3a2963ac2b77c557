"""A provider that is down is left alone for a while; and what is sent again."""

from __future__ import annotations

from tests.support.proxy_case import OK, OTHER, PROVIDER, ProxyTestCase, request
from tests.support.responses import Response, parse_response

ERROR = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


class Circuits(ProxyTestCase):
    api = {"circuit_breaker": {"failures": 3, "cooldown": 30.0}, "timeouts": {"request": 5.0}}  # noqa: RUF012

    def down(self) -> None:
        del self.network.servers[PROVIDER]

    def up(self) -> None:
        self.network.servers[PROVIDER] = self.provider

    def asked(self, **parts: str) -> Response:
        return parse_response(self.ask(**parts).take())

    def assert_open(self, got: Response, dialled: int) -> None:
        self.assertEqual((got.status, got.json["error"]["code"]), (503, "circuit_open"))
        self.assertEqual(self.network.dialled, dialled)

    def test_it_opens_after_so_many_failures(self) -> None:
        """For everybody; and says when to come again."""
        self.down()
        for _ in range(3):
            self.assertEqual(self.asked().status, 502)
        got = self.asked(token=OTHER)
        self.assert_open(got, 3)
        self.assertEqual((got["Retry-After"], got.json["error"]["type"]), ("30", "overloaded_error"))
        self.assertEqual(self.proxy.metrics().by_error["circuit_open"], 1)

    def test_failures_that_are_not_in_a_row(self) -> None:
        for _ in range(3):
            self.down()
            self.asked(), self.asked()
            self.up()
            self.assertEqual(self.exchange(answer=OK.replace(b"OK", b"OK\r\nConnection: close")).status, 200)

    def test_one_probe_at_a_time(self) -> None:
        """After the cooldown one request may try; the others wait for what becomes of it."""
        self.down()
        for _ in range(3):
            self.asked()
        self.up()
        self.network.pass_time(29.9)
        self.assert_open(self.asked(), 3)
        self.network.pass_time(0.1)
        probe = self.ask()
        self.assert_open(self.asked(), 4)
        self.provider.last.send(OK)
        self.assertEqual(parse_response(probe.take()).status, 200)
        self.assertEqual(self.exchange().status, 200)

    def test_a_probe_that_fails(self) -> None:
        """Opens it for another cooldown."""
        self.down()
        for _ in range(3):
            self.asked()
        self.network.pass_time(30)
        self.assertEqual(self.asked().status, 502)
        self.up()
        self.network.pass_time(29)
        self.assert_open(self.asked(), 4)
        self.network.pass_time(1)
        self.assertEqual(self.exchange().status, 200)

    def test_a_probe_whose_client_leaves(self) -> None:
        """Says nothing; the next request is the probe."""
        self.down()
        for _ in range(3):
            self.asked()
        self.up()
        self.network.pass_time(30)
        self.ask().close()
        self.assertEqual(self.exchange().status, 200)

    def test_one_projects_errors(self) -> None:
        """Hold that project back, never another."""
        for _ in range(3):
            self.assertEqual(self.exchange(answer=ERROR).status, 500)
        self.assert_open(self.asked(), 1)
        self.assertEqual(self.exchange(token=OTHER).status, 200)

    def test_one_projects_timeouts(self) -> None:
        for _ in range(3):
            client = self.ask()
            self.network.pass_time(5)
            self.assertEqual(parse_response(client.take()).status, 504)
        self.assert_open(self.asked(), 3)
        self.assertEqual(self.exchange(token=OTHER).status, 200)

    def test_one_projects_connections_that_break(self) -> None:
        """Who can make a provider hang up cannot shut out anybody else."""
        for _ in range(3):
            client = self.ask()
            self.provider.last.reset()
            self.assertEqual(parse_response(client.take()).status, 502)
        self.assert_open(self.asked(), 3)
        self.assertEqual(self.exchange(token=OTHER).status, 200)

    def test_what_is_no_fault_of_the_provider(self) -> None:
        """Never counts: a wrong key, a limit, too much load, a client that leaves."""
        for status in (400, 401, 403, 404, 429, 529):
            for _ in range(3):
                answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
                self.assertEqual(self.exchange(answer=answer).status, status)
        for _ in range(4):
            self.ask().reset()
        self.assertEqual(self.exchange().status, 200)

    def test_switched_off(self) -> None:
        self.restart(circuit_breaker={"failures": 0})
        self.down()
        self.assertEqual({self.asked().status for _ in range(20)}, {502})


class Retries(ProxyTestCase):
    api = {"retries": {"attempts": 3}, "circuit_breaker": {"failures": 0}}  # noqa: RUF012

    def test_a_connection_that_does_not_come_about(self) -> None:
        """Is tried again, as often as it is set, and the client learns of the last attempt only."""
        del self.network.servers[PROVIDER]
        client = self.ask()
        self.assert_rejected(parse_response(client.take()), 502, "upstream_unreachable")
        self.assertEqual((self.network.dialled, len(self.tokens.counted)), (3, 1))

    def test_a_request_that_was_sent(self) -> None:
        """Is never sent again, whatever becomes of it."""
        client = self.ask()
        self.provider.last.reset()
        self.assert_rejected(parse_response(client.take()), 502, "upstream_unreachable")
        self.assertEqual(self.network.dialled, 1)

    def test_an_answer_that_has_begun(self) -> None:
        client = self.ask()
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        self.provider.last.reset()
        self.assertEqual(parse_response(client.take()).complete, False)
        self.assertEqual(self.network.dialled, 1)

    def test_an_upload_that_has_begun(self) -> None:
        """Can be sent again if nothing of it was taken yet, but not otherwise."""
        self.network.servers[PROVIDER] = None
        client = self.client()
        client.send(request(body=None)[:-2] + b"Content-Length: 10\r\n\r\nfirst")
        self.network.pass_time(10)
        self.assertEqual(parse_response(client.take()).status, 504)
        self.assertEqual(self.network.dialled, 1)

    def test_a_kept_connection_that_the_provider_has_closed(self) -> None:
        """Costs nobody an error, where sending it twice cannot do anything twice."""
        self.exchange(method="GET", path="/v1/models", body=None)
        first = self.provider.last
        client = self.ask(method="GET", path="/v1/models", body=None)
        first.reset()
        self.assertEqual(len(self.provider.peers), 2)
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)
