from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.proxy.fast_path.head_shape import HeadText, head_shape
from llmproxy.wire import parser

LINES = [
    b"POST /v1/chat/completions HTTP/1.1",
    b"Host: a",
    b"Authorization: Bearer x",
    b"Content-Length: 12",
    b"traceparent: 00-ab-cd-01",
    b"X-Request-ID: abc",
]
VALUES = st.one_of(
    st.from_regex(r"[ -~]{0,20}", fullmatch=True).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from(
        [b" 5", b"5", b" 05", b" +5", b" 5, 5", b" 5\r\nX: y", b" a\x7f", b" a\tb", b" \xe9", b"", b"  5 "]
    ),
)


def limits() -> parser.MessageLimits:
    return parser.MessageLimits()


def matched(text: HeadText, data: bytes) -> tuple[list[bytes], int, int] | None:
    """As whoever knows several heads looks for one of them."""
    return text.match(data) if data.startswith(text.start) else None


class Requests(TestCase):
    def test_holes(self) -> None:
        """Each field that differs each time is one; what stays is the head's key."""
        shape = head_shape(LINES)
        assert shape is not None
        self.assertEqual([LINES[index] for index, _ in shape.holes], LINES[3:])
        self.assertEqual(shape.fill(LINES), LINES[3:])
        left = [*LINES[:3], b"Content-Length: ", b"traceparent: ", b"X-Request-ID: "]
        self.assertEqual(shape.key(LINES), b"\r\n".join([*left, b"", b""]))
        self.assertEqual(shape.body_length(LINES[3:]), 12)

    def test_no_shape(self) -> None:
        """Without a length, and with a field twice, a head is not one of many."""
        self.assertIsNone(head_shape(LINES[:3]))
        self.assertIsNone(head_shape([*LINES, b"Content-length: 12"]))
        self.assertIsNone(head_shape([*LINES, b"TraceParent: 12"]))

    def test_other_shapes(self) -> None:
        """Another number or order of lines, another spelling."""
        shape = head_shape(LINES)
        assert shape is not None
        for other in (LINES[:-1], [*LINES, b"X: y"], [*LINES[:3], *LINES[:2:-1]], [*LINES[:5], b"x-request-id: abc"]):
            self.assertIsNone(shape.fill(list(other)))

    @given(st.integers(0, 2), VALUES)
    def test_what_is_taken_is_what_the_parser_takes(self, hole: int, value: bytes) -> None:
        """No value gets in through a hole that the parser would have refused or read otherwise."""
        shape = head_shape(LINES)
        assert shape is not None
        lines = list(LINES)
        index, name = shape.holes[hole]
        lines[index] = name + b":" + value
        head = b"\r\n".join(lines)
        taken = head.split(b"\r\n")
        filled = shape.fill(taken)
        if filled is None or shape.body_length(filled) < 0:
            return
        read = parser.request_head(head, limits())
        self.assertEqual(read.length, shape.body_length(filled))
        self.assertEqual(list(read.lines), lines[1:])
        if value.startswith(b" "):
            self.assertEqual(shape.key(taken), shape.key(LINES))

    def test_text(self) -> None:
        """What was received is cut at the holes, wherever these are."""
        for lines in (LINES, [*LINES[:3], *LINES[:2:-1], b"X: y"], LINES[:4], [LINES[0], LINES[3]]):
            shape = head_shape(lines)
            assert shape is not None
            text = HeadText(lines, shape)
            said = {b"Content-Length": b"7", b"traceparent": b"00", b"X-Request-ID": b"a b"}
            values = [said[name] for _, name in shape.holes]
            other = [*lines]
            for (index, name), value in zip(shape.holes, values, strict=True):
                other[index] = name + b": " + value
            head = b"\r\n".join([*other, b"", b""])
            self.assertEqual(matched(text, head + b"a body"), (values, 7, len(head)))
            self.assertEqual(text.lines(values), [other[index] for index, _ in shape.holes])
            for end in range(len(head)):
                self.assertIsNone(matched(text, head[:end]), head[:end])

    def test_all_of_a_request(self) -> None:
        """As its client has sent it, with whatever stands in its holes."""
        for lines in (LINES[:4], [LINES[0], LINES[3], LINES[1]], LINES, [*LINES[:3], *LINES[:2:-1], b"X: y"]):
            shape = head_shape(lines)
            assert shape is not None
            text, holes = HeadText(lines, shape), [lines[index] for index, _ in shape.holes]
            sent = b"\r\n".join([*lines, b"", b"twelve bytes"])
            self.assertEqual(text.with_body(holes, b"twelve bytes"), sent)
            if len(holes) == 1:
                self.assertEqual(text.with_body(None, b"twelve bytes"), sent)
            other = [hole + b"0" for hole in holes]
            for hole, line in zip(holes, other, strict=True):
                sent = sent.replace(hole, line, 1)
            self.assertEqual(text.with_body(other, b"twelve bytes"), sent)

    def test_a_request_that_is_spelled_in_another_way(self) -> None:
        """It has another key: bytes are put together as their client has sent them."""
        shape = head_shape(LINES)
        assert shape is not None
        other = [LINES[0], *[line.replace(b": ", b":") for line in LINES[1:]]]
        self.assertEqual(shape.fill(other), other[3:])
        self.assertNotEqual(shape.key(other), shape.key(LINES))

    def test_a_layout_finds_what_has_it(self) -> None:
        """The key is that of the whole head, whatever stands in its holes and behind it."""
        for lines in (LINES, [*LINES[:3], *LINES[:2:-1], b"X: y"], LINES[:4], [LINES[0], LINES[3]]):
            shape = head_shape(lines)
            assert shape is not None
            layout = HeadText(lines, shape).layout
            other = [line.replace(b"a", b"c") for line in lines]
            for index, _ in shape.holes:
                other[index] = other[index] + b"012345"
            head = b"\r\n".join([*other, b"", b""])
            for end in (len(head), len(head) + 3):
                self.assertEqual(layout.key_in((head + b"a body")[:end]), shape.key(other))
            for end in range(len(head)):
                self.assertNotEqual(layout.key_in(head[:end]), shape.key(other))

    @given(st.integers(0, 2), VALUES, st.sampled_from([b": ", b":", b":  ", b":\t"]), st.booleans())
    def test_text_that_is_taken_is_what_the_parser_takes(
        self, hole: int, value: bytes, colon: bytes, alone: bool
    ) -> None:
        """Nor does one get in where the head is not taken apart, whether the length is its only hole or not."""
        lines = LINES[:4] if alone else list(LINES)
        shape, hole = head_shape(lines), 0 if alone else hole
        assert shape is not None
        text = HeadText(lines, shape)
        index, name = shape.holes[hole]
        lines[index] = name + colon + value
        head = b"\r\n".join(lines)
        found = matched(text, head + b"\r\n\r\nbody")
        if found is None:
            return
        values, length, body = found
        read = parser.request_head(head, limits())
        self.assertEqual((body, read.length), (len(head) + 4, length))
        self.assertEqual(text.lines(values), [lines[at] for at, _ in shape.holes])
