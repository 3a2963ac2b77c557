"""However the bytes are cut on their way, the same arrive."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.proxy_case import STREAM, ProxyTestCase, chunk, request
from tests.support.responses import parse_response

BODIES = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5)
CUTS = st.lists(st.integers(0, 600), max_size=8)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place for place in at if place < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


class Splits(ProxyTestCase):
    @examples(60)
    @given(BODIES, CUTS, BODIES, CUTS)
    def test_any(self, upload: list[bytes], cuts: list[int], answer: list[bytes], answer_cuts: list[int]) -> None:
        """Request and answer, both in chunks."""
        self.restart()
        self.provider.peers.clear()
        client = self.client()
        head = request("Transfer-Encoding: chunked", body=None)
        for piece in cut(head + b"".join(map(chunk, upload)) + b"0\r\n\r\n", cuts):
            client.send(piece)
        provider = self.provider.last
        first, _, rest = provider.take().partition(b"\r\n")
        self.assertEqual(first, b"POST /v1/chat/completions HTTP/1.1")
        sent = parse_response(b"HTTP/1.1 200 OK\r\n" + rest)
        self.assertEqual((sent.body, sent.complete, sent.rest), (b"".join(upload), True, b""))
        for piece in cut(STREAM + b"".join(map(chunk, answer)) + b"0\r\n\r\n", answer_cuts):
            provider.send(piece)
        got = parse_response(client.take())
        self.assertEqual((got.body, got.complete, got.rest), (b"".join(answer), True, b""))
        self.assert_recorded("complete", 200)
        self.assertEqual((self.record().bytes_in, self.record().bytes_out), (len(sent.body), len(got.body)))
