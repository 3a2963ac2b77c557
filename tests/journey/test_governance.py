"""What a project, a token and an API's settings allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmproxy.auth.caching_validator import CachedTokenValidator
from llmproxy.model import Grant
from tests.support.proxy_case import OK, TOKEN, ProxyTestCase, request
from tests.support.responses import parse_response


class Guard(ProxyTestCase):
    """The project guard; each refusal is audited."""

    def assert_audited(self, outcome: str, code: str) -> None:
        (entry,) = self.audit.entries
        self.assertEqual((entry.action, entry.actor, entry.outcome), ("request.refused", "token:token-1", outcome))
        self.assertEqual((entry.project_id, entry.client, entry.at), ("project-1", "192.0.2.1", 1_000_000.0))
        self.assertEqual((entry.details, entry.request_id), ({"code": code}, self.record().request_id))

    def test_inactive(self) -> None:
        self.projects.active = False
        got = parse_response(self.ask().take())
        self.assert_rejected(got, 403, "project_inactive")
        self.assertEqual((got["X-Should-Retry"], self.network.dialled), ("false", 0))
        self.assert_audited("denied", "project_inactive")

    def test_inactive_by_the_grant(self) -> None:
        """The store is not asked then."""
        self.projects.active = OSError()
        self.tokens.grants[TOKEN] = replace(self.tokens.grants[TOKEN], project_active=False)
        self.assert_rejected(parse_response(self.ask().take()), 403, "project_inactive")
        self.assert_audited("denied", "project_inactive")

    def test_unknown(self) -> None:
        """503: a store that is down is no reason to let anybody in, nor to say that the project is inactive."""
        self.projects.active = OSError("password")
        got = parse_response(self.ask().take())
        self.assert_rejected(got, 503, "store_unavailable")
        self.assertEqual(got.all("X-Should-Retry"), [])
        self.assertNotIn(b"password", got.body)
        self.assert_audited("error", "store_unavailable")

    def test_not_enforced(self) -> None:
        self.server = {"enforce_project_active": False}
        self.restart()
        self.projects.active = False
        self.assertEqual(self.exchange().status, 200)
        self.assertEqual(self.audit.entries, [])

    def test_an_audit_log_that_cannot_be_written(self) -> None:
        """The request is refused all the same, and the client is not told what was not written down."""
        self.projects.active = False
        self.audit.failing = OSError("disk full")
        self.assert_rejected(parse_response(self.ask().take()), 503, "audit_unavailable")
        self.assertEqual(self.network.dialled, 0)


class Grants(ProxyTestCase):
    def refused(self, status: int, code: str, grant: Grant, **parts: Any) -> None:
        self.restart()
        self.tokens.grants[TOKEN] = grant
        self.assert_rejected(parse_response(self.ask(**parts).take()), status, code)
        self.assertEqual(self.network.dialled, 0)

    def allowed(self, grant: Grant, **parts: Any) -> None:
        self.restart()
        self.tokens.grants[TOKEN] = grant
        self.assertEqual(self.exchange(**parts).status, 200)
        self.network.dialled = 0

    def test_apis(self) -> None:
        self.refused(403, "api_not_allowed", Grant("project-1", apis=("google",)))
        self.allowed(Grant("project-1", apis=("google", "openai")))

    def test_endpoints(self) -> None:
        self.refused(403, "endpoint_not_allowed", Grant("project-1", endpoints=("/v1/models",)))
        self.allowed(Grant("project-1", endpoints=("/v1/models",)), path="/v1/models")

    def test_endpoints_with_a_method(self) -> None:
        """With the method that it names, and with no other."""
        grant = Grant("project-1", endpoints=("GET /v1/models",))
        self.allowed(grant, method="GET", path="/v1/models", body=None)
        self.refused(403, "endpoint_not_allowed", grant, method="POST", path="/v1/models")

    def test_addresses(self) -> None:
        self.refused(403, "address_not_allowed", Grant("project-1", ips=("10.0.0.0/8", "2001:db8::/32")))
        self.allowed(Grant("project-1", ips=("10.0.0.0/8", "192.0.2.0/24")))

    def test_models(self) -> None:
        """By the body, which is read whole for that and still sent as it was."""
        grant = Grant("project-1", models=("gpt-4o", "gpt-4.1-*"))
        for body in (b'{"model":"gpt-5"}', b'{"model":"GPT-4o"}'):
            self.refused(403, "model_not_allowed", grant, body=body)
        self.refused(400, "invalid_body", grant, body=b'{"model":"gpt-5","model":"gpt-4o"}')
        self.refused(400, "param_not_allowed", grant, body=b'{"Model":"gpt-5"}')
        body = b' {"model": "gpt-4.1-mini",\t"n": 9007199254740993}\r\n'
        self.allowed(grant, body=body)
        self.assertEqual(self.forwarded_request()[2], body)


class Remembered(ProxyTestCase):
    """With a validator that remembers, as the daemon has it."""

    def validator(self) -> CachedTokenValidator:
        return CachedTokenValidator(self.tokens, clock=self.network, now=self.network.seconds, ttl=5.0)  # type: ignore[arg-type]

    def test_a_token_that_is_known(self) -> None:
        """Is looked up once, and each of its uses is counted."""
        for _ in range(3):
            self.assertEqual(self.exchange().status, 200)
        self.assertEqual((self.tokens.counted, self.tokens.asked), ([TOKEN] * 3, 1 + 3))

    def test_a_store_that_is_down(self) -> None:
        """Is felt once nothing is remembered any more."""
        self.exchange()
        self.network.pass_time(5)
        self.tokens.failing = OSError("password")
        got = parse_response(self.ask().take())
        self.assertEqual((got.status, got.json["error"]["code"]), (503, "store_unavailable"))
        self.flushLoggedErrors(OSError)  # for whoever runs it, the reason is in the log

    def test_a_token_that_expires(self) -> None:
        """Does so on the second, whatever is remembered."""
        self.tokens.grants[TOKEN] = replace(self.tokens.grants[TOKEN], expires_at=2.0)
        self.exchange()
        self.network.pass_time(2)
        self.assertEqual(parse_response(self.ask().take())["X-LLMProxy-Error"], "token_expired")


class Parameters(ProxyTestCase):
    api = {"param_whitelist": {"model": ["gpt-4o", "gpt-4.1-*"], "n": ["1"]}}  # noqa: RUF012

    def test_allowed(self) -> None:
        for body in (b'{"model":"gpt-4o","n":1,"other":[1]}', b"{}", b'{"model":"gpt-4.1-nano"}'):
            self.assertEqual(self.exchange(body=body).status, 200)
            self.assertEqual(self.forwarded_request()[2], body)

    def test_not_allowed(self) -> None:
        """Whatever the content type says, or if it says nothing."""
        for body, code in [
            (b'{"model":"gpt-5"}', "param_not_allowed"),
            (b'{"model":["gpt-4o"]}', "param_not_allowed"),
            (b'{"model":"gpt-4o","n":2}', "param_not_allowed"),
            (b'{"model":"gpt-4o","MODEL":"gpt-5"}', "param_not_allowed"),
            (b'{"model":"gpt-5","model":"gpt-4o"}', "invalid_body"),
            (b'{"model":"gpt-4o"} {"model":"gpt-5"}', "invalid_body"),
            (b"model=gpt-5", "invalid_body"),
            (b'\xef\xbb\xbf{"model":"gpt-4o"}', "invalid_body"),
        ]:
            for lines in ([], ["Content-Type: text/plain"], ["Content-Type: application/json; charset=utf-16"]):
                self.restart()
                self.assert_rejected(parse_response(self.ask(*lines, body=body).take()), 400, code)
        self.assertEqual(self.network.dialled, 0)

    def test_a_coded_body(self) -> None:
        """Cannot be looked into, so it is refused."""
        self.assert_rejected(parse_response(self.ask("Content-Encoding: gzip").take()), 400, "invalid_body")

    def test_in_pieces(self) -> None:
        """The body is awaited before anything of it is sent."""
        client = self.client()
        client.send(request("Transfer-Encoding: chunked", body=None) + b'7\r\n{"model\r\n')
        self.assertEqual(self.network.dialled, 0)
        client.send(b'b\r\n":"gpt-4o"}\r\n0\r\n\r\n')
        _, lines, body = self.forwarded_request()
        self.assertEqual((body, lines[-1]), (b'{"model":"gpt-4o"}', "Content-Length: 18"))
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)

    def test_no_body(self) -> None:
        self.assertEqual(self.exchange(method="GET", path="/v1/models", body=None).status, 200)


class Origins(ProxyTestCase):
    api = {"allowed_origins": ["https://app.example"], "required_headers": ["origin", "X-Team"]}  # noqa: RUF012

    def preflight(self, origin: str = "https://app.example", *more: str, **parts: Any) -> Any:
        lines = (f"Origin: {origin}", "Access-Control-Request-Method: POST", *more)
        return parse_response(self.ask(*lines, method="OPTIONS", body=None, token=None, **parts).take())

    def test_a_preflight(self) -> None:
        """Is answered here, without a token."""
        got = self.preflight("https://app.example", "Access-Control-Request-Headers: authorization, x-team")
        self.assertEqual((got.status, got["Access-Control-Allow-Origin"]), (204, "https://app.example"))
        self.assertEqual(got["Access-Control-Allow-Methods"], "GET, POST")
        self.assertEqual((got["Access-Control-Allow-Headers"], got["Vary"]), ("authorization, x-team", "Origin"))
        self.assertEqual(self.network.dialled, 0)
        self.assert_recorded("complete", 204)

    def test_a_preflight_from_elsewhere(self) -> None:
        """Is refused, and its origin is not reflected."""
        got = self.preflight("https://evil.example")
        self.assert_rejected(got, 403, "origin_not_allowed")
        self.assertEqual((got.all("Access-Control-Allow-Origin"), b"evil" in got.body), ([], False))

    def test_a_preflight_for_what_may_not_be_called(self) -> None:
        self.assert_rejected(self.preflight(path="/v1/files"), 403, "endpoint_not_allowed")

    def test_a_page_that_may(self) -> None:
        """Gets the proxy's word on origins, not the provider's."""
        answer = OK.replace(b"\r\n\r\n", b"\r\nAccess-Control-Allow-Origin: *\r\n\r\n")
        got = self.exchange("Origin: https://app.example", "X-Team: a", answer=answer)
        self.assertEqual((got["Access-Control-Allow-Origin"], got["Vary"]), ("https://app.example", "Origin"))
        self.assertEqual(got["Access-Control-Expose-Headers"], "*")
        self.assertIn("Origin: https://app.example", self.forwarded_request()[1])

    def test_a_page_that_may_not(self) -> None:
        got = parse_response(self.ask("Origin: https://evil.example", "X-Team: a").take())
        self.assert_rejected(got, 403, "origin_not_allowed")
        self.assertEqual(got.all("Access-Control-Allow-Origin"), [])

    def test_a_refusal(self) -> None:
        """Can be read by a page that may call."""
        got = parse_response(self.ask("Origin: https://app.example", "X-Team: a", token="wrong").take())
        self.assert_rejected(got, 401, "token_not_found")
        self.assertEqual(got["Access-Control-Allow-Origin"], "https://app.example")

    def test_required_headers(self) -> None:
        self.assert_rejected(parse_response(self.ask("X-Team: a").take()), 400, "origin_required")
        self.restart()
        self.assert_rejected(parse_response(self.ask("Origin: https://app.example").take()), 400, "header_required")


class TrustedProxies(ProxyTestCase):
    """Peers come from 192.0.2.1, which is a proxy of ours."""

    server = {"trusted_proxies": ("192.0.2.0/24",)}  # noqa: RUF012

    def test_whose_request_it_is(self) -> None:
        """The address that the proxy in front saw counts, for the record and for the token's networks."""
        self.tokens.grants[TOKEN] = Grant("project-1", ips=("198.51.100.0/24",))
        got = self.exchange("X-Forwarded-For: 10.9.9.9, 198.51.100.7")
        self.assertEqual(got.status, 200)
        self.assertEqual(self.record().client, "198.51.100.7")
        _, lines, _ = self.forwarded_request()
        self.assertEqual([line for line in lines if "forwarded" in line.lower()], [])

    def test_what_the_client_made_up(self) -> None:
        self.tokens.grants[TOKEN] = Grant("project-1", ips=("198.51.100.0/24",))
        got = parse_response(self.ask("X-Forwarded-For: 198.51.100.7, 203.0.113.9").take())
        self.assert_rejected(got, 403, "address_not_allowed")
