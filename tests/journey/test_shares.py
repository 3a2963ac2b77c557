"""A project that has much under way."""

from __future__ import annotations

from tests.support.proxy_case import OK, OTHER, STREAM, ProxyTestCase, chunk, request
from tests.support.responses import parse_response


class Share(ProxyTestCase):
    api = {"connection": {"max_open_per_project": 2}}  # noqa: RUF012

    def test_one_request_too_many(self) -> None:
        """It is refused at once, costs the token nothing, and is not sent; one that ends makes room for the next."""
        first, second = self.ask(), self.ask()
        got = parse_response(self.ask().take())
        self.assertEqual((got.status, got.json["error"]["code"], got.complete), (429, "too_many_open_requests", True))
        self.assertEqual((got["Retry-After"], got["X-LLMProxy-Error"]), ("1", "too_many_open_requests"))
        self.assertEqual(got.all("X-Should-Retry"), [])
        self.assertEqual((self.network.dialled, len(self.tokens.counted)), (2, 2))
        self.assertEqual(self.proxy.metrics().by_error, {"too_many_open_requests": 1})
        self.provider.peers[0].send(OK)
        self.assertEqual(parse_response(first.take()).status, 200)
        third = self.ask()
        self.provider.peers[0].send(OK)
        self.assertEqual(parse_response(third.take()).status, 200)
        second.close()

    def test_another_project(self) -> None:
        """Does not notice."""
        busy = [self.ask(), self.ask()]
        self.assertEqual(self.exchange(token=OTHER).status, 200)
        for client in busy:
            client.close()

    def test_uploads_that_do_not_come(self) -> None:
        """Count from the beginning, and their leaving makes room."""
        slow = [self.client() for _ in range(2)]
        for client in slow:
            client.send(request("Content-Length: 1000", body=None) + b"{")
        self.assertEqual(parse_response(self.ask().take()).status, 429)
        for client in slow:
            client.reset()
        self.assertEqual(self.exchange().status, 200)

    def test_streams(self) -> None:
        """Count to their ends."""
        streams = [self.ask() for _ in range(2)]
        for line in self.provider.peers:
            line.send(STREAM + chunk(b"."))
        self.assertEqual(parse_response(self.ask().take()).status, 429)
        self.provider.peers[0].send(b"0\r\n\r\n")
        third = self.ask()
        self.provider.peers[0].send(OK)
        self.assertEqual(parse_response(third.take()).status, 200)
        streams[1].close()

    def test_refusals_take_no_part(self) -> None:
        for _ in range(3):
            self.assertEqual(parse_response(self.ask(path="/v1/files").take()).status, 403)
        self.tokens.failing = OSError("no")
        for _ in range(3):
            self.assertEqual(parse_response(self.ask().take()).status, 503)
        self.tokens.failing = None
        self.assertEqual(self.exchange().status, 200)
