"""Keys and tokens are kept so that a copied database is worth nothing."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.sealing import CannotOpen, Sealer, TokenHasher, derive, mask

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEY = bytes(range(32))


class SealerTests(TestCase):
    @given(TEXT, TEXT, TEXT)
    def test_round_trip(self, text: str, project: str, api: str) -> None:
        """What was sealed for a project and an API is read back there, and its bytes do not show it."""
        sealer = Sealer(KEY)
        sealed = sealer.seal(text, project, api)
        self.assertEqual(sealer.open(sealed, project, api), text)
        if len(text) > 8:
            self.assertNotIn(text.encode(), sealed)

    def test_another_key(self) -> None:
        sealed = Sealer(KEY).seal("sk-secret", "p", "openai")
        with self.assertRaises(CannotOpen):
            Sealer(bytes(32)).open(sealed, "p", "openai")

    @given(st.lists(TEXT, max_size=3), st.lists(TEXT, max_size=3))
    def test_another_context(self, one: list[str], other: list[str]) -> None:
        """A key moved to another project or API does not open there; C{("ab", "c")} is not C{("a", "bc")}."""
        sealer = Sealer(KEY)
        sealed = sealer.seal("sk-secret", *one)
        if one == other:
            self.assertEqual(sealer.open(sealed, *other), "sk-secret")
        else:
            with self.assertRaises(CannotOpen):
                sealer.open(sealed, *other)

    def test_parts_do_not_run_together(self) -> None:
        sealer = Sealer(KEY)
        with self.assertRaises(CannotOpen):
            sealer.open(sealer.seal("sk-secret", "ab", "c"), "a", "bc")

    @given(st.data())
    def test_any_changed_byte(self, data: st.DataObject) -> None:
        sealer = Sealer(KEY)
        sealed = bytearray(sealer.seal("sk-secret", "p"))
        at = data.draw(st.integers(0, len(sealed) - 1))
        sealed[at] ^= data.draw(st.integers(1, 255))
        with self.assertRaises(CannotOpen):
            sealer.open(bytes(sealed), "p")

    @given(st.binary(max_size=64))
    def test_garbage(self, garbage: bytes) -> None:
        with self.assertRaises(CannotOpen):
            Sealer(KEY).open(garbage)

    def test_never_the_same_bytes(self) -> None:
        """Two projects with the same key cannot be told apart by what is stored."""
        sealer = Sealer(KEY)
        self.assertNotEqual(sealer.seal("x"), sealer.seal("x"))

    def test_version_comes_first(self) -> None:
        self.assertEqual(Sealer(KEY).seal("x")[:1], b"\x01")

    def test_short_keys_are_refused(self) -> None:
        for make in (Sealer, TokenHasher):
            with self.assertRaises(ValueError):
                make(b"short")


class DeriveTests(TestCase):
    def test_purposes_share_nothing(self) -> None:
        self.assertEqual(len({derive("master", "seal"), derive("master", "hash"), derive("other", "seal")}), 3)

    def test_is_stable(self) -> None:
        """A later version must derive the same key, or nothing stored opens any more."""
        self.assertEqual(
            derive("master", "seal").hex(), "bd52cd8e61fafc84428178d133d5f939742495f82dd8b0ed0e009df35ec8fe37"
        )

    def test_text_and_bytes_are_one(self) -> None:
        self.assertEqual(derive("clé", "seal"), derive("clé".encode(), "seal"))

    def test_an_empty_master_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            derive("", "seal")


class TokenHasherTests(TestCase):
    def test_the_hash_depends_on_the_key(self) -> None:
        one, other = TokenHasher(KEY), TokenHasher(bytes(32))
        self.assertEqual(one.hash("t"), one.hash("t"))
        self.assertNotEqual(one.hash("t"), other.hash("t"))
        self.assertRegex(one.hash("t"), r"\A[0-9a-f]{64}\Z")


class MaskTests(TestCase):
    def test_shows_both_ends(self) -> None:
        self.assertEqual(mask("sk-proj-0123456789abcdefghijkl"), "sk-…jkl")
        self.assertEqual(mask("sk-proj-" + "0" * 40 + "c0de"), "sk-p…c0de")

    @given(TEXT)
    def test_shows_a_quarter_at_most(self, key: str) -> None:
        self.assertLessEqual(len(mask(key)) - 1, len(key) / 4)
