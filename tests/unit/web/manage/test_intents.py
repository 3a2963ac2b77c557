"""What is written of a change before it is made."""

from __future__ import annotations

import json
from unittest import TestCase

from llmproxy.web.manage.audit_trail import AuditDraft
from llmproxy.web.manage.bodies import ProjectCreate, TokenCreate
from llmproxy.web.manage.intents import MAX_BODY_BYTES, MAX_CHARACTERS, MAX_ITEMS, draft_of_intent
from llmproxy.web.manage.keys import KeyCreate
from llmproxy.web.manage.subjects import SubjectName


def draft(kind: type | None, body: object) -> AuditDraft:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return draft_of_intent(AuditDraft("x", details={"path": "/p"}), kind, sent)


class IntentTests(TestCase):
    def test_what_is_named(self) -> None:
        found = draft(TokenCreate, {"project_id": "p1", "name": "ci", "max_requests": 3})
        given = ["max_requests", "name", "project_id"]
        self.assertEqual(found.details, {"path": "/p", "project_id": "p1", "name": "ci", "given": given})
        self.assertEqual((found.project_id, found.token_id), ("p1", ""))
        self.assertEqual(draft(SubjectName, {"issuer": "https://i", "sub": "ada"}).details["sub"], "ada")

    def test_no_secret(self) -> None:
        """Provider keys are fields of a project, and their values stay out."""
        found = draft(ProjectCreate, {"name": "x", "api_keys": {"openai": "sk-secret"}, "unknown": "sk-secret"})
        self.assertNotIn("sk-secret", repr(found))
        self.assertEqual(found.details["given"], ["api_keys", "name"])

    def test_what_is_malformed(self) -> None:
        """Says nothing; the entry is written all the same, and stays small."""
        for body in (b"", b"{", b"[1]", b"[" * 100_000, b"\xff"):
            self.assertEqual(draft(TokenCreate, body).details, {"path": "/p"})
        self.assertEqual(draft(None, {"name": "x"}).details, {"path": "/p"})
        odd = draft(KeyCreate, {"name": "x" * 9999, "projects": ["p"] * 999, "role": {"a": 1}})
        self.assertEqual(len(str(odd.details["name"])), MAX_CHARACTERS)
        self.assertEqual(odd.details["projects"], ["p"] * MAX_ITEMS)
        self.assertNotIn("role", odd.details)
        for name in ("\ud800", "a\nb"):
            self.assertNotIn("name", draft(KeyCreate, {"name": name}).details)
        self.assertEqual(draft(TokenCreate, {"project_id": "a/b"}).project_id, "")

    def test_a_large_body_is_not_read(self) -> None:
        """That takes long, and everybody else would wait."""
        for size, details in (
            (MAX_BODY_BYTES, {"path": "/p", "name": "x", "given": ["name"]}),
            (MAX_BODY_BYTES + 1, {"path": "/p"}),
        ):
            self.assertEqual(draft(TokenCreate, b'{"name":"x"}'.ljust(size)).details, details)
