from __future__ import annotations

from typing import cast
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.proxy.fast_path.flow import Flow, FlowTable, KnownHead, holes_in
from llmproxy.proxy.fast_path.head_shape import head_shape
from llmproxy.proxy.fast_path.outgoing_head import OutgoingHead

LINES = [b"POST / HTTP/1.1", *(b"Field-%d: v" % number for number in range(6))]


class Outgoing(TestCase):
    @given(st.lists(st.integers(1, 6), unique=True), st.integers(0, 10**6))
    def test_rendered(self, holes: list[int], length: int) -> None:
        """As its lines, one by one, with the client's in their places."""
        client = [LINES[0], *LINES[1:], b"X: of the client alone"]
        filled = holes_in(LINES, client, tuple((index, b"Field-%d" % (index - 1)) for index in [*holes, 7]))
        assert filled is not None
        head = OutgoingHead(LINES, filled)
        said = [b"said-%d" % index for index in holes]
        expected = [*LINES, b"Content-Length: %d" % length, b"", b""]
        for index, line in zip(holes, said, strict=True):
            expected[index] = line
        whole = b"\r\n".join(expected)
        self.assertEqual(head.render([*said, b"X: other"], length), whole)
        self.assertEqual(head.start, b"" if holes else whole[: -len(b"%d\r\n\r\n" % length)])


class Tables(TestCase):
    """Which heads have a flow."""

    def setUp(self) -> None:
        self.table = FlowTable()
        self.lines = [*LINES, b"Content-Length: 2"]
        shape = head_shape(self.lines)
        assert shape is not None
        self.shape = shape

    def put(self) -> KnownHead:
        self.table.put(self.shape, self.lines, [b"name"] * 7, cast(Flow, None))
        found = self.table.find(b"\r\n".join(self.lines))
        assert found is not None
        known: KnownHead = found.known.known
        return known

    def is_due(self) -> bool:
        return self.table.is_due(self.shape, self.lines)

    def test_one_that_comes_again(self) -> None:
        self.assertEqual([self.is_due(), self.is_due()], [False, True])
        self.put()
        self.assertFalse(self.is_due())

    def test_one_that_is_dropped(self) -> None:
        """It has come before, so that the next request with it makes another flow."""
        known = self.put()
        self.table.drop(known)
        self.assertEqual((known.current, len(self.table), self.is_due()), (False, 0, True))

    def test_one_that_is_dropped_late(self) -> None:
        """Whoever still had it does not end what has taken its place."""
        known = self.put()
        self.table.drop(known)
        other = self.put()
        self.table.drop(known)
        self.assertEqual((other.current, len(self.table)), (True, 1))

    def test_all(self) -> None:
        known = self.put()
        self.table.clear()
        self.assertEqual((known.current, len(self.table), self.is_due()), (False, 0, False))
