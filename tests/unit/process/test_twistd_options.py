"""Which pid file there is."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.process.twistd_options import check_pid_file


class PidFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)

    def chosen(self, *arguments: str) -> str:
        """Of a process with these arguments: twistd has read those that name no file otherwise than its default."""
        twistd = ServerOptions()  # type: ignore[no-untyped-call]
        twistd["nodaemon"] = "-n" in arguments
        check_pid_file(twistd, [*arguments, "llmproxy", "--config=--pidfile=x"])
        return str(twistd["pidfile"])

    def test_in_the_foreground(self) -> None:
        """One that is named, whatever its name; else none, and one that was left behind stays as it is."""
        Path("twistd.pid").write_text("1")
        self.assertEqual(self.chosen("-n"), "")
        self.assertTrue(Path("twistd.pid").exists())
        for named in (["--pidfile=twistd.pid"], ["--pidfile", "twistd.pid"], ["--pidf=twistd.pid"]):
            self.assertEqual(self.chosen("-n", *named), "twistd.pid")
        self.assertFalse(Path("twistd.pid").exists())  # the process that it named is no daemon

    def test_in_the_background(self) -> None:
        self.assertEqual(self.chosen(), "twistd.pid")

    def test_arguments_of_somebody_else(self) -> None:
        """Whoever runs twistd's code has arguments of its own."""
        self.assertEqual(self.chosen("-n", "--no-option-of-twistd"), "")
