"""What tells variants apart."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.caching.rules.vary import selecting_fields


class Selecting(TestCase):
    def test_absent_is_not_empty(self) -> None:
        """A field that is not there is no empty one."""
        self.assertEqual(selecting_fields([b"Foo:"], (b"foo", b"bar")), [b"", None])

    def test_what_changes_nothing(self) -> None:
        """Blanks, and how a list is cut into fields."""
        for lines in ([b"Foo: 1, 2"], [b"Foo: 1", b"foo: 2"], [b"FOO:  1,2 "]):
            self.assertEqual(selecting_fields(lines, (b"foo",)), [b"1,2"])

    def test_case(self) -> None:
        """It matters, save where the field's definition says that it does not."""
        self.assertEqual(selecting_fields([b"Foo: A"], (b"foo",)), [b"A"])
        self.assertEqual(selecting_fields([b"Accept-Language: eN, De"], (b"accept-language",)), [b"en,de"])
