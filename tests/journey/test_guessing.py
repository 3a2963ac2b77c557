"""Guessing at tokens leads nowhere, and hurts nobody who has one."""

from __future__ import annotations

from llmproxy import errors
from llmproxy.auth.lockout import MAX_FAILURES
from tests.support.proxy_case import TOKEN, ProxyTestCase, request
from tests.support.responses import Response, parse_response


def guess(number: int) -> str:
    return f"sk-lp-{number:043d}"


class Guessing(ProxyTestCase):
    def guesses(self, count: int, *lines: str, address: str = "192.0.2.1") -> list[int]:
        return [self.guess(n, *lines, address=address).status for n in range(count)]

    def guess(self, number: int, *lines: str, address: str = "192.0.2.1") -> Response:
        client = self.client(address)
        client.send(request(*lines, token=guess(number)))
        return parse_response(client.take())

    def test_twenty_are_heard(self) -> None:
        """Then the address is told when to go on; others are not, nor is who has a valid token at the same address."""
        self.assertEqual(self.guesses(MAX_FAILURES), [401] * MAX_FAILURES)
        got = self.guess(MAX_FAILURES)
        self.assertEqual((got.status, got["X-LLMProxy-Error"], got["Retry-After"]), (429, "too_many_failures", "60"))
        self.assertEqual(self.guesses(1, address="192.0.2.2"), [401])
        self.assertEqual(self.exchange().status, 200)
        self.assertEqual(self.guess(0).status, 429)
        self.network.advance(60)
        self.assertEqual(self.guesses(MAX_FAILURES + 1), [401] * MAX_FAILURES + [429])

    def test_answers_are_the_same(self) -> None:
        """However near a guess is, nothing about it can be seen."""
        near = [TOKEN[:-1] + "x", TOKEN[:-1], TOKEN + "t", guess(1), "x"]
        seen = set()
        for token in near:
            client = self.client()
            client.send(request(token=token))
            got = parse_response(client.take())
            lines = tuple(
                line for line in got.lines if not line.lower().startswith(("date", "x-request-id", "request-id"))
            )
            seen.add((got.status, lines, got.body.replace(got["X-Request-ID"].encode(), b"")))
        self.assertEqual(len(seen), 1)

    def test_what_is_no_guess(self) -> None:
        """No token, a token whose time is over, and a store that is down."""

        class Inactive(errors.TokenInactive):
            pass

        for failing, status in ((errors.TokenExpired(), 401), (Inactive(), 401), (errors.StoreUnavailable(), 503)):
            self.tokens.failing = failing
            self.assertEqual(self.guesses(MAX_FAILURES + 5), [status] * (MAX_FAILURES + 5))
        self.tokens.failing = None
        for _ in range(MAX_FAILURES + 5):
            self.assertEqual(parse_response(self.ask(token=None).take()).status, 401)


class BehindAProxy(Guessing):
    server = {"trusted_proxies": ("198.51.100.0/24",)}  # noqa: RUF012

    def test_each_client_for_itself(self) -> None:
        """One client of a load balancer guesses; the others behind it are told that theirs is unknown, as ever."""
        front = {"address": "198.51.100.1"}
        self.assertEqual(self.guesses(MAX_FAILURES + 1, "X-Forwarded-For: 203.0.113.9", **front)[-2:], [401, 429])
        self.assertEqual(self.guesses(1, "X-Forwarded-For: 203.0.113.10", **front), [401])
        self.assertEqual(self.guesses(1, "X-Forwarded-For: 203.0.113.10", address="203.0.113.9"), [429])
