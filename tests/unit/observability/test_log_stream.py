"""Standard output whose reader stops."""

from __future__ import annotations

import os
import sys
import threading
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from llmproxy.observability.log_stream import QueuedStream, patient


class PatientTests(unittest.TestCase):
    def test_a_file(self) -> None:
        """Is written directly: nothing of it is in a queue when the process dies."""
        with TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as file:
            self.assertIs(patient(file), file)

    def test_a_pipe(self) -> None:
        """Gets a thread of its own; what its reader is sent comes in order, and is all there after the end."""
        read, write = os.pipe()
        with os.fdopen(read) as reader, os.fdopen(write, "w") as writer:
            stream = patient(writer)
            self.assertIsInstance(stream, QueuedStream)
            for number in range(100):
                stream.write(f"{number}\n")
                stream.flush()
            assert isinstance(stream, QueuedStream)
            stream.drain()
            stream.write("last\n")  # at once from now on
            stream.flush()
            self.assertEqual([reader.readline() for _ in range(101)], [*(f"{n}\n" for n in range(100)), "last\n"])

    def test_a_process_that_is_forked_while_it_writes(self) -> None:
        """As twistd forks to go into the background: what the thread held stays behind, and the child writes."""
        read, write = os.pipe()
        with os.fdopen(read) as reader, os.fdopen(write, "w") as writer:
            stream = QueuedStream(writer)
            stream.write("parent\n")
            self.assertEqual(reader.readline(), "parent\n")
            held, done = threading.Event(), threading.Event()

            def hold() -> None:
                with stream._changed:  # as its own thread does at some moments
                    held.set()
                    done.wait(10)

            holding = threading.Thread(target=hold)
            holding.start()
            held.wait(10)
            child = os.fork()
            if not child:
                stream.write("child\n")
                stream.drain()
                os._exit(0)
            done.set()
            holding.join(10)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            stream.write("parent again\n")
            self.assertEqual([reader.readline() for _ in range(2)], ["child\n", "parent again\n"])

    def test_a_process_that_is_forked_in_the_middle_of_a_line(self) -> None:
        """The stream has a lock of its own, which the child would wait for without end: the line is finished before."""
        read, write = os.pipe()
        with os.fdopen(read) as reader, os.fdopen(write, "w") as writer:
            stream = QueuedStream(writer)
            long = "x" * 1_000_000 + "\n"  # more than a pipe holds
            stream.write(long)
            start = reader.read(1)  # it is being written now
            lines: list[str] = []
            reading = threading.Thread(target=lambda: lines.extend(reader.readline() for _ in range(3)))
            threading.Timer(0.1, reading.start).start()
            child = os.fork()
            if not child:
                stream.write("child\n")
                stream.drain()
                os._exit(0)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            stream.write("parent\n")
            reading.join(10)
            self.assertEqual([start + lines[0], *lines[1:]], [long, "child\n", "parent\n"])

    def test_a_full_pipe(self) -> None:
        """Nobody waits; beyond the bound its writer is told so, until there is room again."""
        read, write = os.pipe()
        with os.fdopen(read) as reader, os.fdopen(write, "w") as writer:
            stream = QueuedStream(writer, limit=200_000)
            written = 0
            with self.assertRaises(BlockingIOError):
                for _ in range(100):
                    stream.write("x" * 9_999 + "\n")
                    written += 1
            self.assertGreaterEqual(written, 20)
            stream.drain(0.05)  # given up: nothing has left
            taking = threading.Thread(target=lambda: [reader.readline() for _ in range(written)])
            taking.start()
            stream.drain(10)
            taking.join(10)
            stream.write("on\n")
            stream.flush()
            self.assertEqual(reader.readline(), "on\n")

    def test_a_reader_that_is_gone(self) -> None:
        """The next to flush is told."""
        read, write = os.pipe()
        os.close(read)
        writer = os.fdopen(write, "w")
        stream = QueuedStream(writer)
        stream.write("nobody\n")
        stream.drain()
        with self.assertRaises(BrokenPipeError):
            stream.flush()
        sys.stdout.flush()
        with self.assertRaises(BrokenPipeError):
            writer.close()  # it still holds the line
