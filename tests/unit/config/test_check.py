"""L{llmproxy.config.check}: what C{--check} prints."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import TestCase

from llmproxy.config.check import report

RIGHT = "apis: {x: {base_url: 'https://x.example', allowed_endpoints: [/v1/models]}}\n"


class Report(TestCase):
    def report(self, text: str, **environ: str) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "apis.yaml")
            Path(path).write_text(text)
            code, said = report(path, environ)
        return code, said.replace(path, "X")

    def test_right(self) -> None:
        """What the daemon would do, without passwords."""
        code, said = self.report(RIGHT, LLMPROXY_STORE_URL="postgresql+psycopg://u:hunter2@h/d")
        self.assertEqual(code, 0)
        self.assertIn("X is right.", said)
        self.assertIn("https://x.example", said)
        self.assertIn("postgresql+psycopg://***@h/d", said)
        self.assertNotIn("hunter2", said)

    def test_wrong(self) -> None:
        """The exit code of sysexits, and every problem on a line of its own."""
        code, said = self.report(RIGHT + "a: 1\nb: 2\n")
        self.assertEqual(code, 78)
        self.assertEqual(said.splitlines()[-1], "2 problems in the settings.")
        self.assertEqual(said.splitlines()[:2], ["X:2:1: a: is not a setting", "X:3:1: b: is not a setting"])

    def test_not_there(self) -> None:
        """A path that is wrong is a wrong setting too."""
        self.assertEqual(
            report("/no/such", {}),
            (78, "/no/such: cannot be read: No such file or directory\n1 problem in the settings."),
        )
