"""L{llmproxy.config.external_text}: variables, and what plain scalars mean."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.config.external_text import expand, holds_variable


class Expand(TestCase):
    def test_variables_and_defaults(self) -> None:
        """As in a shell: an empty variable takes the default, where there is one."""
        environ = {"A": "1", "EMPTY": ""}
        for text, expected in {
            "${A}": "1",
            "x${A}y${A}": "x1y1",
            "${B:-2}": "2",
            "${A:-2}": "1",
            "${EMPTY:-3}": "3",
            "${EMPTY}": "",
            "${B:-}": "",
            "${B:-a:-b}": "a:-b",
        }.items():
            self.assertEqual(expand(text, environ), expected, text)

    def test_dollars(self) -> None:
        """Two make one; one that begins no variable stays."""
        self.assertEqual(expand("$$ $${A} $A 5$", {"A": "1"}), "$ ${A} $A 5$")

    def test_not_expanded_twice(self) -> None:
        """What a variable holds is not looked at again."""
        self.assertEqual(expand("${A}", {"A": "${A}$$"}), "${A}$$")

    def test_not_set(self) -> None:
        """The message names the variable, and says what to do."""
        with self.assertRaisesRegex(ValueError, r"variable B is not set \(set it, or write \$\{B:-default\}\)"):
            expand("${B}", {})

    def test_not_a_variable(self) -> None:
        """What begins as one must be one."""
        for text in ("${", "${A", "${}", "${1A}", "${A B}", "${A-x}", "${a.b}"):
            with self.assertRaisesRegex(ValueError, "begins a variable"):
                expand(text, {"A": "1"})

    @given(st.text())
    def test_escaped_dollars_mean_themselves(self, text: str) -> None:
        """Any text can be written."""
        written = text.replace("$", "$$")
        self.assertEqual(expand(written, {}), text)
        self.assertFalse(holds_variable(written))
