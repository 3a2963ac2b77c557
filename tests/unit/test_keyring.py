from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.keyring import DATA_KEYS, TOKENS, Keyring, parse_keys
from llmproxy.sealing import CannotOpen, Sealer, TokenHasher, derive


class Keys(SynchronousTestCase):
    def setUp(self) -> None:
        self.found: Sequence[str] | None = None

    def ring(self, *keys: str) -> Keyring:
        return Keyring(keys, lambda: self.found)

    def test_lines(self) -> None:
        self.assertEqual(parse_keys(" new \n\nold\r\nnew\n"), ("new", "old"))
        self.assertRaises(ValueError, Keyring, parse_keys("\n"))

    def test_one_key(self) -> None:
        """Seals as ever."""
        sealed = Keyring(["k"]).sealer("p").seal("text", "a", "b")
        self.assertEqual(Sealer(derive("k", "p")).open(sealed, "a", "b"), "text")

    def test_several(self) -> None:
        """The first seals, each opens."""
        old = self.ring("old").sealer("p").seal("text", "a")
        both = self.ring("new", "old").sealer("p")
        self.assertEqual(both.open(old, "a"), "text")
        self.assertFalse(both.is_newest(old, "a"))
        new = both.seal("text", "a")
        self.assertTrue(both.is_newest(new, "a"))
        self.assertEqual(self.ring("new").sealer("p").open(new, "a"), "text")
        self.assertRaises(CannotOpen, self.ring("old").sealer("p").open, new, "a")
        self.assertRaises(CannotOpen, both.open, new, "b")

    def test_a_key_that_came_later(self) -> None:
        """Is found when it is needed: to open, and to seal."""
        new = self.ring("new").sealer("p").seal("text")
        ring = self.ring("old")
        sealer = ring.sealer("p")
        before = sealer.seal("before")
        self.found = ["new"]
        self.assertEqual(sealer.open(new), "text")
        self.assertEqual(sealer.open(before), "before", "what is known goes on opening")
        self.assertEqual(self.ring("new").sealer("p").open(sealer.seal("x")), "x")
        self.assertEqual(ring.keys, ("new", "old"))

    def test_data_keys(self) -> None:
        """Are what the first key makes of them, until the database says another; hashers follow."""
        ring = self.ring("k")
        hasher = TokenHasher(ring.data_keys[TOKENS])
        self.assertEqual(hasher.hash("t"), TokenHasher(derive("k", "tokens")).hash("t"))
        ring.data_keys[TOKENS].use(b"x" * 32)
        self.assertEqual(hasher.hash("t"), TokenHasher(b"x" * 32).hash("t"))
        self.assertEqual(set(ring.data_keys), set(DATA_KEYS))
