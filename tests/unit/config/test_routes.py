from __future__ import annotations

from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy import errors
from llmproxy.config import routes
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.config.routes import Routes
from llmproxy.http.origin import Origin


def api(**settings: Any) -> Api:
    settings = {
        "base_url": "https://api.openai.com",
        "allowed_endpoints": ("/v1/chat/completions", "/v1/models"),
    } | settings
    return Api(**settings)


def made(default: str = "openai", **more: Api) -> Routes:
    return Routes(Settings(default_api=default, apis={"openai": api(provider="openai"), **more}))


GOOGLE = api(
    provider="google",
    base_url="https://generativelanguage.googleapis.com",
    allowed_endpoints=("/v1beta/models/*:generateContent", "/v1beta/models/*:streamGenerateContent"),
    allowed_methods=("POST",),
)


class Matching(TestCase):
    def test_the_default_api(self) -> None:
        """At the root, byte for byte."""
        route = made().match(b"POST", b"/v1/chat/completions?a=%20&b")
        self.assertEqual((route.api_name, route.endpoint), ("openai", "/v1/chat/completions"))
        self.assertEqual(
            (route.target, route.path, route.query),
            (b"/v1/chat/completions?a=%20&b", b"/v1/chat/completions", b"a=%20&b"),
        )
        self.assertEqual((route.origin.host_header, route.auth), (b"api.openai.com", "bearer"))

    def test_an_api_under_its_name(self) -> None:
        """Its provider does not see the prefix."""
        route = made(google=GOOGLE).match(
            b"POST", b"/google/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
        )
        self.assertEqual(route.api_name, "google")
        self.assertEqual(route.target, b"/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse")
        self.assertEqual(route.auth, "x-goog-api-key")

    def test_a_base_url_with_a_path(self) -> None:
        """Comes first in what is sent."""
        for base in ("http://localhost:8000/some/base", "http://localhost:8000/some/base/"):
            route = made(local=api(base_url=base)).match(b"GET", b"/local/v1/models")
            self.assertEqual(route.target, b"/some/base/v1/models")
            self.assertEqual(route.path, b"/v1/models")
            self.assertEqual(route.origin, Origin("http", "localhost", 8000))

    def test_no_such_api(self) -> None:
        """404 where there is no default, 403 where the default does not have the path."""
        for uri in (b"/v1/models", b"/", b"/openai"):
            with self.assertRaises(errors.NotFound):
                made(default="", google=GOOGLE).match(b"GET", uri)
        for uri in (b"/nothing/v1/models", b"/openai", b"/OpenAI/v1/models", b"/openai/openai/v1/models", b"/openai/"):
            with self.assertRaises(errors.EndpointNotAllowed):
                made().match(b"GET", uri)

    def test_methods(self) -> None:
        """In exact case; the refusal lists them."""
        for method in (b"DELETE", b"get", b"OPTIONS", b"PURGE", b""):
            with self.subTest(method=method), self.assertRaises(errors.MethodNotAllowed) as caught:
                made().match(method, b"/v1/models")
            self.assertEqual(caught.exception.headers["Allow"], "GET, HEAD, POST")

    def test_head(self) -> None:
        """Is allowed where GET is (RFC 9110, section 9.3.2), and nowhere else unless it is on the list."""
        self.assertEqual(made().match(b"HEAD", b"/v1/models").endpoint, "/v1/models")
        for methods, allowed in (("POST",), False), (("POST", "HEAD"), True):
            found = made(other=api(allowed_methods=methods))
            if allowed:
                found.match(b"HEAD", b"/other/v1/models")
            else:
                with self.assertRaises(errors.MethodNotAllowed) as caught:
                    found.match(b"HEAD", b"/other/v1/models")
                self.assertEqual(caught.exception.headers["Allow"], "POST")

    def test_roots(self) -> None:
        """Each API has one, and the default API that of the server."""
        found = made()
        for uri in (b"/", b"/openai", b"/openai/", b"/openai?beta=1"):
            self.assertTrue(found.is_root(uri), uri)
        for uri in (b"/nothing", b"/v1", b"/openai/v1"):
            self.assertFalse(found.is_root(uri), uri)
        self.assertFalse(made(default="", google=GOOGLE).is_root(b"/"))

    def test_ways_around_the_list(self) -> None:
        """Each is refused before anything is sent."""
        found = made()
        for uri in (
            b"/v1/models/../secrets",
            b"/v1/%2e%2e/x",
            b"/v1//models",
            b"//v1/models",
            b"/v1/models;x",
            b"/v1%2Fmodels",
            b"/openai%2Fv1/models",
            b"/v1\\models",
            b"v1/models",
            b"/v1/models#x",
            b"/v1/models?x#y",
            b"/v1/models?a b",
            b"/v1/models%00",
        ):
            with self.subTest(uri=uri), self.assertRaises(errors.BadTarget):
                found.match(b"GET", uri)
        for uri in (b"/v1/models/", b"/V1/models", b"/v1/modelsx", b"/v1/models/x", b"/v1/m%6Fdels"):
            with self.subTest(uri=uri), self.assertRaises(errors.EndpointNotAllowed):
                found.match(b"GET", uri)

    def test_an_encoded_slash_that_an_endpoint_has(self) -> None:
        """Goes as it came."""
        found = made(bedrock=api(allowed_endpoints=("/model/*%2F*/invoke",)))
        self.assertEqual(found.match(b"POST", b"/bedrock/model/a%2fb/invoke").target, b"/model/a%2fb/invoke")

    def test_a_preflight(self) -> None:
        """Asks about a path, whatever the methods are."""
        found = made()
        self.assertEqual(found.preflight(b"/v1/models?a").endpoint, "/v1/models")
        with self.assertRaises(errors.EndpointNotAllowed):
            found.preflight(b"/v1/secrets")
        with self.assertRaises(errors.MethodNotAllowed):
            found.match(b"OPTIONS", b"/v1/models")

    def test_which_api_a_refusal_is_for(self) -> None:
        """Even of a path that is not one."""
        found = made(google=GOOGLE)
        self.assertIs(found.api_of(b"/google/../x?y"), GOOGLE)
        self.assertEqual(found.api_of(b"//x"), api(provider="openai"))
        self.assertIsNone(made(default="", google=GOOGLE).api_of(b"/x"))

    def test_a_query_without_its_credential(self) -> None:
        """Is what is sent."""
        route = made().match(b"GET", b"/v1/models?key=x&a=b")
        self.assertEqual(route.with_query(b"a=b").target, b"/v1/models?a=b")
        self.assertEqual(route.with_query(None).target, b"/v1/models")
        self.assertEqual(route.with_query(b"").target, b"/v1/models?")
        self.assertIs(route.with_query(b"key=x&a=b"), route)
        self.assertEqual(made().match(b"GET", b"/v1/models?").target, b"/v1/models?")


class Remembering(TestCase):
    def test_the_same_route(self) -> None:
        """Is found by one look-up, and a query belongs to its request alone."""
        found = made()
        first = found.match(b"GET", b"/v1/models")
        self.assertEqual(found.match(b"GET", b"/v1/models?a").query, b"a")
        self.assertIs(found.match(b"GET", b"/v1/models"), first)

    def test_an_allowed_method_does_not_open_the_path_to_another(self) -> None:
        """Nor does a preflight."""
        found = made(google=GOOGLE)
        uri = b"/google/v1beta/models/x:generateContent"
        found.match(b"POST", uri)
        found.preflight(uri)
        for method in (b"GET", b"OPTIONS", b"PUT"):
            with self.assertRaises(errors.MethodNotAllowed):
                found.match(method, uri)

    def test_a_client_that_makes_up_paths(self) -> None:
        """Costs no memory."""
        found = made(deep=api(allowed_endpoints=("/**",)))
        for number in range(routes.MAX_MEMO_ROUTES + 10):
            found.match(b"GET", b"/deep/%d" % number)
        found.match(b"GET", b"/deep/" + b"x" * 10_000)
        self.assertLessEqual(len(found._memo), routes.MAX_MEMO_ROUTES)
        self.assertNotIn((b"GET", b"/deep/" + b"x" * 10_000), found._memo)


class Properties(TestCase):
    @given(st.text("/.%2eEfF;ab\\?#v1models", max_size=20).map(lambda tail: b"/local/v1/" + tail.encode()))
    def test_what_is_sent_is_what_was_matched(self, uri: bytes) -> None:
        """Base, then the client's own bytes; otherwise a refusal."""
        found = made(local=api(base_url="http://h/base", allowed_endpoints=("/v1/**",)))
        try:
            route = found.match(b"GET", uri)
        except (errors.BadTarget, errors.EndpointNotAllowed):
            return
        self.assertEqual(route.target, b"/base" + uri.removeprefix(b"/local"))
        self.assertNotIn(b"..", route.path.split(b"/"))
