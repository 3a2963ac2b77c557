"""L{llmproxy.base.late_imports}."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from llmproxy.base.late_imports import LateImports


class LateImportsTests(TestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        (folder / "late_import_of_a_test.py").write_text("import threading\nTHREAD = threading.current_thread()\n")
        (folder / "late_import_that_fails.py").write_text("raise LookupError('gone')\n")
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.path.remove, str(folder))
        self.addCleanup(sys.modules.pop, "late_import_of_a_test", None)
        self.imports = LateImports(reactor)

    async def test_in_a_thread(self) -> None:
        """The reactor goes on meanwhile; the thread ends with its work."""
        await self.imports.load(("late_import_of_a_test", "json"))
        thread = sys.modules["late_import_of_a_test"].THREAD
        self.assertIsNot(thread, threading.main_thread())
        thread.join(30)
        self.assertFalse(thread.is_alive())

    async def test_what_fails(self) -> None:
        """Is raised as it is."""
        with self.assertRaises(LookupError):
            await self.imports.load(("late_import_that_fails",))

    async def test_work(self) -> None:
        """Its result comes back."""
        self.assertNotEqual(await self.imports.in_thread(threading.get_ident), threading.get_ident())
