from __future__ import annotations

from unittest import TestCase

from llmproxy.instruments import Counter, Gauge


class InstrumentTests(TestCase):
    def test_labelled(self) -> None:
        """What had one figure has it for one value of its label from then on; it is read anew each time."""
        figures = [1.0]
        lines = Counter("half_lines", "Half lines.", lambda: figures[0], "file").labelled("audit")
        figures[0] = 2.0
        self.assertIsInstance(lines, Counter)
        self.assertEqual((lines.name, lines.label, lines.read()), ("half_lines", "file", {"audit": 2.0}))

    def test_merged(self) -> None:
        """The values of both."""
        a = Gauge("available", "Available.", lambda: {"cache": 1.0}, "use")
        b = Gauge("available", "Available.", lambda: {"limits": 0.0}, "use")
        self.assertEqual(a.merged(b).read(), {"cache": 1.0, "limits": 0.0})

    def test_figures_and_labels_do_not_mix(self) -> None:
        """A mistake of the one who keeps the figure."""
        one = Gauge("a", "A.", lambda: 1.0, "b")
        many = Gauge("a", "A.", lambda: {"x": 1.0}, "b")
        self.assertRaises(TypeError, many.labelled("y").read)
        self.assertRaises(TypeError, one.merged(many).read)
