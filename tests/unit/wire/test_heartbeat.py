"""Where a comment may stand in a stream of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.wire.heartbeat import COMMENT, Heartbeat

PIECES = st.lists(st.sampled_from([b"data: x", b"data:", b":", b"\n", b"\r\n", b"\r", b"id: 1"]), max_size=12)


def events(data: bytes) -> list[list[bytes]]:
    """The fields of each event (HTML Standard, section 9.2.6), without comments."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found: list[list[bytes]] = [[]]
    for line in lines:
        if not line:
            found.append([])
        elif not line.startswith(b":"):
            found[-1].append(line)
    return [each for each in found if each]


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.out = b""
        self.open = True
        self.heartbeat = Heartbeat(self.clock, 10, self.write)
        self.heartbeat.start()
        self.addCleanup(self.heartbeat.stop)

    def write(self, comment: bytes) -> bool:
        if self.open:
            self.out += comment
        return self.open

    def pass_on(self, data: bytes) -> None:
        self.out += data
        self.heartbeat.observe(data)

    @given(PIECES)
    def test_events_are_what_they_were(self, pieces: list[bytes]) -> None:
        """However the stream is cut, and wherever it is silent, the same events come out."""
        self.setUp()
        for piece in pieces:
            self.pass_on(piece)
            self.clock.advance(10)
        self.assertEqual(events(self.out), events(b"".join(pieces)))

    def test_when(self) -> None:
        """After so much silence, and again after as much; any byte begins it anew."""
        for seconds, expected in ((9, 0), (1, 1), (9, 1), (1, 2)):
            self.clock.advance(seconds)
            self.assertEqual(self.out.count(COMMENT), expected)
        self.clock.advance(5)
        self.pass_on(b"data: 1\n\n")
        for seconds, expected in ((5, 2), (4, 2), (1, 3)):
            self.clock.advance(seconds)
            self.assertEqual(self.out.count(COMMENT), expected)

    def test_within_an_event(self) -> None:
        """Nothing, however long it takes."""
        for piece in (b"data: 1\n", b"data: 2\r", b"\n", b"data"):
            self.pass_on(piece)
            self.clock.advance(10)
            self.clock.advance(10)
        self.assertNotIn(COMMENT, self.out)

    def test_at_the_end_of_any_event(self) -> None:
        """Whatever its lines end in, also where that came in pieces."""
        for pieces in ((b"a\n\n",), (b"a\r\n\r\n",), (b"a\r\r",), (b"a\n", b"\n"), (b"a\r", b"\n\r", b"\n")):
            self.setUp()
            for piece in pieces:
                self.pass_on(piece)
            self.clock.advance(10)
            self.assertTrue(self.out.endswith(COMMENT), pieces)

    def test_where_it_cannot_be_written(self) -> None:
        """It is not: and later it is."""
        self.open = False
        self.clock.advance(10)
        self.open = True
        self.clock.advance(10)
        self.assertEqual(self.out, COMMENT)

    def test_stop(self) -> None:
        self.heartbeat.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
