"""What a client of a limited token is told, and what is counted."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from llmproxy.base.budgets import NANO
from llmproxy.metering.estimating import estimate_prompt
from llmproxy.model import Allowance, Budget
from tests.support.proxy_case import OK, STREAM, TOKEN, ProxyTestCase, chunk
from tests.support.reading import read
from tests.support.responses import Response, parse_response

BODY = b'{"model": "gpt-4o", "max_tokens": 1000}'
MOST = estimate_prompt(read(BODY), len(BODY), "openai", "gpt-4o").most
USED = (
    b'{"model": "gpt-4o", "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}}'  # 0.000225 USD
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(USED), USED)


class Limited(ProxyTestCase):
    def limit(self, project: Allowance | None = None, **limits: Any) -> None:
        self.tokens.grants[TOKEN] = replace(
            self.tokens.grants[TOKEN], allowance=Allowance(**limits), project_allowance=project
        )

    def assert_told(self, got: Response, **told: str) -> None:
        self.assertEqual({name: got[name.replace("_", "-")] for name in told}, told)


class Rates(Limited):
    def test_until_it_is_used_up(self) -> None:
        """Each answer tells what is left, and the refusal when there will be more."""
        self.limit(requests_per_minute=2)
        for left in ("1", "0"):
            got = self.exchange()
            self.assertEqual(got.status, 200)
            self.assert_told(got, x_ratelimit_limit_requests="2", x_ratelimit_remaining_requests=left)
        got = parse_response(self.ask().take())
        self.assertEqual((got.status, got.json["error"]["type"]), (429, "rate_limit_error"))
        self.assert_told(got, x_llmproxy_error="rate_limit_exceeded", x_ratelimit_remaining_requests="0")
        self.assertTrue(0 < int(got["Retry-After"]) <= 61)
        self.network.advance(60.2)
        self.assertEqual(self.exchange().status, 200)

    def test_seconds_and_milliseconds(self) -> None:
        self.limit(requests_per_minute=1)
        self.exchange()
        self.network.advance(59.75)
        got = parse_response(self.ask().take())
        self.assertEqual(got["Retry-After"], "1")
        self.assertTrue(0 < int(got["Retry-After-Ms"]) <= 352, got["Retry-After-Ms"])
        self.assertEqual(got.all("X-Should-Retry"), [])

    def test_tokens(self) -> None:
        """Reserved at the worst, told as it then stood, settled as measured."""
        self.limit(tokens_per_minute=2000)
        left = 2000 - MOST - 1000
        self.assert_told(self.exchange(body=BODY, answer=ANSWER), x_ratelimit_remaining_tokens=str(left))
        self.assert_told(self.exchange(body=BODY, answer=ANSWER), x_ratelimit_remaining_tokens=str(left - 30))

    def test_the_provider_s_own_are_not_shown(self) -> None:
        """They are those of the key behind all tokens; a token without such limits sees them unchanged."""
        answer = OK.replace(b"\r\n\r\n", b"\r\nx-ratelimit-limit-requests: 9999\r\n\r\n")
        self.assert_told(self.exchange(answer=answer), x_ratelimit_limit_requests="9999")
        self.limit(concurrency=5)
        self.assert_told(self.exchange(answer=answer), x_ratelimit_limit_requests="9999")
        self.limit(requests_per_minute=60)
        self.assert_told(self.exchange(answer=answer), x_ratelimit_limit_requests="60")

    def test_of_the_project_for_all_its_tokens(self) -> None:
        self.limit(Allowance(requests_per_minute=1))
        self.exchange()
        self.tokens.grants[TOKEN] = replace(self.tokens.grants[TOKEN], token_id="another")
        got = parse_response(self.ask().take())
        self.assertEqual(got.json["error"]["message"], "This project is limited to 1 requests per minute.")

    def test_of_the_api_for_everybody(self) -> None:
        self.restart(limits={"requests_per_minute": 1})
        self.exchange()
        got = parse_response(self.ask().take())
        self.assertEqual((got.status, got["X-LLMProxy-Error"]), (429, "rate_limit_exceeded"))
        self.assertIn("This API is limited", got.json["error"]["message"])


class Anthropic(Limited):
    api = {"provider": "anthropic", "allowed_endpoints": ["/v1/messages"]}  # noqa: RUF012

    def test_as_anthropic_says_it(self) -> None:
        self.limit(requests_per_minute=2)
        got = self.exchange(path="/v1/messages")
        self.assert_told(got, anthropic_ratelimit_requests_remaining="1")
        self.assertRegex(got["anthropic-ratelimit-requests-reset"], r"^1970-01-12T13:4\d:\d\dZ$")


class Concurrency(Limited):
    def test_one_at_once(self) -> None:
        """The next is let in when the answer has ended, however long its stream is."""
        self.limit(concurrency=1)
        first = self.ask()
        self.provider.last.send(STREAM + chunk(b"data: 1\n\n"))
        got = parse_response(self.ask().take())
        self.assertEqual((got.status, got["X-LLMProxy-Error"], got["Retry-After"]), (429, "rate_limit_exceeded", "1"))
        self.provider.last.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")
        self.assertTrue(parse_response(first.take()).complete)
        self.assertEqual(self.exchange().status, 200)

    def test_a_client_that_leaves(self) -> None:
        """In every phase: while the provider has not answered, and in the middle of a stream."""
        self.limit(concurrency=1)
        for beginning in (b"", STREAM + chunk(b"data: 1\n\n")):
            client = self.ask()
            if beginning:
                self.provider.last.send(beginning)
            client.close()
            self.network.flow()
            self.assertEqual(self.exchange().status, 200)

    def test_a_provider_that_breaks_off(self) -> None:
        self.limit(concurrency=1)
        self.ask()
        self.provider.last.send(STREAM + chunk(b"data: 1\n\n"))
        self.provider.last.close()
        self.network.flow()
        self.assertEqual(self.exchange().status, 200)


class Budgets(Limited):
    def test_settled_as_measured(self) -> None:
        """A budget for little more than one request's worst lets several pass that take less, until that is left."""
        self.limit(budget_usd=(Budget(NANO * 11 // 1000, "lifetime"),))
        statuses = [self.exchange(body=BODY, answer=ANSWER).status for _ in range(5)]
        self.assertEqual(statuses, [200] * 5)
        got = parse_response(self.ask(body=BODY).take())
        self.assertEqual((got.status, got.json["error"]["type"]), (429, "insufficient_quota"))
        self.assertEqual((got["X-LLMProxy-Error"], got["X-Should-Retry"]), ("budget_exceeded", "false"))

    def test_a_provider_that_refuses_costs_nothing(self) -> None:
        refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"
        self.limit(budget_usd=(Budget(NANO * 11 // 1000, "lifetime"),))
        for _ in range(5):
            self.assertEqual(self.exchange(body=BODY, answer=refusal).status, 400)

    def test_tomorrow_there_is_more(self) -> None:
        self.limit(budget_tokens=(Budget(1050, "day"),))
        self.exchange(body=BODY, answer=ANSWER)
        got = parse_response(self.ask(body=BODY).take())
        self.assertEqual((got.status, got["X-LLMProxy-Error"]), (429, "quota_exceeded"))
        self.assertEqual((got["Retry-After"], got["X-Should-Retry"]), (str(86_400 * 12 - 1_000_000), "false"))
        self.network.advance(86_400)
        self.assertEqual(self.exchange(body=BODY, answer=ANSWER).status, 200)

    def test_a_model_without_a_price(self) -> None:
        self.limit(budget_usd=(Budget(NANO, "day"),))
        got = parse_response(self.ask(body=b'{"model": "of-our-own"}').take())
        self.assertEqual((got.status, got["X-LLMProxy-Error"]), (403, "price_unknown"))

    def test_a_body_that_comes_in_pieces(self) -> None:
        """It is read before it is sent, for its maximum may stand at its end."""
        self.limit(tokens_per_minute=5000)
        client = self.client()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {TOKEN}\r\n"
        client.send(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:20])
        self.assertEqual(self.network.dialled, 0)
        client.send(BODY[20:])
        self.assertEqual(self.forwarded_request()[2], BODY)
        self.provider.last.send(ANSWER)
        got = parse_response(client.take())
        self.assert_told(got, x_ratelimit_remaining_tokens=str(5000 - MOST - 1000))


class Refusals(Limited):
    def test_what_was_wanted_what_is_left_and_what_would_fit(self) -> None:
        """In dollars and in tokens; what would fit does."""
        budgets = (
            ({"budget_usd": (Budget(NANO // 100, "day"),)}, r"\$0\.\d+"),
            ({"budget_tokens": (Budget(1000, "day"),)}, r"[\d,]+ tokens"),
            ({"tokens_per_minute": 1000}, r"[\d,]+ tokens"),
        )
        for limits, amount in budgets:
            self.limit(**limits)
            body = b'{"model": "gpt-4o", "max_tokens": 5000}'
            if "tokens_per_minute" in limits:  # a minute lets one alone through, whatever it claims
                self.exchange(body=BODY, answer=ANSWER)
            got = parse_response(self.ask(body=body).take())
            self.assertEqual(got.status, 429)
            message = got.json["error"]["message"]
            wanted = (
                rf"It may use {amount} \([\d,]+ tokens of input and 5,000 of output\), and {amount} (is|are) left\."
            )
            self.assertRegex(message, wanted)
            found = re.search(r"It would fit with max_tokens up to ([\d,]+)\.", message)
            assert found is not None, message
            fits = int(found[1].replace(",", ""))
            self.assertTrue(100 < fits < 1000, message)
            got = self.exchange(body=b'{"model": "gpt-4o", "max_tokens": %d}' % fits, answer=ANSWER)
            self.assertEqual(got.status, 200)

    def test_an_agents_first_words(self) -> None:
        """A hundred kilobytes of instructions and tools fit half a dollar a day."""
        self.limit(budget_usd=(Budget(NANO // 2, "day"),))
        schema = {
            "type": "object",
            "properties": {"path": {"type": "string", "description": "The file to read. " * 56}},
        }
        tools = [{"type": "function", "function": {"name": f"t{n}", "parameters": schema}} for n in range(100)]
        body = json.dumps({"model": "gpt-4o", "max_tokens": 8000, "tools": tools, "messages": []}).encode()
        self.assertGreater(len(body), 110_000)
        self.assertEqual(self.exchange(body=body, answer=ANSWER).status, 200)


class GivenBack(Limited):
    def test_a_provider_that_cannot_be_reached(self) -> None:
        """What never left is not counted: not as a request, not as tokens, not as money."""
        self.restart(circuit_breaker={"failures": 2})
        self.limit(requests_per_minute=1, concurrency=1, budget_tokens=(Budget(1100, "lifetime"),))
        servers, self.network.servers = self.network.servers, {}
        codes = [parse_response(self.ask(body=BODY).take())["X-LLMProxy-Error"] for _ in range(4)]
        self.assertEqual(codes, ["upstream_unreachable", "upstream_unreachable", "circuit_open", "circuit_open"])
        self.network.servers = servers
        self.network.advance(31)
        self.assertEqual(self.exchange(body=BODY, answer=ANSWER).status, 200)

    def test_a_project_without_a_key(self) -> None:
        self.limit(requests_per_minute=1)
        self.projects.keys["project-1"] = ""
        for _ in range(3):
            self.assertEqual(parse_response(self.ask().take())["X-LLMProxy-Error"], "upstream_auth_error")
        self.projects.keys["project-1"] = "sk-provider"
        self.assertEqual(self.exchange().status, 200)
