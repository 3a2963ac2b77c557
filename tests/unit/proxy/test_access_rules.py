"""What an API, a project and a token allow together."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from llmproxy import errors
from llmproxy.access_policy import AccessPolicy
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.config.routes import Route, Routes
from llmproxy.errors.policy import HeaderNotAllowed, ParamRequired
from llmproxy.metering.dialects.operation import READ_OPERATION
from llmproxy.metering.dialects.registry import operation
from llmproxy.model import Grant
from llmproxy.proxy.access_rules import AccessRules, rules_of
from tests.support.reading import read

CHAT = b"/v1/chat/completions"
NOBODY = Grant("p", "t", project_active=True)


def route(path: bytes = CHAT, method: bytes = b"POST", **settings: Any) -> Route:
    api = Api(
        base_url="https://api.example",
        allowed_endpoints=("/v1/**", "/openai/deployments/*/x"),
        allowed_methods=("GET", "POST", "DELETE"),
        **settings,
    )
    return Routes(Settings(default_api="main", apis={"main": api})).match(method, path)


def levels(policy: AccessPolicy) -> list[tuple[str, Grant]]:
    """The same as the project's and as the token's."""
    return [
        ("project", Grant("p", "t", project_policy=policy)),
        ("token", Grant("p", "t", policy=policy)),
    ]


class RulesCase(TestCase):
    def rules(self, grant: Grant, at: Route) -> AccessRules:
        found = rules_of(grant, at.api)
        assert found is not None
        return found

    def access(self, grant: Grant, at: Route, client: str = "192.0.2.1") -> errors.ProxyError | None:
        try:
            self.rules(grant, at).check_access(at, client)
        except errors.ProxyError as e:
            return e
        return None

    def body(self, grant: Grant, said: bytes, at: Route | None = None) -> str:
        """The code that a body is refused with, and the message; empty where it is not."""
        at = at or route()
        does = operation("openai", at.path) if at.method == b"POST" else READ_OPERATION
        rules = self.rules(grant, at)
        if not rules.needs_body(does):
            return "not read"
        try:
            rules.check_body(at, does, read(said))
        except errors.ProxyError as e:
            return f"{e.code}: {e.message}"
        return ""


class Nothing(RulesCase):
    def test_without_any_policy(self) -> None:
        """There is nothing to check: nobody pays for it."""
        self.assertIsNone(rules_of(NOBODY, route().api))

    def test_compiled_once(self) -> None:
        one, other = (Grant("p", each, policy=AccessPolicy(models=("a",))) for each in ("t", "u"))
        self.assertIs(rules_of(one, route().api), rules_of(other, route().api))


class Access(RulesCase):
    def test_each_level(self) -> None:
        for policy, at, error in [
            (AccessPolicy(apis=("main",)), route(), None),
            (AccessPolicy(apis=("other",)), route(), errors.ApiNotAllowed),
            (AccessPolicy(endpoints=("/v1/chat/*",)), route(), None),
            (AccessPolicy(endpoints=("/v1/models",)), route(), errors.EndpointNotAllowed),
            (AccessPolicy(endpoints=("GET /v1/**",)), route(), errors.EndpointNotAllowed),
            (AccessPolicy(methods=("POST",)), route(), None),
            (AccessPolicy(methods=("GET",)), route(method=b"HEAD"), None),
            (AccessPolicy(methods=("GET", "DELETE")), route(), errors.MethodNotAllowed),
            (AccessPolicy(ips=("192.0.2.0/24",)), route(), None),
            (AccessPolicy(ips=("198.51.100.0/24",)), route(), errors.AddressNotAllowed),
        ]:
            for whose, grant in levels(policy):
                with self.subTest(policy=policy, whose=whose):
                    found = self.access(grant, at)
                    self.assertIs(None if found is None else type(found), error)
                    if found is not None and error is not errors.MethodNotAllowed:
                        self.assertIn(f"This {whose} may not", found.message)

    def test_both_must_allow(self) -> None:
        """What one of them allows, the other may refuse."""
        project, token = AccessPolicy(endpoints=("/v1/chat/**",)), AccessPolicy(endpoints=("/v1/chat/completions",))
        grant = Grant("p", "t", policy=token, project_policy=project)
        self.assertIsNone(self.access(grant, route()))
        self.assertIn("This token", str(self.access(grant, route(b"/v1/chat/other"))))
        self.assertIn("This project", str(self.access(grant, route(b"/v1/models"))))

    def test_which_methods_are_left(self) -> None:
        """RFC 9110 wants the response to tell those that would do."""
        both = Grant(
            "p",
            "t",
            policy=AccessPolicy(methods=("GET", "DELETE")),
            project_policy=AccessPolicy(methods=("GET", "POST")),
        )
        found = self.access(both, route())
        assert found is not None
        self.assertEqual(found.headers["Allow"], "GET, HEAD")


class Headers(RulesCase):
    def test_at_each_level(self) -> None:
        policy = AccessPolicy(required_headers=("X-Team",), header_values=(("X-Team", ("core", "data-*")),))
        for whose, grant in levels(policy):
            rules = self.rules(grant, route())
            rules.check_headers([b"x-team: data-1"])
            with self.assertRaisesRegex(errors.HeaderRequired, whose):
                rules.check_headers([])
            with self.assertRaisesRegex(HeaderNotAllowed, whose):
                rules.check_headers([b"x-team: other"])

    def test_with_the_apis_own(self) -> None:
        at = route(required_headers=("x-a",), header_values={"x-b": ("1",)})
        grant = Grant("p", "t", policy=AccessPolicy(required_headers=("x-b",)))
        self.rules(grant, at).check_headers([b"X-A: 1", b"X-B: 1"])
        for lines in ([b"X-B: 1"], [b"X-A: 1"], [b"X-A: 1", b"X-B: 2"]):
            with self.assertRaises(errors.BadRequest):
                self.rules(grant, at).check_headers(lines)

    def test_what_a_head_does_not_settle(self) -> None:
        """Fields that differ by request where the rest of the head is the same, and addresses."""
        varying = frozenset([b"x-request-id"])
        for policy, varies in [
            (AccessPolicy(required_headers=("X-Request-ID",)), True),
            (AccessPolicy(header_values=(("x-request-id", ("a",)),)), True),
            (AccessPolicy(ips=("10.0.0.0/8",)), True),
            (AccessPolicy(required_headers=("x-team",), methods=("POST",), models=("a",)), False),
        ]:
            for _, grant in levels(policy):
                self.assertEqual(self.rules(grant, route()).varies_with(varying), varies, policy)


class Bodies(RulesCase):
    def test_values(self) -> None:
        policy = AccessPolicy(param_whitelist=(("model", ("gpt-*",)), ("temperature", ("0", "0.5"))))
        for whose, grant in levels(policy):
            self.assertEqual(self.body(grant, b'{"model":"gpt-4o","temperature":0.5}'), "")
            self.assertEqual(self.body(grant, b"{}"), "")
            said = self.body(grant, b'{"model":"gpt-4o","temperature":1}')
            self.assertEqual(
                said, f'param_not_allowed: The parameter "temperature" has a value that this {whose} does not allow.'
            )
            self.assertIn("case included", self.body(grant, b'{"Temperature":0}'))
            self.assertIn("invalid_body", self.body(grant, b'{"temperature":0,"temperature":0}'))
            azure = route(b"/openai/deployments/o3/x")
            self.assertIn("param_not_allowed", self.body(grant, b"{}", azure))

    def test_required(self) -> None:
        """One of those with a bar between; null and nothing are none; what is billed nothing need not have it."""
        policy = AccessPolicy(required_params=("user", "max_tokens|max_completion_tokens"))
        for whose, grant in levels(policy):
            self.assertEqual(self.body(grant, b'{"user":"a","max_completion_tokens":1}'), "")
            for said in (b"", b"{}", b'{"user":null,"max_tokens":1}', b'{"user":"","max_tokens":1}'):
                self.assertEqual(
                    self.body(grant, said), f'param_required: This {whose} requires the parameter "user".', said
                )
            self.assertIn('"max_tokens" or "max_completion_tokens"', self.body(grant, b'{"user":"a"}'))
            self.assertEqual(self.body(grant, b"", route(b"/v1/models", b"GET")), "not read")
            self.assertEqual(self.body(grant, b"", route(b"/v1/files")), "not read")

    def test_a_required_model(self) -> None:
        """May stand in the path."""
        grant = Grant("p", "t", policy=AccessPolicy(required_params=("model",)))
        self.assertEqual(self.body(grant, b"{}", route(b"/openai/deployments/o3/x")), "")
        self.assertIn("param_required", self.body(grant, b"{}"))

    def test_output(self) -> None:
        """The lowest maximum counts."""
        grant = Grant(
            "p", "t", policy=AccessPolicy(max_output_tokens=10), project_policy=AccessPolicy(max_output_tokens=20)
        )
        self.assertEqual(self.body(grant, b'{"max_tokens":10}'), "")
        self.assertIn("This token allows at most 10", self.body(grant, b'{"max_tokens":11}'))
        self.assertIn("This project allows at most 20", self.body(grant, b'{"max_tokens":21}'))
        self.assertIn("This API allows at most 5", self.body(grant, b'{"max_tokens":10}', route(max_output_tokens=5)))
        self.assertIn("invalid_body", self.body(grant, b'{"max_tokens":1,"max_tokens":99}'))
        self.assertIn("invalid_body", self.body(grant, b"max_tokens=99"))

    def test_models(self) -> None:
        grant = Grant("p", "t", models=("gpt-4o",), project_policy=AccessPolicy(models=("gpt-*",)))
        self.assertEqual(self.body(grant, b'{"model":"gpt-4o"}'), "")
        self.assertIn("This token may not use the model", self.body(grant, b'{"model":"gpt-5"}'))
        self.assertIn("This project may not use the model", self.body(grant, b'{"model":"o3"}'))
        self.assertIn("names none", self.body(grant, b"{}"))

    def test_batches(self) -> None:
        """Each request in one is held against the lists; what stands in a file nobody can tell."""
        policy = AccessPolicy(param_whitelist=(("model", ("c-*",)),), required_params=("metadata",))
        for _, grant in levels(policy):
            at = route(b"/v1/messages/batches")
            rules = self.rules(grant, at)
            does = operation("anthropic", at.path)
            one = b'{"params":{"model":"c-1","metadata":{"user_id":"a"}}}'
            rules.check_body(at, does, read(b'{"requests":[%b]}' % one))
            with self.assertRaises(errors.ParamNotAllowed):
                rules.check_body(at, does, read(b'{"requests":[%b]}' % one.replace(b"c-1", b"d")))
            with self.assertRaises(ParamRequired):
                rules.check_body(at, does, read(b'{"requests":[%b,{"params":{"model":"c-1"}}]}' % one))
            with self.assertRaises(ParamRequired):
                rules.check_body(route(b"/v1/batches"), operation("openai", b"/v1/batches"), read(b"{}"))

    def test_what_is_read(self) -> None:
        """Nothing of bodies that nobody need look into; of the others, what policies name."""
        headers = self.rules(Grant("p", policy=AccessPolicy(required_headers=("a",), methods=("POST",))), route())
        self.assertFalse(headers.needs_body(operation("openai", CHAT)))
        named = self.rules(
            Grant("p", policy=AccessPolicy(required_params=("a|b",), param_whitelist=(("c", ("1",)),))), route()
        )
        self.assertEqual(named.params, {"a", "b", "c"})
