"""Projects over the management API."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from llmproxy.errors import StoreUnavailable
from llmproxy.web.root import Root
from tests.support.client import Conversation, request
from tests.unit.web.manage.management import NOW, TOKEN, ManagementTestCase


class CreateTests(ManagementTestCase):
    def test_created(self) -> None:
        """A project is answered with its id and masked keys, and written down before that."""
        reply = self.ask("POST", "/manage/projects", {"name": "Team", "api_keys": {"anthropic": "sk-ant-12345"}})
        self.assertEqual((reply.status, reply["location"]), (201, "/manage/projects/proj-1"))
        self.assertEqual(
            reply.json,
            {
                "id": "proj-1",
                "name": "Team",
                "active": True,
                "api_keys": {"anthropic": "sk-…45"},
                "labels": [],
                "metadata": {},
                "group_id": None,
                "created_at": "2026-11-18T09:06:40.000Z",
                "updated_at": "2026-11-18T09:06:40.000Z",
                "deactivated_at": None,
                "requests_per_minute": None,
                "tokens_per_minute": None,
                "concurrency": None,
                "budget_usd": [],
                "budget_tokens": [],
                "soft_budget_usd": [],
                "soft_budget_tokens": [],
                "apis": [],
                "methods": [],
                "endpoints": [],
                "models": [],
                "ips": [],
                "max_output_tokens": None,
                "param_whitelist": {},
                "required_params": [],
                "required_headers": [],
                "header_values": {},
                "limits": None,
            },
        )
        self.assertEqual(self.store.keys, {"proj-1": {"anthropic": "sk-ant-12345"}})
        entry = self.last()
        self.assertEqual(
            (entry.at, entry.action, entry.actor, entry.outcome, entry.project_id),
            (NOW, "project.create", "management", "success", "proj-1"),
        )
        self.assertNotIn("12345", repr(entry))

    def test_default_api(self) -> None:
        """C{api_key} alone is the key of the default API, beside the others."""
        project = self.project(api_key="sk-1", api_keys={"anthropic": "sk-2"})
        self.assertEqual(self.store.keys[project], {"openai": "sk-1", "anthropic": "sk-2"})

    def test_no_default_api(self) -> None:
        """Without a default API the key's API must be named."""
        self.root = Root(manage=self.management(default_api=""))
        self.refused(self.ask("POST", "/manage/projects", {"name": "x", "api_key": "k"}), 422, "api_key", "api_keys")

    def test_inactive(self) -> None:
        """A project can be prepared before it may be used."""
        project = self.project(active=False)
        self.assertFalse(self.store.projects[project].active)

    def test_no_json(self) -> None:
        """What is no JSON object, or names a key twice, is told so."""
        for body in (b"", b"{", b"\xff", b'{"name": "a", "name": "b"}', b"[" * 100_000, b'{"name": ' + b"9" * 5000):
            self.refused(self.ask("POST", "/manage/projects", body), 400, "JSON")
        for body in (b"[]", b"null", b'"x"', b"1"):
            self.refused(self.ask("POST", "/manage/projects", body), 422, "object")

    def test_wrong_fields(self) -> None:
        """Every field that is wrong is named at once, and what stood there is not repeated."""
        body = {"naem": "x", "api_keys": {"openai": "sk secret"}, "active": "yes"}
        reply = self.ask("POST", "/manage/projects", body)
        self.refused(reply, 422, "name: ", "naem: unknown key", "api_keys.openai", "active: ")
        self.assertNotIn(b"secret", reply.body)
        self.assertEqual((self.last().outcome, self.last().details["error"]), ("failure", "invalid_request"))

    def test_unknown_api(self) -> None:
        """A key for an API that is not configured is refused, with the names that are."""
        reply = self.ask("POST", "/manage/projects", {"name": "x", "api_keys": {"sk-oops-12345": "openai"}})
        self.refused(reply, 422, "api_keys: ", "anthropic, openai")
        self.assertNotIn(b"oops", reply.body)

    def test_unfit_keys(self) -> None:
        """What cannot stand in a header field is no key."""
        for key in ("", "a b", "a\r\nb", "ü", "x" * 4097, 5, "a\x7f"):
            reply = self.ask("POST", "/manage/projects", {"name": "x", "api_keys": {"openai": key}})
            self.refused(reply, 422, "api_keys.openai")
        self.project(api_keys={"openai": "x" * 4096})

    def test_key_twice(self) -> None:
        """The default API's key cannot be given in two ways."""
        body = {"name": "x", "api_key": "a", "api_keys": {"openai": "b"}}
        self.refused(self.ask("POST", "/manage/projects", body), 422, "api_keys.openai too")

    def test_unfit_names(self) -> None:
        """A name is text that can be shown on one line."""
        for name in ("", " ", "a\nb", "a\x00b", "x" * 201, None, 5):
            self.refused(self.ask("POST", "/manage/projects", {"name": name}), 422, "name")
        self.project(name="Größe 日本 😀")

    def test_lone_surrogate(self) -> None:
        """What no text can hold is no name."""
        self.assertIn(self.ask("POST", "/manage/projects", b'{"name": "\\ud800"}').status, (400, 422))

    def test_too_large(self) -> None:
        """A body over 1 MiB is not looked at."""
        self.refused(self.ask("POST", "/manage/projects", b" " * (1024 * 1024 + 1)), 413)

    def test_audit_fails(self) -> None:
        """What cannot be written down is not answered as done."""
        self.audit.failing = OSError("disk full")
        reply = self.ask("POST", "/manage/projects", {"name": "x"})
        self.refused(reply, 503, "audit")
        self.assertEqual(reply["x-llmproxy-error"], "audit_unavailable")
        self.flushLoggedErrors(OSError)

    def test_store_fails(self) -> None:
        """A store that is down is 503, and written down as a failure; a fault of it is 500."""
        for error, code, said in (
            (StoreUnavailable("Down."), 503, "store_unavailable"),
            (KeyError("secret"), 500, "internal_error"),
        ):

            def fail(name: str, error: Exception = error) -> None:
                raise error

            self.store.before = fail
            self.refused(self.ask("POST", "/manage/projects", {"name": "x"}), code)
            self.assertEqual((self.last().outcome, self.last().details["error"]), ("failure", said))
        self.flushLoggedErrors(KeyError)

    def test_client_leaves(self) -> None:
        """A change whose client leaves is made and written down as a whole."""
        waiting: Deferred[None] = Deferred()
        self.store.before = lambda name: waiting
        fields = {"Authorization": f"Bearer {TOKEN}"}
        Conversation(self.root, request("POST", "/manage/projects", {"name": "x"}, fields)).leave()
        self.assertEqual(self.audit.entries, [])
        waiting.callback(None)
        self.assertEqual([entry.action for entry in self.audit.entries], ["project.create"])
        self.assertEqual(list(self.store.projects), ["proj-1"])


class ListTests(ManagementTestCase):
    def test_pages(self) -> None:
        """A list comes in pages, with the number of all."""
        for _ in range(3):
            self.project()
        for query, ids in (
            ("", ["proj-1", "proj-2", "proj-3"]),
            ("?limit=2", ["proj-1", "proj-2"]),
            ("?limit=2&offset=2", ["proj-3"]),
            ("?offset=9", []),
        ):
            reply = self.ask("GET", "/manage/projects" + query)
            self.assertEqual([project["id"] for project in reply.json["data"]], ids)
            self.assertEqual(reply.json["total"], 3)

    def test_unfit_query(self) -> None:
        """A query that means nothing is refused, not guessed at."""
        for query in ("limit=0", "limit=1001", "limit=x", "limit=", "offset=-1", "limit=1&limit=2", "who=me", "x=%ff"):
            self.refused(self.ask("GET", "/manage/projects?" + query), 422)

    def test_head(self) -> None:
        """HEAD is GET without the body."""
        reply = self.ask("HEAD", "/manage/projects")
        self.assertEqual((reply.status, reply.body), (200, b""))


class ChangeTests(ManagementTestCase):
    def test_shown(self) -> None:
        """A project is found by its id."""
        project = self.project()
        self.assertEqual(self.ask("GET", f"/manage/projects/{project}").json["id"], project)

    def test_unknown(self) -> None:
        """An id that nobody has is 404, as is what no id looks like."""
        for name in ("nobody", "%00", "a%2Fb", "x" * 129, "a/b"):
            self.refused(self.ask("GET", f"/manage/projects/{name}"), 404)
        self.refused(self.ask("PATCH", "/manage/projects/nobody", {"name": "x"}), 404)
        self.assertEqual((self.last().action, self.last().outcome), ("project.update", "failure"))

    def test_changed(self) -> None:
        """What is named is changed, the rest stays."""
        project = self.project(api_keys={"openai": "sk-1", "anthropic": "sk-2"})
        self.clock.advance(5)
        body = {"name": "New", "api_key": "sk-3", "api_keys": {"anthropic": None}}
        reply = self.ask("PATCH", f"/manage/projects/{project}", body)
        self.assertEqual((reply.status, reply.json["name"], reply.json["active"]), (200, "New", True))
        self.assertEqual(reply.json["updated_at"], "2026-11-18T09:06:45.000Z")
        self.assertEqual(self.store.keys[project], {"openai": "sk-3"})
        self.assertEqual(self.last().action, "project.update")
        changes = {"name": {"before": "Team", "after": "New"}}
        self.assertEqual(self.last().details, {"changed": ["api_key", "api_keys", "name"], "changes": changes})
        self.ask("PATCH", f"/manage/projects/{project}", {})
        self.assertEqual(self.store.projects[project].name, "New")
        self.assertEqual(self.store.keys[project], {"openai": "sk-3"})

    def test_deactivated(self) -> None:
        """Deactivating and activating are acts of their own in the audit log; the first time is kept."""
        project = self.project()
        path = f"/manage/projects/{project}"
        self.clock.advance(1)
        self.assertFalse(self.ask("PATCH", path, {"active": False}).json["active"])
        self.assertEqual(self.last().action, "project.deactivate")
        self.clock.advance(1)
        reply = self.ask("PATCH", path, {"active": False})
        self.assertEqual(reply.json["deactivated_at"], "2026-11-18T09:06:41.000Z")
        reply = self.ask("PATCH", path, {"active": True})
        self.assertEqual((reply.json["active"], reply.json["deactivated_at"]), (True, None))
        self.assertEqual(self.last().action, "project.activate")

    def test_null(self) -> None:
        """Null is no name and no state."""
        project = self.project()
        for body in ({"name": None}, {"active": None}):
            self.refused(self.ask("PATCH", f"/manage/projects/{project}", body), 422, "null")

    def test_two_at_once(self) -> None:
        """A renaming that began before a deactivation does not undo it."""
        project = self.project()
        waiting: Deferred[None] = Deferred()
        self.store.before = lambda name: waiting if name == "update_project" and not waiting.called else None
        fields = {"Authorization": f"Bearer {TOKEN}"}
        path = f"/manage/projects/{project}"
        first = Conversation(self.root, request("PATCH", path, {"name": "New"}, fields))
        second = Conversation(self.root, request("PATCH", path, {"active": False}, fields))
        waiting.callback(None)
        self.assertEqual((first.response().status, second.response().status), (200, 200))
        stored = self.store.projects[project]
        self.assertEqual((stored.name, stored.active), ("New", False))

    def test_delete(self) -> None:
        """A project is deactivated, and kept, so that what it did stays known; the second time is no error."""
        project = self.project(api_key="sk-1")
        for _ in range(2):
            self.assertEqual(self.ask("DELETE", f"/manage/projects/{project}").status, 204)
        self.assertEqual((self.last().action, self.last().project_id), ("project.deactivate", project))
        shown = self.ask("GET", f"/manage/projects/{project}").json
        self.assertEqual((shown["active"], shown["deactivated_at"]), (False, "2026-11-18T09:06:40.000Z"))
        self.assertEqual(self.store.keys[project], {"openai": "sk-1"})
        self.refused(self.ask("DELETE", "/manage/projects/nobody"), 404)


class RevocationTests(ManagementTestCase):
    def test_revoked(self) -> None:
        """All tokens of a project go, and of no other; the second time there are none left."""
        one, other = self.project(), self.project()
        for project in (one, one, other):
            self.token(project_id=project)
        path = f"/manage/projects/{one}/tokens/revoke"
        self.assertEqual(self.ask("POST", path).json, {"revoked": 2})
        self.assertEqual((self.last().action, self.last().project_id), ("project.tokens.revoke", one))
        self.assertEqual(self.last().details, {"revoked": 2})
        self.assertEqual(self.ask("POST", path).json, {"revoked": 0})
        self.assertEqual([token.active for token in self.store.tokens.values()], [False, False, True])

    def test_unknown(self) -> None:
        """A project that is not there has no tokens to revoke."""
        self.refused(self.ask("POST", "/manage/projects/nobody/tokens/revoke"), 404)

    def test_get(self) -> None:
        """Nothing is revoked by looking."""
        reply = self.ask("GET", "/manage/projects/x/tokens/revoke")
        self.assertEqual((reply.status, reply["allow"]), (405, "POST"))
