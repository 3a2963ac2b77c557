"""How far a long command is."""

from __future__ import annotations

import json
import os
import pty
import sys
import unittest
from contextlib import redirect_stderr, suppress
from io import StringIO
from unittest import mock

from llmproxy.cli.progress import LINE_SECONDS, Progress


class ProgressTests(unittest.TestCase):
    def shown(self, as_json: bool) -> list[str]:
        now = [100.0]
        with redirect_stderr(StringIO()) as told, Progress(as_json, lambda: now[0]).step("Reading", 3000) as done:
            for _ in range(3):
                now[0] += LINE_SECONDS / 2
                done(1000)
        return told.getvalue().splitlines()

    def test_lines(self) -> None:
        """One now and then, and one at the end."""
        self.assertEqual(self.shown(False), ["Reading: 2,000 of 3,000 rows, 5 s", "Reading: 3,000 of 3,000 rows, 8 s"])

    def test_json(self) -> None:
        lines = [json.loads(line) for line in self.shown(True)]
        self.assertEqual(
            lines,
            [
                {"step": "reading", "rows": 2000, "total": 3000, "seconds": 5.0},
                {"step": "reading", "rows": 3000, "total": 3000, "seconds": 7.5},
            ],
        )

    def test_a_terminal(self) -> None:
        """A bar, which is full at the end."""
        ours, theirs = pty.openpty()
        with (
            open(theirs, "w") as terminal,
            mock.patch.object(sys, "stderr", terminal),
            Progress(False).step("Writing", 30) as done,
        ):
            done(10)
            done(20)
        told = b""
        with suppress(OSError):  # what a terminal says that nobody writes to any more
            while part := os.read(ours, 65536):
                told += part
        os.close(ours)
        self.assertIn(b"Writing", told)
        self.assertIn(b"30/30", told)
        self.assertIn(b"####", told)

    def test_a_step_that_fails(self) -> None:
        """It is not said to be over."""
        with redirect_stderr(StringIO()) as told, self.assertRaises(ValueError), Progress(False).step("Reading", 3000):
            raise ValueError
        self.assertEqual(told.getvalue(), "")
