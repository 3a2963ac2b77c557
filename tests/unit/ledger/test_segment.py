"""A segment keeps what was written, whole record by whole record, whatever stopped the writing."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.ledger.segment import FIRST_RECORD_OFFSET, OLDER_MAGIC, Segment
from tests.support.examples import examples

SIZE = 4096
CONTENTS = st.lists(st.binary(min_size=1, max_size=200), max_size=12)


class SegmentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.made = 0
        self.last: Segment | None = None
        self.damaged: dict[int, int] = {}

    def segment(self, size: int = SIZE) -> Segment:
        self.made += 1
        segment = Segment.make(self.path.with_name(f"{self.path.name}-{self.made}"), 1, size)
        self.addCleanup(segment.close)
        self.last = segment
        return segment

    def found(self, path: Path) -> list[bytes]:
        """What another process finds there, once nobody has it any more."""
        if self.last is not None:
            self.last.close()
        segment = Segment.find(path, 1)
        self.addCleanup(segment.close)
        read = [content for _, content in segment.records(FIRST_RECORD_OFFSET)]
        self.damaged = dict(segment.damaged)
        return read

    @examples(60)
    @given(CONTENTS)
    def test_another_finds_what_was_written(self, contents: list[bytes]) -> None:
        """All that was taken, in order, without anybody having closed or flushed anything."""
        segment = self.segment()
        taken = [content for content in contents if segment.append(content)]
        self.assertEqual(self.found(segment.path), taken)

    @examples(100)
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

    @examples(100)
    @given(st.binary(max_size=300))
    def test_any_file(self, raw: bytes) -> None:
        """What is no segment holds nothing, and breaks nothing."""
        self.made += 1
        path = self.path.with_name(f"{self.path.name}-any-{self.made}")
        path.write_bytes(raw.ljust(FIRST_RECORD_OFFSET, b"\0"))
        self.assertEqual(self.found(path), [])

    @examples(150)
    @given(CONTENTS.filter(bool), st.data())
    def test_any_byte_is_wrong(self, contents: list[bytes], data: st.DataObject) -> None:
        """At most the record that has it is lost, and the place is known."""
        segment = self.segment()
        whole = [b"%d " % number + content.hex().encode() for number, content in enumerate(contents)]
        whole = [content for content in whole if segment.append(content)]
        place = data.draw(st.integers(0, segment.end - 1))
        raw = bytearray(segment.path.read_bytes())
        raw[place] ^= data.draw(st.integers(1, 255))
        segment.path.write_bytes(raw)
        read = self.found(segment.path)
        if place < FIRST_RECORD_OFFSET:
            self.assertEqual((read, self.damaged), (whole, {0: FIRST_RECORD_OFFSET}))
        else:
            self.assertEqual(len(read), len(whole) - 1)
            self.assertEqual([content for content in whole if content in read], read)
            ((start, end),) = self.damaged.items()
            self.assertTrue(start <= place < end)

    def test_of_an_earlier_version(self) -> None:
        """Its first bytes are others, and that is no damage."""
        segment = self.segment()
        segment.append(b"R[1]")
        with segment.path.open("r+b") as file:
            file.write(OLDER_MAGIC)
        self.assertEqual((self.found(segment.path), self.damaged), ([b"R[1]"], {}))

    @examples(150)
    @given(st.lists(st.binary(min_size=1, max_size=100).map(lambda raw: b"s\0\0\0" + raw), min_size=2), st.data())
    def test_any_byte_is_wrong_among_zeros(self, contents: list[bytes], data: st.DataObject) -> None:
        """Short records have zeros, as heads of records do: still no more than the one that is hit is lost."""
        segment = self.segment()
        whole = [content for content in contents if segment.append(content)]
        place = data.draw(st.integers(FIRST_RECORD_OFFSET, segment.end - 1))
        raw = bytearray(segment.path.read_bytes())
        raw[place] ^= data.draw(st.integers(1, 255))
        segment.path.write_bytes(raw)
        read = self.found(segment.path)
        self.assertEqual(len(read), len(whole) - 1)
        self.assertEqual(len(self.damaged), 1)

    def test_a_hole(self) -> None:
        """Blocks that were lost, and what was written behind them."""
        segment = self.segment(1 << 20)
        for number in range(4000):
            segment.append(b"R[%d]" % number)
        with segment.path.open("r+b") as file:
            file.seek(1000)
            file.write(bytes(40_000))
        read = self.found(segment.path)
        self.assertEqual((read[0], read[-1]), (b"R[0]", b"R[3999]"))
        self.assertTrue(900 < len(read) < 3900)
        self.assertEqual(len(self.damaged), 1)

    def test_truncated_while_it_is_written(self) -> None:
        """Nothing ends; what is written from then on is there, and that something is missing is known."""
        segment = self.segment()
        segment.append(b"R[1]")
        segment.append(b"R[2]")
        os.truncate(segment.path, FIRST_RECORD_OFFSET + 12)
        self.assertFalse(segment.is_whole)
        self.assertTrue(segment.append(b"R[3]"))
        self.assertEqual([content for _, content in segment.records(FIRST_RECORD_OFFSET)], [b"R[1]", b"R[3]"])
        self.assertEqual(len(segment.damaged), 1)

    def test_a_full_disk_behind_a_truncation(self) -> None:
        """A record that cannot be written is refused."""
        segment = self.segment()
        os.close(segment._descriptor)
        segment._descriptor = os.open("/dev/full", os.O_WRONLY)
        self.assertFalse(segment.append(b"R[1]"))

    def test_nobody_takes_it_while_it_is_open(self) -> None:
        segment = self.segment()
        self.assertRaises(BlockingIOError, Segment.find, segment.path, 1)

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
        self.assertFalse(segment.append(b"x" * (SIZE - FIRST_RECORD_OFFSET - 7)))
        self.assertTrue(segment.append(b"x" * (SIZE - FIRST_RECORD_OFFSET - 8)))
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
