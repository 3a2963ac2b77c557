from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from unittest import TestCase

from llmproxy import errors
from llmproxy.http import error_body, fields


@dataclass
class Api:
    provider: str = "openai"
    error_format: str = "auto"


def body(error: errors.ProxyError, flavour: str = "hybrid") -> dict[str, Any]:
    value: dict[str, Any] = json.loads(error_body.render(error, flavour, "rid-1")[1])
    return value


def header(error: errors.ProxyError, name: bytes) -> bytes | None:
    return fields.value(error_body.render(error, "hybrid", "rid-1")[0], name)


class Bodies(TestCase):
    def test_for_openai_and_anthropic_at_once(self) -> None:
        """Both SDKs find message, type, code and request id where they look."""
        self.assertEqual(
            body(errors.TokenExpired("Token expired")),
            {
                "type": "error",
                "error": {
                    "message": "Token expired",
                    "type": "authentication_error",
                    "param": None,
                    "code": "token_expired",
                    "details": {"error_code": "token_expired"},
                },
                "code": "token_expired",
                "request_id": "rid-1",
            },
        )

    def test_for_google(self) -> None:
        """In google.rpc's shape."""
        self.assertEqual(
            body(errors.TokenExpired("Token expired"), "google"),
            {
                "error": {
                    "code": 401,
                    "message": "Token expired",
                    "status": "UNAUTHENTICATED",
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                            "reason": "TOKEN_EXPIRED",
                            "domain": "llmproxy",
                        }
                    ],
                },
                "code": "token_expired",
                "request_id": "rid-1",
            },
        )
        retry = body(errors.CircuitOpen(retry_after=2.5), "google")["error"]
        self.assertEqual((retry["status"], retry["details"][1]["retryDelay"]), ("UNAVAILABLE", "2.5s"))

    def test_plain(self) -> None:
        """A title, a code, a sentence."""
        self.assertEqual(
            body(errors.TokenExpired(), "plain"),
            {"error": "Token expired", "code": "token_expired", "description": "This token has expired."},
        )

    def test_types(self) -> None:
        """One that the SDKs know for every status."""
        for error, kind in (
            (errors.BadRequest(), "invalid_request_error"),
            (errors.EndpointNotAllowed(), "permission_error"),
            (errors.NotFound(), "not_found_error"),
            (errors.MethodNotAllowed(), "invalid_request_error"),
            (errors.RequestTooLarge(), "request_too_large"),
            (errors.QuotaExceeded(), "insufficient_quota"),
            (errors.TooManyFailures(), "rate_limit_error"),
            (errors.InternalError(), "api_error"),
            (errors.UpstreamUnreachable(), "api_error"),
            (errors.StoreUnavailable(), "api_error"),
            (errors.CircuitOpen(), "overloaded_error"),
            (errors.UpstreamTimeout(), "timeout_error"),
        ):
            self.assertEqual(body(error)["error"]["type"], kind)

    def test_every_error_has_every_shape(self) -> None:
        """None is forgotten when one is added."""
        todo = [errors.ProxyError]
        while todo:
            kind = todo.pop()
            todo += [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
            for flavour in ("hybrid", "google", "plain", "auto"):
                self.assertEqual(body(kind(), flavour)["code"], kind.code)

    def test_text_that_cannot_be_encoded(self) -> None:
        """Is shown as well as it can be."""
        self.assertIn("?", body(errors.BadRequest("\ud800"))["error"]["message"])


class Headers(TestCase):
    def test_always_there(self) -> None:
        """The id under both names, and whose error it is."""
        error = errors.TokenExpired()
        self.assertEqual(header(error, b"content-type"), b"application/json")
        self.assertEqual(header(error, b"x-request-id"), b"rid-1")
        self.assertEqual(header(error, b"request-id"), b"rid-1")
        self.assertEqual(header(error, b"x-llmproxy-error"), b"token_expired")
        self.assertEqual(header(error, b"www-authenticate"), b'Bearer realm="llmproxy", error="invalid_token"')
        self.assertEqual(header(errors.MissingToken(), b"www-authenticate"), b'Bearer realm="llmproxy"')
        self.assertEqual(header(error, b"cache-control"), b"no-store")
        self.assertNotIn(b"Request-ID", b"".join(error_body.render(error, "plain", "")[0]))

    def test_the_errors_own(self) -> None:
        """Such as Allow, on one line whatever it holds."""
        self.assertEqual(header(errors.MethodNotAllowed(headers={"Allow": "GET, POST"}), b"allow"), b"GET, POST")
        self.assertEqual(header(errors.NotFound(headers={"X": "a\r\nb: c"}), b"x"), b"a??b: c")

    def test_no_retry_where_none_can_help(self) -> None:
        """The SDKs would try three times."""
        hopeless: list[errors.ProxyError] = [
            errors.TokenExpired(),
            errors.QuotaExceeded(),
            errors.EndpointNotAllowed(),
            errors.RequestTooLarge(),
            errors.CircuitOpen(retry_after=31),
            errors.TooManyFailures(retry_after=61),
            errors.UpstreamTimeout(),
        ]
        for error in hopeless:
            self.assertEqual(header(error, b"x-should-retry"), b"false")
        for error in (
            errors.CircuitOpen(retry_after=30),
            errors.UpstreamBroken(),
            errors.TooManyFailures(retry_after=60),
        ):
            self.assertIsNone(header(error, b"x-should-retry"))

    def test_when_to_retry(self) -> None:
        """In whole seconds, and to the millisecond where that is less."""
        for wait, seconds, millis in ((0.25, b"1", b"250"), (3, b"3", None), (1.5, b"2", b"1500"), (-1, b"0", None)):
            error = errors.TooManyFailures(retry_after=wait)
            self.assertEqual(header(error, b"retry-after"), seconds)
            self.assertEqual(header(error, b"retry-after-ms"), millis)
        for never in (None, float("inf"), float("nan")):
            self.assertIsNone(header(errors.TooManyFailures(retry_after=never), b"retry-after"))


class Flavours(TestCase):
    def test_the_settings_decide(self) -> None:
        """Or the provider, where they say auto."""
        for provider, error_format, flavour in (
            ("google", "auto", "google"),
            ("openai", "auto", "hybrid"),
            ("anthropic", "auto", "hybrid"),
            ("generic", "auto", "hybrid"),
            ("google", "openai", "hybrid"),
            ("google", "anthropic", "hybrid"),
            ("openai", "google", "google"),
            ("openai", "plain", "plain"),
        ):
            self.assertEqual(error_body.error_format_of(Api(provider, error_format)), flavour)
