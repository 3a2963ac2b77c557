"""Tokens over the management API."""

from __future__ import annotations

from contextlib import nullcontext

from llmproxy.auth.unwritten_revocations import UnwrittenRevocations
from llmproxy.errors import StoreUnavailable
from llmproxy.web.root import Root
from tests.unit.web.manage.management import NOW, ManagementTestCase


class CreateTests(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.team = self.project()

    def create(self, **body: object) -> dict[str, object]:
        reply = self.ask("POST", "/manage/tokens", {"project_id": self.team, **body})
        self.assertEqual(reply.status, 201, reply.body)
        answer: dict[str, object] = reply.json
        return answer

    def wrong(self, *said: str, **body: object) -> None:
        self.refused(self.ask("POST", "/manage/tokens", {"project_id": self.team, **body}), 422, *said)

    def test_the_latest_first(self) -> None:
        """What is shown of a token's use is what is known by now."""
        token = self.token(project_id=self.team)
        for path in ("/manage/tokens", f"/manage/tokens/{token}"):
            before = self.usage.entered
            self.assertEqual(self.ask("GET", path).status, 200)
            self.assertEqual(self.usage.entered, before + 1)

    def test_created(self) -> None:
        """A token is shown in the answer that issues it, and nowhere else."""
        reply = self.ask("POST", "/manage/tokens", {"project_id": self.team, "name": "laptop", "max_requests": 100})
        secret = reply.json["token"]
        self.assertEqual((reply.status, reply["location"]), (201, f"/manage/tokens/{reply.json['id']}"))
        self.assertTrue(secret.startswith("sk-lp-"))
        self.assertEqual(
            {k: v for k, v in reply.json.items() if k != "token"},
            {
                "id": "tok-1",
                "project_id": self.team,
                "name": "laptop",
                "prefix": secret[:10],
                "active": True,
                "state": "active",
                "expires_at": None,
                "max_requests": 100,
                "request_count": 0,
                "cache_hits": 0,
                "apis": [],
                "endpoints": [],
                "models": [],
                "ips": [],
                "labels": [],
                "metadata": {},
                "created_at": "2026-11-18T09:06:40.000Z",
                "last_used_at": None,
                "deactivated_at": None,
                "previous_expires_at": None,
                "requests_per_minute": None,
                "tokens_per_minute": None,
                "concurrency": None,
                "budget_usd": [],
                "budget_tokens": [],
                "soft_budget_usd": [],
                "soft_budget_tokens": [],
                "methods": [],
                "max_output_tokens": None,
                "param_whitelist": {},
                "required_params": [],
                "required_headers": [],
                "header_values": {},
                "limits": None,
            },
        )
        entry = self.last()
        self.assertEqual(
            (entry.action, entry.outcome, entry.project_id, entry.token_id),
            ("token.create", "success", self.team, "tok-1"),
        )
        self.assertNotIn(secret, repr(self.audit.entries))
        self.assertNotIn(secret.encode(), self.ask("GET", "/manage/tokens/tok-1").body)
        self.assertNotIn(secret.encode(), self.ask("GET", "/manage/tokens").body)

    def test_expiry(self) -> None:
        """An expiry is said as a span, in minutes, or as a time; null is as if it were not said."""
        for body in (
            {"expires_in": "24h"},
            {"expires_in": "1d"},
            {"expires_in": "23h60m"},
            {"duration_minutes": 1440},
            {"duration_minutes": 1440, "expires_in": None},
            {"expires_at": "2026-11-19T09:06:40Z"},
            {"expires_at": "2026-11-19T11:06:40.000+02:00"},
        ):
            self.assertEqual(self.create(**body)["expires_at"], "2026-11-19T09:06:40.000Z", body)
        self.assertIsNone(self.create(expires_at=None)["expires_at"])

    def test_unfit_expiry(self) -> None:
        """An expiry that is past, that is never, or that is said twice is refused."""
        for said, body in (
            ("expires_in", {"expires_in": "soon"}),
            ("expires_in", {"expires_in": "0s"}),
            ("expires_in", {"expires_in": "-1h"}),
            ("expires_in", {"expires_in": 24}),
            ("expires_in", {"expires_in": "9" * 60 + "h"}),
            ("expires_in", {"expires_in": "9999999h"}),
            ("duration_minutes", {"duration_minutes": 0}),
            ("duration_minutes", {"duration_minutes": "60"}),
            ("duration_minutes", {"duration_minutes": 10**15}),
            ("duration_minutes", {"duration_minutes": True}),
            ("expires_at", {"expires_at": "2026-11-18T09:06:40Z"}),
            ("expires_at", {"expires_at": "2026-11-19T09:06:40"}),
            ("expires_at", {"expires_at": "0001-01-01T00:00:00+23:59"}),
            ("expires_at", {"expires_at": "9999-12-31T23:59:59-23:59"}),
            ("expires_at", {"expires_at": NOW + 60}),
            ("expires_at", {"expires_at": int(NOW + 60)}),
            ("expires_at", {"expires_at": "1794992860"}),
            ("expires_at", {"expires_at": "tomorrow"}),
            ("exclude", {"expires_in": "1h", "duration_minutes": 60}),
            ("exclude", {"expires_in": "1h", "expires_at": "2026-11-19T09:06:40Z"}),
        ):
            self.wrong(said, **body)

    def test_rules(self) -> None:
        """What a token may do is kept as it was said; a network in its own notation."""
        rules = {
            "apis": ["anthropic"],
            "endpoints": ["/v1/messages", "/v1/*"],
            "models": ["claude-*"],
            "ips": ["192.0.2.7", "2001:DB8::/32"],
        }
        answer = self.create(**rules)
        self.assertEqual({name: answer[name] for name in rules}, rules | {"ips": ["192.0.2.7/32", "2001:db8::/32"]})

    def test_unfit_rules(self) -> None:
        """A rule that could never be met, or means something else than it says, is refused."""
        for said, body in (
            ("apis", {"apis": ["mistral"]}),
            ("apis", {"apis": "openai"}),
            ("apis", {"apis": None}),
            ("endpoints.0", {"endpoints": ["v1/messages"]}),
            ("endpoints.0", {"endpoints": ["/v1/../admin"]}),
            ("endpoints.0", {"endpoints": ["/a b"]}),
            ("models.1", {"models": ["ok", ""]}),
            ("ips.0", {"ips": ["10.0.0.1/8"]}),
            ("ips.0", {"ips": ["example.com"]}),
            ("ips.0", {"ips": ["fe80::1%eth0"]}),
            ("ips.0", {"ips": [5]}),
            ("models", {"models": ["x"] * 257}),
            ("max_requests", {"max_requests": 0}),
            ("max_requests", {"max_requests": 1.5}),
            ("max_requests", {"max_requests": 2**31}),
            ("name", {"name": ""}),
            ("token: unknown key", {"token": "sk-lp-mine"}),
        ):
            self.wrong(said, **body)

    def test_unknown_project(self) -> None:
        """A token belongs to a project that is there."""
        self.refused(self.ask("POST", "/manage/tokens", {"project_id": "nobody"}), 404)
        self.assertEqual((self.last().project_id, self.last().outcome), ("nobody", "failure"))
        self.refused(self.ask("POST", "/manage/tokens", {}), 422, "project_id")


class LaterTests(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.team, self.other = self.project(), self.project()
        self.id = self.token(project_id=self.team, name="laptop", max_requests=5, expires_in="1h", models=["gpt-*"])
        self.path = f"/manage/tokens/{self.id}"

    def test_listed(self) -> None:
        """Tokens are listed, all, or one project's."""
        self.token(project_id=self.other)
        ids = lambda query: [t["id"] for t in self.ask("GET", "/manage/tokens" + query).json["data"]]  # noqa: E731
        self.assertEqual(ids(""), ["tok-1", "tok-2"])
        self.assertEqual(ids(f"?project_id={self.other}"), ["tok-2"])
        self.assertEqual(ids("?project_id=nobody"), [])
        self.assertEqual(ids("?limit=1&offset=1"), ["tok-2"])
        self.refused(self.ask("GET", "/manage/tokens?project_id=%00"), 422, "project_id")

    def test_changed(self) -> None:
        """What is named is changed, the rest stays."""
        reply = self.ask("PATCH", self.path, {"name": "desk", "apis": ["openai"], "max_requests": 9})
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual((reply.json["name"], reply.json["apis"], reply.json["max_requests"]), ("desk", ["openai"], 9))
        self.assertEqual((reply.json["models"], reply.json["expires_at"]), (["gpt-*"], "2026-11-18T10:06:40.000Z"))
        entry = self.last()
        self.assertEqual((entry.action, entry.token_id, entry.project_id), ("token.update", self.id, self.team))
        self.assertEqual(entry.details["changed"], ["apis", "max_requests", "name"])
        self.assertEqual(
            entry.details["changes"],
            {
                "name": {"before": "laptop", "after": "desk"},
                "apis": {"before": [], "after": ["openai"]},
                "max_requests": {"before": 5, "after": 9},
            },
        )

    def test_lifted(self) -> None:
        """Null lifts an expiry or a limit, an empty list a rule; a new expiry takes the old one's place."""
        body = {"expires_at": None, "max_requests": None, "models": [], "name": None}
        reply = self.ask("PATCH", self.path, body).json
        self.assertEqual([reply[name] for name in body], [None, None, [], ""])
        reply = self.ask("PATCH", self.path, {"expires_in": "2h"}).json
        self.assertEqual(reply["expires_at"], "2026-11-18T11:06:40.000Z")

    def test_what_cannot_be_changed(self) -> None:
        """A token stays with its project, and its state is not a field."""
        for key in ("project_id", "active", "request_count", "token"):
            self.refused(self.ask("PATCH", self.path, {key: 1}), 422, f"{key}: unknown key")

    def test_revoked(self) -> None:
        """A revoked token stays revoked, since the first time; revoking it again is no error."""
        reply = self.ask("DELETE", self.path)
        self.assertEqual((reply.status, reply.body, reply["cache-control"]), (204, b"", "no-store"))
        self.assertEqual((self.last().action, self.last().project_id), ("token.revoke", self.team))
        self.clock.advance(5)
        self.assertEqual(self.ask("DELETE", self.path).status, 204)
        shown = self.ask("GET", self.path).json
        self.assertEqual((shown["active"], shown["deactivated_at"]), (False, "2026-11-18T09:06:40.000Z"))
        self.refused(self.ask("PATCH", self.path, {"max_requests": None}), 409, "revoked")

    def test_unknown(self) -> None:
        """An id that nobody has is 404, and an attempt to change it is written down."""
        for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
            self.refused(self.ask(method, "/manage/tokens/nobody", body), 404)
        self.assertEqual([entry.action for entry in self.audit.entries[-2:]], ["token.update", "token.revoke"])

    def test_revocation_that_cannot_be_written_down(self) -> None:
        """It is done, but not answered as done."""
        self.audit.failing = OSError("disk full")
        self.refused(self.ask("DELETE", self.path), 503)
        self.assertFalse(self.store.tokens[self.id].active)
        self.flushLoggedErrors(OSError)


class EndpointRules(ManagementTestCase):
    def test_an_endpoint_that_none_of_its_apis_has(self) -> None:
        """Could never be used: it is refused, when a token is made and when it is changed."""
        self.ask("POST", "/manage/projects", {"name": "Team"})
        for rules, code in (
            ({"endpoints": ["/v1/messages"]}, 201),
            ({"endpoints": ["/v1/**"], "apis": ["openai"]}, 201),
            ({"endpoints": ["/v1/models/gpt-4o"]}, 201),
            ({"endpoints": ["GET /v1/messages"]}, 201),
            ({"endpoints": ["get /v1/messages"]}, 422),
            ({"endpoints": ["GET /v1/messages"], "apis": ["openai"]}, 422),
            ({"endpoints": ["/v1/messages"], "apis": ["openai"]}, 422),
            ({"endpoints": ["/v1/models", "/v1/model"]}, 422),
            ({"endpoints": ["/openai/v1/models"]}, 422),
        ):
            with self.subTest(rules=rules):
                reply = self.ask("POST", "/manage/tokens", {"project_id": "proj-1", **rules})
                self.assertEqual(reply.status, code, reply.json)
        self.assertIn("/openai/v1/models is no endpoint of any API", reply.json["error"]["message"])
        for change, code in (({"apis": ["openai"]}, 422), ({"endpoints": []}, 200), ({"apis": ["openai"]}, 200)):
            self.assertEqual(self.ask("PATCH", "/manage/tokens/tok-1", change).status, code)


class UnstorableRevocationTests(ManagementTestCase):
    """The store takes no writes."""

    def setUp(self) -> None:
        super().setUp()
        self.doors: set[tuple[str, str]] = set()
        self.unwritten = UnwrittenRevocations(self, {"token": self.store.deactivate_token}, self.clock, nullcontext)
        self.root = Root(manage=self.management(revocations=self.unwritten))
        self.team = self.project()
        self.token_id = self.token(project_id=self.team)

    def block(self, kind: str, name: str) -> None:
        self.doors.add((kind, name))

    def unblock(self, kind: str, name: str) -> None:
        self.doors.discard((kind, name))

    def down(self, name: str) -> None:
        if name in ("deactivate_token", "revoke_project_tokens", "update_project"):
            raise StoreUnavailable(reason="disk full")

    def test_everything_that_can_be_revoked(self) -> None:
        """A token, all tokens of a project, a project: in force here; that is said, and written down as a failure."""
        self.store.before = self.down
        for method, path, body, kind in (
            ("DELETE", f"/manage/tokens/{self.token_id}", None, ("token", self.token_id)),
            ("POST", f"/manage/projects/{self.team}/tokens/revoke", None, ("tokens of project", self.team)),
            ("PATCH", f"/manage/projects/{self.team}", {"active": False}, ("project", self.team)),
        ):
            reply = self.ask(method, path, body)
            self.refused(reply, 503, "In force here, not stored", "disk full")
            self.assertEqual(reply["X-LLMProxy-Error"], "revocation_not_stored")
            self.assertIn(kind, self.doors)
            self.assertEqual(self.last().details["error"], "revocation_not_stored")
        self.assertEqual(len(self.unwritten), 3)

    def test_what_revokes_nothing(self) -> None:
        """A project that could not be renamed is used as before; one that could be activated is let in."""
        self.store.before = self.down
        path = f"/manage/projects/{self.team}"
        self.assertEqual(self.ask("PATCH", path, {"name": "New"})["X-LLMProxy-Error"], "store_unavailable")
        self.ask("PATCH", path, {"active": False})
        self.assertEqual(self.doors, {("project", self.team)})
        self.store.before = lambda name: None
        self.assertEqual(self.ask("PATCH", path, {"active": True}).status, 200)
        self.assertEqual((self.doors, len(self.unwritten)), (set(), 0))

    def test_revoked_and_neither_stored_nor_audited(self) -> None:
        """That it is in force is what the operator must know; that the audit log is broken stands in the log."""
        self.store.before = self.down
        self.audit.failing = OSError("disk full")
        reply = self.ask("DELETE", f"/manage/tokens/{self.token_id}")
        self.assertEqual((reply.status, reply["X-LLMProxy-Error"]), (503, "revocation_not_stored"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)  # what was intended, and what came of it
