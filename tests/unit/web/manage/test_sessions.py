"""Who is signed in to the admin pages."""

from __future__ import annotations

from tests.unit.web.manage.management import ManagementTestCase


class SessionTests(ManagementTestCase):
    def test_listed(self) -> None:
        """Whose they are, and from where; nothing that a cookie or a form holds."""
        reply = self.ask("GET", "/manage/sessions")
        ada, key = reply.json["data"]
        self.assertEqual(
            ada,
            {
                "id": "a" * 32,
                "subject": "oidc:3d38e146:ada",
                "name": "Ada",
                "client": "192.0.2.1",
                "user_agent": "Firefox",
                "created_at": "2026-11-18T09:06:40.000Z",
                "last_seen_at": "2026-11-18T09:07:40.000Z",
            },
        )
        self.assertEqual((key["subject"], key["name"]), ("key:key-1", None))
        for secret in (b"hash", b"csrf"):
            self.assertNotIn(secret, reply.body)

    def test_ended(self) -> None:
        """It is over, and the audit log has by its first characters which one; twice is 404."""
        self.assertEqual(self.ask("DELETE", f"/manage/sessions/{'a' * 32}").status, 204)
        self.assertEqual((self.last().action, self.last().details["session"]), ("session.end", "a" * 8))
        self.assertEqual([each["id"] for each in self.ask("GET", "/manage/sessions").json["data"]], ["b" * 32])
        self.refused(self.ask("DELETE", f"/manage/sessions/{'a' * 32}"), 404, "over already")

    def test_for_admins(self) -> None:
        """Others neither see them nor end them."""
        key = self.key("operator")
        self.refused(self.ask("GET", "/manage/sessions", token=key), 403)
        self.refused(self.ask("DELETE", f"/manage/sessions/{'a' * 32}", token=key), 403)
