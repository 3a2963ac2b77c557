"""Which kept answers an unsafe request makes doubtful."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules.invalidation import invalidated_targets


class Doubtful(TestCase):
    def test_the_target_itself(self) -> None:
        """What was there before is gone, unless the request failed."""
        self.assertEqual(invalidated_targets(b"/a?b", b"h", 200, []), [b"/a?b"])
        self.assertEqual(invalidated_targets(b"/a?b", b"h", 302, []), [b"/a?b"])
        self.assertEqual(invalidated_targets(b"/a?b", b"h", 404, []), [])
        self.assertEqual(invalidated_targets(b"/a?b", b"h", 500, []), [])

    def test_where_the_answer_points(self) -> None:
        """C{Location} and C{Content-Location}, on the same host."""
        lines = [b"Location: /c", b"Content-Location: http://H:1/d?e", b"Other: /f"]
        self.assertEqual(invalidated_targets(b"/a/b", b"h:1", 201, lines), [b"/a/b", b"/c", b"/d?e"])
        self.assertEqual(invalidated_targets(b"/a/b", b"h", 201, [b"Location: c"]), [b"/a/b", b"/a/c"])

    def test_other_hosts(self) -> None:
        """A provider cannot make others' answers go."""
        for value in (b"http://other/c", b"//other/c", b"http://h@other/c", b"http://h:2/c", b"http://[", b"\xff"):
            self.assertEqual(invalidated_targets(b"/a", b"h", 200, [b"Location: " + value]), [b"/a"], value)

    @given(st.binary(max_size=40))
    def test_any_bytes(self, value: bytes) -> None:
        """Nothing fails, and what is found is a target."""
        for target in invalidated_targets(b"/a", b"h", 200, [b"Location: " + value]):
            self.assertTrue(target.startswith(b"/"), target)
