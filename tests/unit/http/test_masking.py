from __future__ import annotations

from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http.masking import Mask, masked_lines

KEYS = st.text("ab-", min_size=1, max_size=6).map(str.encode)  # so that they overlap themselves, and stand anywhere
PIECES = st.lists(st.text("ab-", max_size=8).map(str.encode), max_size=12)


def masked(secret: bytes, pieces: list[bytes]) -> list[bytes]:
    mask = Mask(secret)
    return [*(mask.feed(piece) for piece in pieces), mask.end()]


class Pieces(TestCase):
    @given(KEYS, PIECES)
    @example(b"aab", [b"aa", b"ab"])
    @example(b"aa", [b"a", b"a", b"a"])
    def test_any_split(self, secret: bytes, pieces: list[bytes]) -> None:
        """However the bytes are cut, the same come out, and as many; the secret is not among them."""
        whole = b"".join(pieces)
        got = b"".join(masked(secret, pieces))
        self.assertEqual(got, whole.replace(secret, b"*" * len(secret)))
        self.assertEqual(len(got), len(whole))
        self.assertNotIn(secret, got)

    @given(KEYS, PIECES)
    def test_what_is_held_back(self, secret: bytes, pieces: list[bytes]) -> None:
        """Is never more than the secret but one byte, and only what could become it."""
        mask = Mask(secret)
        given_so_far = got_so_far = 0
        for piece in pieces:
            given_so_far += len(piece)
            got_so_far += len(mask.feed(piece))
            self.assertLess(given_so_far - got_so_far, len(secret))
        held = mask.end()
        self.assertTrue(secret.startswith(held))
        self.assertEqual(mask.end(), b"")

    def test_bytes_that_have_nothing_of_it(self) -> None:
        """Pass at once."""
        self.assertEqual(masked(b"secret", [b"data: 1\n\n", b"xyz"]), [b"data: 1\n\n", b"xyz", b""])

    def test_its_beginning_at_the_end(self) -> None:
        """Is let go at the end: the answer must stay whole."""
        self.assertEqual(masked(b"secret", [b"a sec"]), [b"a ", b"sec"])


class Lines(TestCase):
    def test_with_and_without(self) -> None:
        lines = [b"A: b", b"X-Key: my secret, secret"]
        self.assertEqual(masked_lines(lines, b"secret"), [b"A: b", b"X-Key: my ******, ******"])
        self.assertIs(masked_lines(lines, b"other"), lines)
