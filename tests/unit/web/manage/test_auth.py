"""Who may manage, and what guessing is worth."""

from __future__ import annotations

from llmproxy.auth.lockout import MAX_FAILURES, FailedAttempts
from llmproxy.errors.identity import TokenInvalid
from llmproxy.web.manage.auth import JwtWithoutAccess, ManagementAuth
from llmproxy.web.manage.roles import Principal
from llmproxy.web.root import Root
from tests.unit.web.manage.management import TOKEN, ManagementTestCase


class Bearers:
    """Knows one JWT, and one of somebody who manages nothing."""

    def is_of_issuer(self, token: str) -> bool:
        return token.startswith("jwt-")

    async def principal(self, token: str) -> Principal:
        if token == "jwt-nobody":
            raise JwtWithoutAccess("oidc:0:bob", "No role.")
        if token != "jwt-good":
            raise TokenInvalid("Its hat.")
        return Principal("Ada", "admin", None, "oidc:0:ada")


class GateTests(ManagementTestCase):
    def test_no_token_configured(self) -> None:
        """A proxy without a management token cannot be managed by sending none."""
        with self.assertRaises(ValueError):
            ManagementAuth("", FailedAttempts(), self.clock)

    def test_admitted(self) -> None:
        """The management token opens; the scheme's case does not matter."""
        self.assertEqual(self.ask("GET", "/manage/projects").status, 200)
        fields = {"Authorization": f"bEARER  {TOKEN}"}
        self.assertEqual(self.ask("GET", "/manage/projects", token=None, fields=fields).status, 200)

    def test_missing(self) -> None:
        """Without a bearer token, or with another scheme, the client is asked for one."""
        for fields in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {TOKEN}"}, {"X-Api-Key": TOKEN}):
            reply = self.ask("GET", "/manage/projects", token=None, fields=fields)
            self.refused(reply, 401, "management token")
            self.assertEqual(reply["www-authenticate"], 'Bearer realm="llmproxy"')
            self.assertEqual(reply["x-llmproxy-error"], "missing_token")
        self.assertEqual(self.audit.entries, [])

    def test_wrong(self) -> None:
        """A wrong token is refused the same way however near it is, written down, and never repeated."""
        for wrong in (TOKEN[:-1], TOKEN + "x", "x", "sk-lp-" + "a" * 43):
            reply = self.ask("POST", "/manage/projects", {"name": "x"}, token=wrong)
            self.refused(reply, 401)
            self.assertNotIn(wrong.encode() if len(wrong) > 1 else b"Bearer x", reply.body)
            entry = self.last()
            self.assertEqual((entry.action, entry.outcome), ("management.denied", "failure"))
            self.assertEqual((entry.client, entry.request_id), ("192.0.2.1", reply["x-request-id"]))
        self.assertEqual(self.store.projects, {})

    def test_guessing(self) -> None:
        """After 20 wrong tokens in a minute an address is told to wait; others, and the right token, are not hurt."""
        for _ in range(MAX_FAILURES):
            self.refused(self.ask("GET", "/manage/projects", token="guess"), 401)
        reply = self.ask("GET", "/manage/projects", token="guess")
        self.refused(reply, 429)
        self.assertEqual((reply["x-llmproxy-error"], reply["retry-after"]), ("too_many_failures", "60"))
        self.assertEqual(len(self.audit.entries), MAX_FAILURES)
        self.assertEqual(self.ask("GET", "/manage/projects").status, 200)
        self.refused(self.ask("GET", "/manage/projects", token="guess", address="192.0.2.2"), 401)
        self.clock.advance(60)
        self.refused(self.ask("GET", "/manage/projects", token="guess"), 401)

    def test_a_jwt_that_is_good_from_where_others_guess(self) -> None:
        """Nobody guesses a signature: it is never held back. Wrong ones count like wrong tokens."""
        self.root = Root(manage=self.management(identity=Bearers()))
        for _ in range(MAX_FAILURES):
            reply = self.ask("GET", "/manage/projects", token="jwt-bad")
            self.refused(reply, 401, "This JWT is not valid here.")
            self.assertEqual((reply["x-llmproxy-error"], self.last().details["reason"]), ("token_invalid", "Its hat."))
        for wrong in ("jwt-bad", "guess"):
            self.refused(self.ask("GET", "/manage/projects", token=wrong), 429)
        self.assertEqual(len(self.audit.entries), MAX_FAILURES)
        self.assertEqual(self.ask("GET", "/manage/projects", token="jwt-good").status, 200)
        reply = self.ask("GET", "/manage/projects", token="jwt-nobody")
        self.refused(reply, 403, "No role.")
        self.assertEqual((self.last().actor, self.last().action), ("oidc:0:bob", "management.denied"))

    def test_behind_a_proxy(self) -> None:
        """Each client of a trusted proxy counts for itself, and is named in the audit log; others are not believed."""
        for address, forwarded, client in (
            ("198.51.100.1", "203.0.113.9, 198.51.100.2", "203.0.113.9"),
            ("192.0.2.7", "203.0.113.9", "192.0.2.7"),
        ):
            fields = {"X-Forwarded-For": forwarded}
            for _ in range(MAX_FAILURES):
                self.refused(self.ask("GET", "/manage/projects", token="guess", address=address, fields=fields), 401)
            self.assertEqual(self.last().client, client)
            self.refused(self.ask("GET", "/manage/projects", token="guess", address=address, fields=fields), 429)
        fields = {"X-Forwarded-For": "203.0.113.10"}
        self.refused(self.ask("GET", "/manage/projects", token="guess", address="198.51.100.1", fields=fields), 401)

    def test_denial_that_cannot_be_written_down(self) -> None:
        """Nobody guesses unseen: without an audit log a wrong token is answered 503."""
        self.audit.failing = OSError("disk full")
        self.refused(self.ask("GET", "/manage/projects", token="guess"), 503)
        self.flushLoggedErrors(OSError)
