"""What is refused: with the right status, code and fields, in the client's own error shape, and never forwarded."""

from __future__ import annotations

from typing import Any

from llmproxy import errors
from llmproxy.config.api_settings import Api
from llmproxy.model import Grant
from tests.support.proxy_case import BASE_URL, CHAT, OK, OTHER, TOKEN, ProxyTestCase, request
from tests.support.responses import parse_response


class Refusals(ProxyTestCase):
    def refused(self, status: int, code: str, *lines: str, **parts: Any) -> Any:
        """A request on its own stage is refused, and the provider hears nothing."""
        self.restart()
        got = parse_response(self.ask(*lines, **parts).take())
        self.assert_rejected(got, status, code)
        self.assertEqual((self.network.dialled, self.tokens.counted), (0, []))
        return got

    def test_no_token(self) -> None:
        for line in ("X-A: b", "Authorization: Basic eA==", "Authorization: Bearer", "Authorization: Bearer a b"):
            got = self.refused(401, "missing_token", line, token=None)
            self.assertEqual((got["WWW-Authenticate"], got["X-Should-Retry"]), ('Bearer realm="llmproxy"', "false"))
            self.assertEqual(got["Cache-Control"], "no-store")
            self.assertEqual(got.json["error"]["type"], "authentication_error")

    def test_two_tokens(self) -> None:
        """Nobody can say which of them counts."""
        self.refused(401, "missing_token", f"Authorization: Bearer {OTHER}")

    def test_tokens_that_may_not_be_used(self) -> None:
        for error in (errors.TokenNotFound, errors.TokenInactive, errors.TokenExpired):
            self.tokens.failing = error()
            got = self.refused(401, error.code)
            self.assertEqual(got["X-Should-Retry"], "false")

    def test_a_token_that_is_used_up(self) -> None:
        """429 that no client repeats; the provider is not asked."""
        validate = self.tokens.validate_token

        async def used_up(token: str) -> Grant | str:
            await validate(token)
            raise errors.QuotaExceeded

        self.tokens.validate_token_with_tracking = used_up  # type: ignore[method-assign]
        got = self.refused(429, "quota_exceeded")
        self.assertEqual((got["X-Should-Retry"], got.json["error"]["type"]), ("false", "insufficient_quota"))

    def test_a_validator_that_fails(self) -> None:
        """Is 503, whatever it failed with, and never 401; the client may try again, and learns no details."""
        for failing in (OSError("db-password"), KeyError("db-password"), errors.StoreUnavailable("Try again.")):
            self.tokens.failing = failing
            got = self.refused(503, "store_unavailable")
            self.assertEqual(got.all("X-Should-Retry"), [])
            self.assertNotIn(b"password", got.body)

    def test_a_validator_that_only_knows_projects(self) -> None:
        self.tokens.grants[TOKEN] = "project-1"
        self.assertEqual(self.exchange().status, 200)
        self.assertEqual((self.record().project_id, self.record().token_id), ("project-1", ""))

    def test_paths_that_are_not_on_the_list(self) -> None:
        for path in ("/", "/v1", "/v1/chat", "/v1/chat/completions/x", "/v1/files", "/v1/models/a/b", CHAT + "/"):
            got = self.refused(403, "endpoint_not_allowed", path=path)
            self.assertEqual(got["X-Should-Retry"], "false")

    def test_paths_in_disguise(self) -> None:
        """Are refused, not tidied up: what one reader takes for one path, another takes for another."""
        for path in (
            "//v1/chat/completions",
            "/v1//chat/completions",
            "/v1/../v1/chat/completions",
            "/v1/models/../chat/completions",
            "/v1/models/..",
            "/v1/./chat/completions",
            "/v1/models/%2e%2e",
            "/v1/models/%2E%2e/files",
            "/v1%2fchat%2Fcompletions",
            "/v1/models/a%2fb",
            "/v1/models/..%2ffiles",
            "/v1/chat/completions;x=y",
            "/v1/chat;/completions",
            "/v1/chat/completions%3b",
            "/v1/chat/completions%00",
            "/v1/chat/completions%3Fa",
            "/v1/models/%252e%252e",
        ):
            got = self.refused(400, "bad_request_target", path=path)
            self.assertEqual(got["X-Should-Retry"], "false")
        for path in (
            "/V1/chat/completions",
            "/v1/Chat/Completions",
            "/v1/chat/completion%73",
            "/v1/%63hat/completions",
        ):
            self.refused(403, "endpoint_not_allowed", path=path)

    def test_paths_that_are_none(self) -> None:
        """Are refused before anybody looks for their API."""
        for path in ("/v1\\chat\\completions", f"{CHAT}%", f"{CHAT}%zz", f"{CHAT}#x", "v1/models"):
            client = self.ask(path=path)
            self.assertEqual((parse_response(client.take()).status, client.end), (400, "closed"))
        self.assertEqual(self.site_errors, [(400, "bad_request_target")] * 5)
        self.assertEqual(self.network.dialled, 0)

    def test_no_such_api(self) -> None:
        """Where there is no C{default_api}, a path must begin with the name of one."""
        self.default = ""
        self.restart({"other": Api(base_url=BASE_URL, allowed_endpoints=("/v1/models",))})
        self.assert_rejected(parse_response(self.ask(path="/v1/models").take()), 404, "not_found")
        self.assertEqual(self.exchange(path="/other/v1/models").status, 200)

    def test_methods(self) -> None:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            self.restart()
            client = self.ask(method=method)
            got = client.take()
            self.assertIn(b"HTTP/1.1 405 Method Not Allowed\r\n", got)
            self.assertIn(b"\r\nAllow: GET, HEAD, POST\r\n", got)
            self.assert_recorded("refused", 405, "method_not_allowed")

    def test_a_websocket(self) -> None:
        """426 at once, with a body, and nothing used: Codex then goes on over HTTP, instead of trying seven times."""
        wanted = ["Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        for token in (TOKEN, None):
            self.restart()
            got = parse_response(self.ask(*wanted, method="GET", path="/v1/responses", body=None, token=token).take())
            self.assert_rejected(got, 426, "upgrade_required")
            self.assertEqual((got["Upgrade"], got["X-Should-Retry"]), ("HTTP/1.1", "false"))
            self.assertEqual((self.network.dialled, self.tokens.counted), (0, []))

    def test_other_upgrades(self) -> None:
        """Are offers that need not be taken (RFC 9110, section 7.8)."""
        for line in ("Upgrade: h2c", "Upgrade: TLS/1.0"):
            self.assertEqual(self.exchange("Connection: Upgrade", line).status, 200)
        self.assertEqual(self.exchange("Upgrade: websocket").status, 200)

    def test_the_head_of_what_can_be_got(self) -> None:
        client = self.ask(method="HEAD", path="/v1/models", body=None)
        self.assertTrue(self.forwarded_request()[0].startswith("HEAD /v1/models "))
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        got = client.take()
        self.assertIn(b"\r\nContent-Length: 7\r\n", got)
        self.assertTrue(got.endswith(b"\r\n\r\n"))

    def test_a_look_at_an_api(self) -> None:
        """Claude Code begins with HEAD at its base URL, without a token; that is no refusal."""
        for path in ("/", "/openai", "/openai/"):
            self.restart()
            got = self.ask(method="HEAD", path=path, body=None, token=None).take()
            self.assertTrue(got.startswith(b"HTTP/1.1 200 OK\r\n"), got)
            self.assertTrue(got.endswith(b"\r\n\r\n"))
            self.assert_recorded("complete", 200)
        self.assertEqual((self.network.dialled, self.tokens.asked), (0, 0))

    def test_a_body_that_is_announced_too_large(self) -> None:
        """Is refused before anything of it is read or asked for, and the connection ends."""
        self.server = {"max_request_bytes": 1000}
        self.restart()
        client = self.client()
        client.send(request("Expect: 100-continue", body=None)[:-2] + b"Content-Length: 1001\r\n\r\n")
        got = parse_response(client.take())
        self.assert_rejected(got, 413, "request_too_large")
        self.assertEqual((got["Connection"], got["X-Should-Retry"]), ("close", "false"))
        self.assertEqual((self.network.dialled, client.end), (0, "closed"))

    def test_a_body_that_becomes_too_large(self) -> None:
        """The provider's connection is torn down: half a request is none."""
        self.server = {"max_request_bytes": 1000}
        self.restart()
        client = self.client()
        client.send(request("Transfer-Encoding: chunked", body=None) + b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        self.assertEqual(client.take(), b"")
        client.send(b"1\r\nx\r\n")
        self.assert_rejected(parse_response(client.take()), 413, "request_too_large")
        self.assertEqual(self.provider.last.end, "reset")

    def test_a_body_that_is_no_body(self) -> None:
        client = self.client()
        client.send(request("Transfer-Encoding: chunked", body=None) + b"1\r\nx\r\n")
        client.send(b"zz\r\n")
        self.assert_rejected(parse_response(client.take()), 400, "invalid_body")
        self.assertEqual(self.provider.last.end, "reset")

    def test_a_body_that_does_not_come(self) -> None:
        client = self.client()
        client.send(request(body=None)[:-2] + b"Content-Length: 10\r\n\r\nfirst")
        self.network.pass_time(30)
        self.assert_rejected(parse_response(client.take()), 408, "request_timeout")
        self.assertEqual(self.provider.last.end, "reset")

    def test_a_project_without_a_key(self) -> None:
        """503 that no client repeats: only an operator can change it."""
        self.projects.keys["project-1"] = ""
        got = parse_response(self.ask().take())
        self.assert_rejected(got, 503, "upstream_auth_error")
        self.assertEqual((got["X-Should-Retry"], self.network.dialled), ("false", 0))

    def test_a_store_that_fails_to_give_the_key(self) -> None:
        del self.projects.keys["project-1"]
        got = parse_response(self.ask().take())
        self.assert_rejected(got, 503, "store_unavailable")

    def test_the_next_request_on_the_connection(self) -> None:
        """Is answered after a refusal as if nothing had been."""
        client = self.client()
        client.send(request(path="/v1/files"))
        self.assertEqual(parse_response(client.take()).status, 403)
        client.send(request())
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)


class Shapes(ProxyTestCase):
    """Each API's clients are told in the shape they know."""

    def ask_of(self, api: str) -> Any:
        more: dict[str, Any] = {
            "allowed_endpoints": ("/v1/x",),
            "base_url": BASE_URL,
        }
        self.restart(
            {
                "google": Api(provider="google", **more),
                "anthropic": Api(provider="anthropic", **more),
                "plain": Api(error_format="plain", **more),
            }
        )
        return parse_response(self.ask(path=f"/{api}/v1/x", token=None).take())

    def test_google(self) -> None:
        got = self.ask_of("google").json
        self.assertEqual((got["error"]["code"], got["error"]["status"]), (401, "UNAUTHENTICATED"))
        self.assertIn("No token.", got["error"]["message"])

    def test_anthropic(self) -> None:
        got = self.ask_of("anthropic").json
        self.assertEqual((got["type"], got["error"]["type"]), ("error", "authentication_error"))

    def test_plain(self) -> None:
        got = self.ask_of("plain").json
        self.assertEqual((got["code"], got["error"]), ("missing_token", "Missing token"))
        self.assertIn("No token.", got["description"])

    def test_a_path_that_is_refused(self) -> None:
        """Takes the shape of the API that it would have been for."""
        self.ask_of("google")
        got = parse_response(self.ask(path="/google/v1/none").take()).json
        self.assertEqual(got["error"]["status"], "PERMISSION_DENIED")
