from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.proxy.fast_path.flow import holes_in
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
