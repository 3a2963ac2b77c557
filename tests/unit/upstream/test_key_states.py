from __future__ import annotations

from unittest import TestCase

from llmproxy.upstream.key_states import COOLDOWN_SECONDS, MAX_COOLDOWN_SECONDS, KeyState, KeyStates


class Cooldowns(TestCase):
    def setUp(self) -> None:
        self.states = KeyStates(size=2)

    def of(self, key: bytes = b"sk-1", base: str = "http://a") -> KeyState:
        return self.states.of("main", base, "p", key)

    def test_how_long(self) -> None:
        for status, says, seconds in (
            (401, None, 60.0),
            (402, 5.0, 60.0),
            (403, None, 60.0),
            (429, None, COOLDOWN_SECONDS),
            (429, 0.25, 0.25),
            (529, 30.0, 30.0),
            (429, 1e9, MAX_COOLDOWN_SECONDS),
            (400, 9.0, 0.0),
            (500, 9.0, 0.0),
            (200, None, 0.0),
        ):
            with self.subTest((status, says)):
                state = KeyStates().of("main", "http://a", "p", b"sk-1")
                state.responded(status, says, 60.0, 100.0)
                self.assertEqual(state.ready(100.0), seconds == 0)
                if seconds:
                    self.assertFalse(state.ready(99.9 + seconds))
                    self.assertTrue(state.ready(100.0 + seconds))

    def test_not_shortened(self) -> None:
        """By another response that comes later."""
        self.of().responded(429, 60.0, 60.0, 100.0)
        self.of().responded(429, 1.0, 60.0, 100.0)
        self.assertFalse(self.of().ready(150.0))

    def test_each_for_itself(self) -> None:
        """At one upstream; a key that takes another's place begins anew."""
        self.of().responded(401, None, 60.0, 100.0)
        self.assertTrue(self.of(base="http://b").ready(100.0))
        self.assertTrue(self.of(b"sk-2").ready(100.0))

    def test_shown_and_let_in_again(self) -> None:
        self.of(b"sk-0123456789abcdef").responded(401, None, 60.0, 100.0)
        (state,) = self.states.out("main", "http://a", 100.0)
        self.assertEqual((state.masked, state.status), ("sk…ef", 401))
        self.assertEqual(list(self.states.out("main", "http://a", 160.0)), [])
        self.states.forgive("main", "http://a")
        self.assertTrue(state.ready(100.0))

    def test_as_many_as_fit(self) -> None:
        first = self.of()
        self.of(b"sk-2"), self.of(b"sk-3")
        self.assertIsNot(self.of(), first)
