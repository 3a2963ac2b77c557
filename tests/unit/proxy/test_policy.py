from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.config.routes import Route, Routes
from llmproxy.metering.dialects.operation import UNKNOWN_OPERATION
from llmproxy.metering.dialects.registry import operation
from llmproxy.model import Grant, Project
from llmproxy.proxy.policy import Policy
from tests.support.fakes import MemoryAudit, MemoryStore
from tests.support.reading import read

ACTIVE = Grant("p", "t", project_active=True)


def route(path: bytes = b"/v1/x", **settings: Any) -> Route:
    api = Api(
        base_url="https://api.example",
        allowed_endpoints=("/v1/*", "/v1/chat/completions", "/v1/models/*:generate", "/openai/deployments/*/x"),
        **settings,
    )
    return Routes(Settings(default_api="main", apis={"main": api})).match(b"POST", path)


class PolicyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore(Clock())
        self.audit = MemoryAudit()
        self.policy = Policy(self.store, self.audit, lambda: 17.0)

    def check(
        self, grant: Grant, at: Route | None = None, lines: list[bytes] | None = None, client: str = "192.0.2.1"
    ) -> Deferred[None]:
        return Deferred.fromCoroutine(self.policy.check(grant, at or route(), lines or [], client, "request-1"))

    def allowed(self, *asked: Any, **more: Any) -> None:
        self.assertIsNone(self.successResultOf(self.check(*asked, **more)))

    def refused(self, error: type[errors.ProxyError], *asked: Any, **more: Any) -> None:
        self.failureResultOf(self.check(*asked, **more), error)

    def project(self, active: bool) -> None:
        self.successResultOf(self.store.create_project(Project("p", "P", active=active)))


class ProjectGuard(PolicyCase):
    def test_active_by_the_grant(self) -> None:
        """Nobody is asked."""
        self.store.before = lambda name: self.fail(name)
        self.allowed(ACTIVE)

    def test_asked_where_the_grant_does_not_say(self) -> None:
        self.project(active=True)
        self.allowed(Grant("p", "t"))
        self.assertEqual(self.audit.entries, [])

    def test_refused(self) -> None:
        """With an entry that says who, whence, why and which request."""

        def broken(name: str) -> None:
            raise OSError("down")

        cases: list[tuple[Callable[[], object], type[errors.ProxyError], str]] = [
            (lambda: self.project(active=False), errors.ProjectInactive, "denied"),
            (self.store.projects.clear, errors.ProjectInactive, "denied"),
            (lambda: setattr(self.store, "before", broken), errors.StoreUnavailable, "error"),
        ]
        for begin, error, outcome in cases:
            begin()
            self.refused(error, Grant("p", "t"))
            entry = self.audit.entries.pop()
            self.assertEqual((entry.at, entry.action, entry.actor), (17.0, "request.refused", "token:t"))
            self.assertEqual((entry.project_id, entry.token_id, entry.outcome), ("p", "t", outcome))
            self.assertEqual((entry.request_id, entry.client), ("request-1", "192.0.2.1"))
            self.assertEqual(entry.details, {"code": error.code})

    def test_the_entry_comes_first(self) -> None:
        """The client is answered only when it is written down."""
        writing: Deferred[None] = Deferred()
        self.audit.log = lambda entry: writing  # type: ignore[method-assign]
        self.project(active=False)
        refusal = self.check(Grant("p", "t"))
        self.assertNoResult(refusal)
        writing.callback(None)
        self.failureResultOf(refusal, errors.ProjectInactive)

    def test_an_entry_that_cannot_be_written(self) -> None:
        self.project(active=False)
        for failing, error in [
            (OSError(), errors.AuditUnavailable),
            (errors.StoreUnavailable(), errors.StoreUnavailable),
        ]:
            self.audit.failing = failing
            self.refused(error, Grant("p", "t"))

    def test_a_client_that_leaves_meanwhile(self) -> None:
        """Is no failure of the store, and nothing to write down."""
        asking: Deferred[None] = Deferred()
        self.store.before = lambda name: asking
        check = self.check(Grant("p", "t"))
        check.cancel()
        self.failureResultOf(check, CancelledError)
        self.assertEqual(self.audit.entries, [])

    def test_not_enforced(self) -> None:
        self.policy = Policy(self.store, self.audit, lambda: 17.0, enforce=False)
        self.allowed(Grant("p", "t", project_active=False))


class Grants(PolicyCase):
    def grant(self, **limits: Any) -> Grant:
        return Grant("p", "t", project_active=True, **limits)

    def test_apis(self) -> None:
        self.allowed(self.grant(apis=("other", "main")))
        self.refused(errors.ApiNotAllowed, self.grant(apis=("other",)))

    def test_endpoints(self) -> None:
        self.allowed(self.grant(endpoints=("/v1/x",)))
        self.refused(errors.EndpointNotAllowed, self.grant(endpoints=("/v1/y",)))

    def test_addresses(self) -> None:
        for networks, client, allowed in [
            (("192.0.2.0/24",), "192.0.2.1", True),
            (("192.0.2.1",), "192.0.2.1", True),
            (("192.0.2.1/24",), "192.0.2.9", True),
            (("198.51.100.0/24", "192.0.2.0/31"), "192.0.2.1", True),
            (("198.51.100.0/24",), "192.0.2.1", False),
            (("2001:db8::/32",), "2001:db8::1", True),
            (("0.0.0.0/0",), "2001:db8::1", False),
            (("0.0.0.0/0",), "unix", False),
            (("0.0.0.0/0",), "", False),
        ]:
            grant = self.grant(ips=networks)
            if allowed:
                self.allowed(grant, client=client)
            else:
                self.refused(errors.AddressNotAllowed, grant, client=client)


class Fields(PolicyCase):
    def test_origins_and_required_headers(self) -> None:
        at = route(allowed_origins=("https://a.example",), required_headers=("origin", "X-Team"))
        origin, team = b"Origin: https://a.example", b"x-team: 1"
        self.allowed(ACTIVE, at, [origin, team])
        self.refused(errors.OriginNotAllowed, ACTIVE, at, [b"Origin: https://b.example", team])
        self.refused(errors.OriginRequired, ACTIVE, at, [team])
        self.refused(errors.HeaderRequired, ACTIVE, at, [origin])


class Bodies(PolicyCase):
    def check_body(self, body: bytes, grant: Grant = ACTIVE, path: bytes = b"/v1/x", **settings: Any) -> None:
        self.policy.check_body(grant, route(path, **settings), operation("openai", path), read(body))

    def test_when_it_is_needed(self) -> None:
        needs = self.policy.needs_body
        self.assertFalse(needs(ACTIVE, route(), UNKNOWN_OPERATION))
        self.assertTrue(needs(ACTIVE, route(param_whitelist={"n": ("1",)}), UNKNOWN_OPERATION))
        self.assertTrue(needs(Grant("p", models=("m",)), route(), UNKNOWN_OPERATION))
        self.assertFalse(needs(Grant("p", models=("m",)), route(b"/v1/files"), operation("openai", b"/v1/files")))

    def test_parameters(self) -> None:
        whitelist = {"model": ("gpt-*",)}
        self.check_body(b'{"model":"gpt-4o"}', param_whitelist=whitelist)
        self.check_body(b"", param_whitelist=whitelist)
        with self.assertRaises(errors.ParamNotAllowed):
            self.check_body(b'{"model":"o3"}', param_whitelist=whitelist)
        with self.assertRaises(errors.BodyUnreadable):
            self.check_body(b"model=o3", param_whitelist=whitelist)
        form = [b"Content-Type: application/x-www-form-urlencoded"]
        at = route(b"/v1/x", param_whitelist=whitelist)
        self.policy.check_body(ACTIVE, at, UNKNOWN_OPERATION, read(b"model=gpt-4o", form))
        with self.assertRaises(errors.ParamNotAllowed):
            self.policy.check_body(ACTIVE, at, UNKNOWN_OPERATION, read(b"a=b&model=o3", form))

    def test_a_model_in_the_path(self) -> None:
        """Is held against the same list."""
        whitelist = {"model": ("gemini-*",)}
        self.check_body(b"{}", path=b"/v1/models/gemini-pro:generate", param_whitelist=whitelist)
        with self.assertRaises(errors.ParamNotAllowed):
            self.check_body(b"{}", path=b"/v1/models/other:generate", param_whitelist=whitelist)
        with self.assertRaises(errors.ParamNotAllowed):
            self.check_body(b"", path=b"/openai/deployments/other/x", param_whitelist=whitelist)

    def test_a_tokens_models(self) -> None:
        """Wherever one is named, it must be among them; both must, where two are."""
        grant = Grant("p", "t", project_active=True, models=("a", "b-*"))
        for body, path in [
            (b'{"model":"a"}', b"/v1/x"),
            (b'{"model":"b-1"}', b"/v1/x"),
            (b"{}", b"/v1/models/a:generate"),
            (b'{"model":"a"}', b"/v1/models/b-2:generate"),
            (b"{}", b"/v1/x"),
        ]:
            self.check_body(body, grant, path)
        for body, path in [
            (b'{"model":"c"}', b"/v1/x"),
            (b'{"model":"A"}', b"/v1/x"),
            (b"{}", b"/v1/models/c:generate"),
            (b'{"model":"c"}', b"/v1/models/a:generate"),
            (b'{"model":"a"}', b"/v1/models/c:generate"),
            (b"", b"/openai/deployments/c/x"),
            (b"{}", b"/v1/chat/completions"),
            (b"", b"/v1/embeddings"),
            (b'{"metadata":{"model":"a"}}', b"/v1/responses"),
        ]:
            with self.assertRaises(errors.ModelNotAllowed):
                self.check_body(body, grant, path)


class RevokedTokens(PolicyCase):
    def revoked(self, error: errors.TokenInactive) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.policy.audit_revoked(error, "192.0.2.1", "request-1")))

    def test_written_down(self) -> None:
        """Who still uses a token that was revoked can be seen."""
        self.revoked(errors.TokenInactive(token_id="t", project_id="p"))
        (entry,) = self.audit.entries
        self.assertEqual((entry.action, entry.actor, entry.outcome), ("request.refused", "token:t", "denied"))
        self.assertEqual((entry.project_id, entry.token_id, entry.client), ("p", "t", "192.0.2.1"))
        self.assertEqual(entry.details, {"code": "token_inactive"})

    def test_nobody_knows_whose(self) -> None:
        """A validator that does not say whose the token was leaves nothing to write."""
        self.revoked(errors.TokenInactive())
        self.assertEqual(self.audit.entries, [])


class BatchTests(PolicyCase):
    """A token's models hold for each request of a batch."""

    def check_batch(self, provider: str, path: bytes, body: bytes) -> None:
        grant = Grant("p", "t", project_active=True, models=("claude-haiku*",))
        self.policy.check_body(grant, route(), operation(provider, path), read(body))

    def test_each_request(self) -> None:
        path = b"/v1/messages/batches"
        haiku, opus = b'{"params": {"model": "claude-haiku-4-5"}}', b'{"params": {"model": "claude-opus-4-5"}}'
        self.check_batch("anthropic", path, b'{"requests": [%b, %b]}' % (haiku, haiku))
        for requests in (b"%b, %b" % (haiku, opus), b"", b"{}", b'{"params": {}}'):
            with self.assertRaises(errors.ModelNotAllowed):
                self.check_batch("anthropic", path, b'{"requests": [%b]}' % requests)

    def test_requests_in_a_file(self) -> None:
        """Nobody knows which models they name."""
        with self.assertRaises(errors.ModelNotAllowed):
            self.check_batch("openai", b"/v1/batches", b'{"input_file_id": "file-1"}')
