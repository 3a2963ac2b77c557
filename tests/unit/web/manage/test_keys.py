"""Management keys: issued, listed, used, revoked."""

from __future__ import annotations

from llmproxy.auth.lockout import MAX_FAILURES
from llmproxy.errors import StoreUnavailable
from llmproxy.web.manage.auth import MAX_REMEMBERED_KEYS
from tests.unit.web.manage.management import ManagementTestCase

UNKNOWN = "sk-lp-mk-" + "a" * 43


class KeyTests(ManagementTestCase):
    def test_issued(self) -> None:
        """Shown this once; neither a list nor the audit log has it."""
        project = self.project()
        reply = self.ask("POST", "/manage/keys", {"name": "Lead", "role": "operator", "projects": [project]})
        self.assertEqual((reply.status, reply["location"]), (201, "/manage/keys/key-1"))
        key = reply.json["key"]
        self.assertTrue(key.startswith(reply.json["prefix"]))
        self.assertEqual((reply.json["role"], reply.json["projects"]), ("operator", [project]))
        self.assertEqual(self.last().action, "key.create")
        details = {"name": "Lead", "role": "operator", "projects": [project], "key_id": "key-1"}
        self.assertEqual(self.last().details, details)
        for path in ("/manage/keys", "/manage/keys/key-1"):
            self.assertNotIn(key.encode(), self.ask("GET", path).body)

    def test_used(self) -> None:
        """It opens what the management token opens, and says when it was used last."""
        key = self.key("admin")
        self.assertIsNone(self.ask("GET", "/manage/keys/key-1").json["last_used_at"])
        self.assertEqual(self.ask("GET", "/manage/projects", token=key).status, 200)
        self.assertEqual(self.ask("GET", "/manage/keys/key-1").json["last_used_at"], "2026-11-18T09:06:40.000Z")

    def test_revoked(self) -> None:
        """It opens nothing any more; revoking it again is no error."""
        key = self.key("admin")
        for _ in range(2):
            self.assertEqual(self.ask("DELETE", "/manage/keys/key-1").status, 204)
        self.assertEqual((self.last().action, self.last().details["key_id"]), ("key.revoke", "key-1"))
        self.refused(self.ask("GET", "/manage/projects", token=key), 401)
        self.assertFalse(self.ask("GET", "/manage/keys").json["data"][0]["active"])
        self.refused(self.ask("DELETE", "/manage/keys/nobody"), 404)

    def test_wrong(self) -> None:
        for body, said in (
            ({"role": "viewer"}, "name"),
            ({"name": "x", "role": "root"}, "role"),
            ({"name": "x", "role": "viewer", "projects": []}, "projects"),
            ({"name": "x", "role": "viewer", "projects": ["nobody"]}, "projects: There is no"),
            ({"name": "x", "role": "viewer", "projects": "p"}, "projects"),
        ):
            self.refused(self.ask("POST", "/manage/keys", body), 422, said)
        self.assertEqual(self.keys.keys, {})

    def test_guessing(self) -> None:
        """After 20 wrong ones the store is not asked any more; who has a valid key from there is not hurt."""
        key = self.key("viewer")
        self.assertEqual(self.ask("GET", "/manage/projects", token=key).status, 200)
        before = self.keys.validated
        for _ in range(MAX_FAILURES):
            self.refused(self.ask("GET", "/manage/projects", token=UNKNOWN), 401)
        self.assertEqual(self.keys.validated, before + MAX_FAILURES)
        self.refused(self.ask("GET", "/manage/projects", token=UNKNOWN), 429)
        self.assertEqual(self.keys.validated, before + MAX_FAILURES)
        self.assertEqual(self.ask("GET", "/manage/projects", token=key).status, 200)
        self.assertGreater(MAX_REMEMBERED_KEYS, 1)

    def test_what_is_no_key_is_asked_of_no_store(self) -> None:
        for wrong in ("guess", "sk-lp-" + "a" * 43, UNKNOWN + "a", UNKNOWN[:-1]):
            self.refused(self.ask("GET", "/manage/projects", token=wrong), 401)
        self.assertEqual(self.keys.validated, 0)

    def test_without_the_store(self) -> None:
        """A key cannot be checked, which is 503 and no failed attempt; the management token still opens."""
        key = self.key("viewer")
        self.keys.failing = StoreUnavailable()
        for _ in range(MAX_FAILURES + 1):
            self.refused(self.ask("GET", "/manage/projects", token=key), 503)
        self.assertEqual(self.ask("GET", "/manage/projects").status, 200)
