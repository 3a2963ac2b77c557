"""The chain goes on whoever writes, and whatever happens to the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.audit_chain import ChainReport, verify
from llmproxy.observability.append_file import AppendedFile
from llmproxy.observability.chained_file import ChainedFile, read_head

KEY = b"k" * 32


class ChainedFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "audit.jsonl"
        self.writer = self.another()

    def another(self) -> ChainedFile:
        return ChainedFile(AppendedFile(str(self.path)), str(self.path), KEY)

    def append(self, *actions: str, writer: ChainedFile | None = None) -> None:
        (writer or self.writer).append([json.dumps({"action": each}) for each in actions], sync=False)

    def verify(self, *paths: Path) -> ChainReport:
        files = [path.read_text().split("\n")[:-1] for path in paths or (self.path,)]
        lines = [line for file in files for line in file]
        descriptor = os.open(f"{self.path}.head", os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        return verify(lambda: enumerate_lines(lines), KEY, head=read_head(descriptor), first=1)

    def whole(self, entries: int, *paths: Path) -> None:
        report = self.verify(*paths)
        self.assertEqual((report.problem, report.entries), ("", entries))

    def test_several_writers(self) -> None:
        """Two processes, and one that starts later, make one chain."""
        other = self.another()
        self.append("a", "b")
        self.append("c", writer=other)
        self.append("d")
        self.append("e", writer=self.another())
        self.whole(5)

    def test_rotated(self) -> None:
        """A new file goes on where the one that was renamed ended; so it does after a restart."""
        self.append("a", "b")
        old = self.path.rename(self.path.with_name("audit.jsonl.1"))
        self.append("c", writer=self.another())
        self.append("d")
        self.whole(4, old, self.path)

    def test_cut_off(self) -> None:
        """What was removed from the end is missed, also once more has been written."""
        self.append("a", "b", "c")
        lines = self.path.read_text().splitlines(keepends=True)
        self.path.write_text("".join(lines[:2]))
        self.assertEqual(self.verify().problem, "entry 3 is missing at the end")
        self.append("d", writer=self.another())
        self.assertEqual(self.verify().problem, "entry 3 is missing before line 3, entry 4")

    def test_half_a_line(self) -> None:
        """What a crash has broken off is no entry; the chain goes on behind the last that is whole."""
        self.append("a", "b")
        with self.path.open("a") as file:
            file.write('{"action":"c","se')
        self.append("c", writer=self.another())
        self.whole(3)

    def test_long_entries(self) -> None:
        """The last one is found however long it is."""
        self.append("x" * 600_000)
        self.append("b", writer=self.another())
        self.whole(2)

    def test_before_there_was_a_chain(self) -> None:
        self.path.parent.mkdir(parents=True)
        self.path.write_text('{"action":"old"}\n')
        self.append("a")
        report = self.verify()
        self.assertEqual((report.problem, report.entries, report.unchained), ("", 1, 1))

    def test_a_head_that_cannot_be_made(self) -> None:
        """Where the folder is closed the file is written all the same."""
        self.append("a")
        with mock.patch.object(os, "open", side_effect=PermissionError(13, "closed")):
            self.assertEqual(self.another()._open_head(), -1)

    def test_what_is_no_file(self) -> None:
        """A pipe or a device gets no head beside it."""
        self.path.parent.mkdir(parents=True)
        self.path.symlink_to("/dev/null")
        self.append("a")
        self.append("b")
        self.assertEqual(os.listdir(self.path.parent), ["audit.jsonl"])


def enumerate_lines(lines: list[str]) -> list[tuple[str, str]]:
    return [(f"line {number}", line) for number, line in enumerate(lines, 1)]
