"""Heads are found in what was received by where their first hole is."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.proxy.fast_path.head_layouts import MAX_LAYOUTS, MAX_LAYOUTS_OF_PLACE, MAX_NAMES, HeadLayouts
from llmproxy.proxy.fast_path.head_shape import HOLES, HeadText, head_shape


class Layouts(TestCase):
    def setUp(self) -> None:
        self.layouts = HeadLayouts()
        self.heads: dict[bytes, int] = {}

    def add(self, *fields: bytes, holes: frozenset[bytes] = HOLES) -> bytes:
        """A head with these fields; it is found from now on, by its number. What a client sends that has it."""
        lines = [b"POST / HTTP/1.1", *fields]
        shape = head_shape(lines, holes)
        assert shape is not None
        self.heads[shape.key(lines)] = len(self.heads)
        self.layouts.add(HeadText(lines, shape).layout)
        return b"\r\n".join([*lines, b"", b"a body"])

    def found(self, data: bytes) -> int | None:
        return self.layouts.find(data, self.heads)

    def test_many(self) -> None:
        """Each is found, whatever its client calls the first field with a hole, and wherever that stands."""
        names = (b"Content-Length: 6", b"content-length: 6", b"content-length:6")
        sent = [self.add(b"N: %b" % (b"v" * number), names[number % 3]) for number in range(300)]
        sent += [self.add(b"traceparent: 1", b"N: %b" % (b"v" * number), names[number % 3]) for number in range(6)]
        self.assertEqual([self.found(data) for data in sent], [*range(306)])
        self.assertEqual(self.found(sent[0].replace(b": 6", b": 66")), 0)
        self.assertIsNone(self.found(sent[0].replace(b"Content-Length", b"Content-Lengths")))
        self.assertIsNone(self.found(b"POST / HTTP/1.1\r\nContent-Length: 6"))
        self.layouts.clear()
        self.assertIsNone(self.found(sent[0]))

    def test_a_name_in_other_fields(self) -> None:
        """Only a line that begins with it counts."""
        sent = self.add(b"X-Content-Length: 6", b"N: Content-Length: 6", b"Content-Length: 6")
        self.assertEqual(self.found(sent), 0)

    def test_too_many(self) -> None:
        """The oldest goes, of all and of those whose first hole is in one place."""
        sent = [self.add(b"N: %b" % (b"v" * number), b"Content-Length: 6") for number in range(MAX_LAYOUTS + 1)]
        self.assertEqual([self.found(data) for data in sent[:2]], [None, 1])
        first = len(self.heads)
        sent = [
            self.add(b"Content-Length: 6", b"N: %b" % (b"v" * number)) for number in range(MAX_LAYOUTS_OF_PLACE + 1)
        ]
        self.assertEqual([self.found(data) for data in sent[:2]], [None, first + 1])
        self.assertEqual(len(self.layouts._all), MAX_LAYOUTS)
        held = [each for places in self.layouts._places.values() for alike in places.values() for each in alike]
        self.assertEqual(sorted(held), sorted(self.layouts._all))

    def test_names_that_are_made_up(self) -> None:
        """There is no look for each of them."""
        for number in range(100):
            name = b"Hole-%d" % number
            sent = self.add(name + b": 1", b"Content-Length: 6", holes=HOLES | {name.lower()})
            self.assertEqual(self.found(sent), number)
            self.assertLessEqual(len(self.layouts._places), MAX_NAMES)
