"""What a daemon that only serves requests does not import."""

from __future__ import annotations

import subprocess
import sys
import unittest

# What is imported when it is needed: an upgrade of the database, a log for a console.
LATE = ("alembic", "mako", "rich", "structlog")
SHOW = "import sys, llmproxy.app; print(*sorted(sys.modules), sep='\\n')"


class ImportTests(unittest.TestCase):
    def test_what_no_request_needs(self) -> None:
        """The daemon starts without the modules that only upgrades and consoles use."""
        run = subprocess.run((sys.executable, "-c", SHOW), capture_output=True, text=True, timeout=60, check=True)
        loaded = set(run.stdout.split())
        self.assertIn("llmproxy.app", loaded)
        self.assertEqual(sorted(loaded.intersection(LATE)), [])
