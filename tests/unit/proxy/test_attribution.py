from __future__ import annotations

from unittest import TestCase

from llmproxy.base.attribution import MAX_VALUE_CHARACTERS, as_shown, decode
from llmproxy.http.field_lines import FieldLines
from llmproxy.model import Grant
from llmproxy.proxy.attribution import AttributionFields


class AttributionOfRequests(TestCase):
    def setUp(self) -> None:
        self.fields = AttributionFields({"user": "X-User", "session": "X-Session"})

    def shown(self, *lines: bytes, **metadata: str) -> dict[str, dict[str, object]]:
        return as_shown(self.fields.of(FieldLines.of(lines), Grant("p", metadata=tuple(metadata.items()))))

    def test_claimed(self) -> None:
        """A field's value is the client's own word; a field that is missing or empty says nothing."""
        self.assertEqual(self.shown(b"x-USER: ada", b"X-Session:"), {"user": {"value": "ada", "claimed": True}})
        self.assertEqual([each.name for each in decode(self.fields.of(FieldLines.of([]), Grant("p")))],
                         ["user", "session"])  # fmt: skip

    def test_fixed(self) -> None:
        """The token's metadata holds, whatever the field says, and only where it has the name."""
        found = self.shown(b"X-User: grace", b"X-Session: s", user="ada", other="x")
        self.assertEqual(found["user"], {"value": "ada", "claimed": False})
        self.assertEqual(found["session"], {"value": "s", "claimed": True})

    def test_values_that_are_odd(self) -> None:
        """No longer than they may be, printable, and the first of several."""
        self.assertEqual(len(str(self.shown(b"X-User: " + b"x" * 999)["user"]["value"])), MAX_VALUE_CHARACTERS)
        self.assertEqual(self.shown(b"X-User: a\tb\xff\xc3\xa9")["user"]["value"], "a?b\ufffd\u00e9")
        self.assertEqual(self.shown(b"X-User: a", b"X-User: b")["user"]["value"], "a")

    def test_long_values_are_not_kept(self) -> None:
        """Only their beginning is recorded, which is worked out anew each time."""
        for value in ("short", "long" * 1000):
            lines = FieldLines.of([f"X-User: {value}".encode()])
            self.assertEqual(self.fields.of(lines, Grant("p")), self.fields.of(lines, Grant("p")))
        self.assertEqual(len(self.fields._texts), 1)

    def test_none(self) -> None:
        """Nothing is read where nothing is configured."""
        self.assertFalse(AttributionFields({}))
        self.assertEqual(self.fields.field_names, {b"x-user", b"x-session"})
