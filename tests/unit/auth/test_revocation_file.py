from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase

from llmproxy.auth.revocation_file import RevocationFile


class RevocationFileTests(TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)
        self.file = self.made("one")

    def made(self, name: str) -> RevocationFile:
        file = RevocationFile(self.home, name)
        self.addCleanup(file.save, [])
        return file

    def left(self) -> list[list[tuple[str, str]]]:
        return [targets for _, targets in RevocationFile(self.home, "other").left_behind()]

    def test_what_a_living_process_has_is_its_own(self) -> None:
        self.file.save([("token", "t1")])
        self.file.save([("token", "t1"), ("project", "p")])
        self.assertEqual(self.left(), [])
        self.assertEqual([path.name for path in self.home.iterdir()], ["revocations-one.json"])
        self.file.save([])
        self.assertEqual(list(self.home.iterdir()), [])

    def test_what_an_ended_process_has_left(self) -> None:
        if (child := os.fork()) == 0:
            RevocationFile(self.home, "gone").save([("token", "t1"), ("tokens of project", "p")])
            os._exit(0)
        os.waitpid(child, 0)
        self.assertEqual(self.left(), [[("token", "t1"), ("tokens of project", "p")]])

    def test_what_cannot_be_read_stays(self) -> None:
        for number, content in enumerate((b"", b"{", b"[1]", b'[["token"]]', b'[["token", 3]]', b"\xff")):
            (self.home / f"revocations-{number}.json").write_bytes(content)
        self.assertEqual(self.left(), [])
        self.assertEqual(len(list(self.home.iterdir())), 6)

    def test_what_cannot_be_written(self) -> None:
        file = RevocationFile(Path("/proc/nowhere"), "x")
        with self.assertRaises(OSError):
            file.save([("token", "t")])
        file.save([])
