"""Lines that were appended are there, whole, whatever happens to the file meanwhile."""

from __future__ import annotations

import os
import stat
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from llmproxy.observability.append_file import AppendedFile


class AppendedFileTests(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "made" / "here" / "lines.jsonl"
        self.file = AppendedFile(str(self.path))
        self.addCleanup(self.file.close)

    def test_modes(self) -> None:
        """Only its owner may read what it makes; what was there is appended to and keeps its mode."""
        self.file.append(b"1\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.path.parent.stat().st_mode), 0o700)
        self.file.close()
        self.path.chmod(0o640)
        self.file.append(b"2\n", sync=True)
        self.assertEqual(self.path.read_bytes(), b"1\n2\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_rotated(self) -> None:
        """After the file was moved away, or removed, a new one is begun."""
        self.file.append(b"1\n")
        self.path.rename(self.path.with_suffix(".1"))
        self.file.append(b"2\n")
        self.assertEqual(self.path.read_bytes(), b"2\n")
        self.path.unlink()
        self.file.append(b"3\n")
        self.assertEqual(self.path.read_bytes(), b"3\n")
        self.assertEqual(self.path.with_suffix(".1").read_bytes(), b"1\n")

    def test_replaced(self) -> None:
        """After another file has taken its place, that one is appended to."""
        self.file.append(b"1\n")
        self.path.rename(self.path.with_suffix(".1"))
        self.path.write_bytes(b"other\n")
        self.file.append(b"2\n")
        self.assertEqual(self.path.read_bytes(), b"other\n2\n")

    def test_truncated(self) -> None:
        """A file that was emptied in place is filled from its beginning."""
        self.file.append(b"1\n")
        os.truncate(self.path, 0)
        self.file.append(b"2\n")
        self.assertEqual(self.path.read_bytes(), b"2\n")

    def test_crash(self) -> None:
        """Half a line, left by a crash, does not spoil the next one."""
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(b'{"a":1}\n{"b"')
        self.file.append(b'{"c":3}\n')
        self.file.append(b'{"d":4}\n')
        self.assertEqual(self.path.read_bytes(), b'{"a":1}\n{"b"\n{"c":3}\n{"d":4}\n')
        self.assertEqual(self.file.half_lines, 1)

    def test_not_writable(self) -> None:
        """A place that cannot be written to is an error each time, until it can."""
        self.path.mkdir(parents=True)
        for _ in range(2):
            with self.assertRaises(OSError):
                self.file.append(b"1\n")
        self.path.rmdir()
        self.file.append(b"1\n")
        self.assertEqual(self.path.read_bytes(), b"1\n")

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_full(self) -> None:
        """A full disk is an error."""
        with self.assertRaises(OSError):
            AppendedFile("/dev/full").append(b"1\n")

    def test_pipe(self) -> None:
        """A pipe can be written to as well, though it cannot be synced."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        pipe = AppendedFile(f"/dev/fd/{write}")
        self.addCleanup(pipe.close)
        pipe.append(b"1\n", sync=True)
        self.assertEqual(os.read(read, 10), b"1\n")
