"""A journal belongs to one process, and to another once that is no more."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.ledger.journal import (
    FIRST_OFFSET,
    MAX_DAMAGED_BYTES,
    MAX_DAMAGED_FILES,
    Journal,
    JournalSize,
    names,
    open_orphan,
    trim_damaged_files,
)
from tests.unit.ledger.books import die


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.journal = Journal(self.directory / "run", JournalSize(1024, 8 * 1024))
        self.journal.open()
        self.addCleanup(self.journal.close)

    def written(self, many: int) -> list[bytes]:
        contents = [b"%d" % n * 20 for n in range(many)]
        for content in contents:
            self.assertTrue(self.journal.append(content))
            self.journal.prepare()
        return contents

    def test_over_several_segments(self) -> None:
        """Records follow one another over all of them; places only grow."""
        contents = self.written(60)
        found = list(self.journal.records(FIRST_OFFSET))
        self.assertEqual([content for _, content in found], contents)
        places = [place for place, _ in found]
        self.assertEqual(places, sorted(set(places)))
        self.assertEqual(places[-1], self.journal.offset)
        self.assertEqual([content for _, content in self.journal.records(places[29])], contents[30:])

    def test_written_together(self) -> None:
        """By one call of the system where the segment has room for all of them; else none is written."""
        contents = self.written(2)
        more = [b"%d" % n * 20 for n in range(5)]
        with patch("llmproxy.ledger.segment.os.pwrite", side_effect=os.pwrite) as write:
            place = self.journal.append_all(more)
        self.assertEqual((place, write.call_count), (self.journal.offset, 1))
        self.assertEqual(self.journal.append_all([b"x" * 200] * 5), 0)
        self.assertEqual(self.journal.offset, place)
        contents += [*more, *self.written(2)]
        found = list(self.journal.records(FIRST_OFFSET))
        self.assertEqual([content for _, content in found], contents)
        self.assertEqual(found[-1][0], self.journal.offset)
        self.assertEqual([at for at, _ in found[len(more) + 1 : -2]], [place])

    def test_not_written(self) -> None:
        """A disk that takes nothing: none of them is there, and the next goes where they would have been."""
        contents = self.written(2)
        before, failing = self.journal.offset, OSError(errno.EIO, "Input/output error")
        with patch("llmproxy.ledger.segment.os.pwrite", side_effect=failing):
            self.assertEqual(self.journal.append_all([b"a", b"b"]), 0)
        with patch("llmproxy.ledger.segment.os.pwrite", return_value=3):
            self.assertEqual(self.journal.append_all([b"a", b"b"]), 0)
        self.assertEqual(self.journal.offset, before)
        contents += self.written(2)
        self.assertEqual([content for _, content in self.journal.records(FIRST_OFFSET)], contents)

    def test_nobody_else_has_it(self) -> None:
        """Not while its process lives; then exactly one."""
        contents = self.written(3)
        self.assertIsNone(open_orphan(self.directory, "run"))
        die(self.journal)
        first = open_orphan(self.directory, "run")
        assert first is not None
        self.assertIsNone(open_orphan(self.directory, "run"))
        self.assertEqual([content for _, content in first.records()], contents)
        first.close()
        second = open_orphan(self.directory, "run")
        assert second is not None
        second.remove()
        self.assertEqual((names(self.directory), open_orphan(self.directory, "run")), ([], None))

    def test_old_segments(self) -> None:
        """What lies before a place can go; what is written now never does."""
        self.written(60)
        old = self.journal.segments_before(self.journal.offset)
        self.assertEqual(len(list(self.journal.path.glob("*.segment"))), len(old) + 2)
        for segment in old:
            self.journal.release(segment)
        self.assertEqual(len(list(self.journal.path.glob("*.segment"))), 2)
        self.assertEqual(self.journal.size, 2048)

    def test_as_large_as_may_be(self) -> None:
        """Then nothing more is taken, and nothing on the disk grows."""
        while self.journal.append(b"x" * 100):
            self.journal.prepare()
        self.assertTrue(self.journal.is_full)
        self.assertLessEqual(sum(f.stat().st_size for f in self.journal.path.glob("*.segment")), 8 * 1024)

    def test_private(self) -> None:
        """Nobody else may look into it."""
        self.assertEqual(self.journal.path.stat().st_mode & 0o777, 0o700)

    def test_names(self) -> None:
        """Directories alone; none where there is nothing yet."""
        (self.directory / "file").write_text("")
        self.assertEqual((names(self.directory), names(self.directory / "nowhere")), (["run"], []))

    def test_without_its_lock(self) -> None:
        """One that has lost its lock file is found all the same, but not while its process lives."""
        contents = self.written(60)
        (self.journal.path / "lock").unlink()
        self.assertIsNone(open_orphan(self.directory, "run"))
        die(self.journal)
        (self.journal.path / "lock").unlink()
        found = open_orphan(self.directory, "run")
        assert found is not None
        self.assertEqual([content for _, content in found.records()], contents)
        found.remove()
        self.assertEqual(names(self.directory), [])

    def test_one_that_is_just_being_made(self) -> None:
        """Has neither: it is left alone."""
        (self.directory / "new").mkdir()
        self.assertIsNone(open_orphan(self.directory, "new"))

    def test_damaged(self) -> None:
        """What cannot be read is passed over, told once, and kept when the rest goes."""
        contents = self.written(60)
        first = self.journal.path / "00000001.segment"
        raw = bytearray(first.read_bytes())
        raw[100] ^= 1
        first.write_bytes(raw)
        die(self.journal)
        found = open_orphan(self.directory, "run")
        assert found is not None
        read = [content for _, content in found.records()]
        self.assertEqual(len(read), 59)
        self.assertEqual([each for each in contents if each in read], read)
        kept = self.directory / "run-00000001.damaged"
        self.assertEqual((found.new_damage(), found.new_damage()), ({kept: 1}, {}))
        found.remove()
        self.assertEqual((trim_damaged_files(self.directory), kept.read_bytes()), ((1, []), bytes(raw)))
        self.assertEqual(names(self.directory), [])

    def test_too_many_damaged(self) -> None:
        """The oldest go; what lies beside them stays."""
        files = [self.directory / f"{number}-00000001.damaged" for number in range(MAX_DAMAGED_FILES + 3)]
        for number, path in enumerate(files):
            path.write_bytes(b"x")
            os.utime(path, (number, number))
        (self.directory / "other").write_bytes(b"x")
        kept, removed = trim_damaged_files(self.directory)
        self.assertEqual((kept, sorted(removed)), (MAX_DAMAGED_FILES, sorted(files[:3])))
        self.assertEqual(sorted(self.directory.glob("*.damaged")), sorted(files[3:]))
        self.assertTrue((self.directory / "other").exists())

    def test_too_large_damaged(self) -> None:
        """They take so much of the disk together, and the newest is kept in any case."""
        files = [self.directory / f"{number}-00000001.damaged" for number in range(3)]
        for number, path in enumerate(files):
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, MAX_DAMAGED_BYTES // 2 + (4096 if number else 0))
            os.utime(path, (number, number))
        kept, removed = trim_damaged_files(self.directory)
        self.assertEqual((kept, sorted(removed)), (1, files[:2]))

    def test_broken_files(self) -> None:
        """A file that was truncated, removed or replaced is noticed, and another goes on."""
        (segment,) = self.journal.segments
        self.assertEqual(self.journal.broken_segments(), [])
        for number, breaks in enumerate(
            (
                lambda path: os.truncate(path, 50),
                lambda path: path.unlink(),
                lambda path: os.replace(path.with_name("other"), path),
            )
        ):
            (segment.path.with_name("other")).write_bytes(bytes(1024))
            segment = self.journal.segments[-1]
            self.journal.append(b"before")
            breaks(segment.path)
            self.assertEqual(self.journal.broken_segments(), [segment], number)
            self.assertTrue(self.journal.append(b"meanwhile"))
            self.journal.replace_spare()
            self.assertTrue(self.journal.rotate())
            self.assertTrue(self.journal.append(b"after"))
            self.journal.release(segment)
            self.assertEqual(self.journal.broken_segments(), [])
        self.assertEqual([content for _, content in self.journal.records(FIRST_OFFSET)], [b"after"])
