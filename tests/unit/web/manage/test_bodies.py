"""Bodies: no input of any kind is more than refused."""

from __future__ import annotations

import json
import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import BodyUnreadable, Invalid
from llmproxy.web.manage.bodies import ProjectChange, ProjectCreate, TokenChange, TokenCreate, read
from llmproxy.web.manage.body_types import Body, BodyContext

KNOWN = BodyContext(("openai", "anthropic"), "openai", 1_794_992_800.0)
KINDS: list[type[Body]] = [ProjectCreate, ProjectChange, TokenCreate, TokenChange]
COLUMN_NAMES = sorted({name for kind in KINDS for name in kind.model_fields})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.from_regex(r"\A[0-9]{1,30}[smhdw]\Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


class ReadTests(unittest.TestCase):
    @settings(deadline=None)
    @given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from([*COLUMN_NAMES, "x"]), VALUES, max_size=4))
    def test_any_object(self, kind: type[Body], body: dict[str, object]) -> None:
        """An object is read, or refused in words; what is read can be used."""
        try:
            found = read(kind, json.dumps(body).encode(), KNOWN)
        except (Invalid, BodyUnreadable):
            return
        if isinstance(found, TokenCreate | TokenChange):
            rfc3339(found.expiry(KNOWN.now) or 0.0)
        self.assertIsInstance(found, kind)

    @settings(deadline=None)
    @given(st.sampled_from(KINDS), st.binary(max_size=50))
    def test_any_bytes(self, kind: type[Body], data: bytes) -> None:
        """Bytes of any kind are read or refused."""
        try:
            self.assertIsInstance(read(kind, data, KNOWN), kind)
        except (Invalid, BodyUnreadable):
            pass

    def test_budgets(self) -> None:
        """One that is none is told what was meant, by no expression."""
        for name, value, meant in (
            ("budget_usd", "20/week", "try 20/month"),
            ("budget_tokens", "x", "try 1000000/day"),
        ):
            with self.assertRaises(Invalid) as caught:
                read(TokenChange, json.dumps({name: value}).encode(), KNOWN)
            self.assertIn(meant, caught.exception.message)
            self.assertNotIn("[0-9]", caught.exception.message)

    def test_many_errors(self) -> None:
        """A body with thousands of errors is told the first, and how many more there are."""
        body = json.dumps({"project_id": "p", "models": [""] * 250}).encode()
        with self.assertRaises(Invalid) as caught:
            read(TokenCreate, body, KNOWN)
        self.assertIn("and 230 more", caught.exception.message)
        self.assertLess(len(caught.exception.message), 3000)

    def test_strange_keys(self) -> None:
        """A key that may be a secret, or cannot be shown, is not."""
        for key in ("sk-proj-abc123", "a\nb", "x" * 1000):
            with self.assertRaises(Invalid) as caught:
                read(ProjectChange, json.dumps({key: 1}).encode(), KNOWN)
            self.assertEqual(caught.exception.message, "The body is not valid: …: unknown key.")
