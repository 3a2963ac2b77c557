"""A segment keeps what was written, whole record by whole record, whatever stopped the writing."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.ledger.segment import START, Segment

SIZE = 4096
CONTENTS = st.lists(st.binary(min_size=1, max_size=200), max_size=12)


class SegmentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.made = 0

    def segment(self, size: int = SIZE) -> Segment:
        self.made += 1
        segment = Segment.make(self.path.with_name(f"{self.path.name}-{self.made}"), 1, size)
        self.addCleanup(segment.close)
        return segment

    def found(self, path: Path) -> list[bytes]:
        segment = Segment.find(path, 1)
        self.addCleanup(segment.close)
        return [content for _, content in segment.records(START)]

    @settings(max_examples=60, deadline=None)
    @given(CONTENTS)
    def test_another_finds_what_was_written(self, contents: list[bytes]) -> None:
        """All that was taken, in order, without anybody having closed or flushed anything."""
        segment = self.segment()
        taken = [content for content in contents if segment.append(content)]
        self.assertEqual(self.found(segment.path), taken)

    @settings(max_examples=100, deadline=None)
    @given(CONTENTS.filter(bool), st.data())
    def test_a_record_that_is_not_whole(self, contents: list[bytes], data: st.DataObject) -> None:
        """Where the last record was being written, the ones before it are there, and it is not."""
        segment = self.segment()
        whole = [content for content in contents if segment.append(content)]
        last = segment.end - len(whole[-1]) - 8
        torn = data.draw(st.integers(last, segment.end - 1))
        raw = bytearray(segment.path.read_bytes())
        raw[torn : segment.end] = bytes(segment.end - torn)
        if bytes(raw) == segment.path.read_bytes():
            return  # it ended with zeros anyhow
        segment.path.write_bytes(raw)
        self.assertEqual(self.found(segment.path), whole[:-1])

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300))
    def test_any_file(self, raw: bytes) -> None:
        """What is no segment holds nothing, and breaks nothing."""
        self.made += 1
        path = self.path.with_name(f"{self.path.name}-any-{self.made}")
        path.write_bytes(raw.ljust(START, b"\0"))
        self.assertEqual(self.found(path), [])

    def test_lengths_that_lead_out_of_it(self) -> None:
        """A length beyond the end of the file."""
        segment = self.segment()
        segment.append(b"first")
        raw = bytearray(segment.path.read_bytes())
        raw[segment.end : segment.end + 8] = struct.pack("<II", 0xFFFFFFFF, 0)
        segment.path.write_bytes(raw)
        self.assertEqual(self.found(segment.path), [b"first"])

    def test_full(self) -> None:
        """What does not fit is refused, and what is smaller still fits."""
        segment = self.segment(SIZE)
        self.assertFalse(segment.append(b"x" * (SIZE - START - 7)))
        self.assertTrue(segment.append(b"x" * (SIZE - START - 8)))
        self.assertFalse(segment.append(b"x"))

    def test_all_of_it_is_allocated(self) -> None:
        """Its blocks are there from the start, and nobody else may read it."""
        found = os.stat(self.segment(1024 * 1024).path)
        self.assertGreaterEqual(found.st_blocks * 512, 1024 * 1024)
        self.assertEqual(found.st_mode & 0o777, 0o600)

    def test_no_room_on_the_disk(self) -> None:
        """That is known before anything is written, and no file stays."""
        self.assertRaises(OSError, self.segment, 2**56)
        self.assertFalse(self.path.with_name(f"{self.path.name}-1").exists())
