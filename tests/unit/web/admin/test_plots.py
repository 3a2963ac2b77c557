from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.web.admin.plots import HEIGHT, LEFT, WIDTH, Series, bar_plot, line_plot, nice_step

VALUES = st.lists(st.none() | st.floats(0, 1e12), min_size=1, max_size=40)


def drawn(picture: str, css_class: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(picture)
    return [each for each in root.iter() if css_class in each.get("class", "").split()]


class PlotTests(TestCase):
    def test_steps(self) -> None:
        self.assertEqual([nice_step(each) for each in (0, 4, 7, 100, 0.003)], [1, 1, 2, 25, 0.001])

    def test_bars_stand_on_each_other(self) -> None:
        picture = bar_plot("T", ["a", "b"], [Series("one", "c1", [1, 2]), Series("two", "c2", [3, 0])], str)
        (first, second), (upper,) = drawn(picture, "c1"), drawn(picture, "c2")
        self.assertAlmostEqual(float(upper.get("y", 0)) + float(upper.get("height", 0)), float(first.get("y", 0)), 0)
        self.assertAlmostEqual(float(second.get("height", 0)), 2 * float(first.get("height", 0)), 0)
        titles = [each.text for each in ElementTree.fromstring(picture).iter("title")]
        self.assertEqual(titles, ["a\none: 1\ntwo: 3", "b\none: 2\ntwo: 0"])

    def test_a_line_has_gaps_where_nothing_is_known(self) -> None:
        picture = line_plot("T", list("abcde"), [Series("p50", "c1", [1, 2, None, 3, None])], str)
        self.assertEqual((len(drawn(picture, "line")), len(drawn(picture, "dot"))), (1, 1))

    def test_every_second_label_may_be_left_out(self) -> None:
        picture = bar_plot("T", [f"{day:02}" for day in range(30)], [Series("one", "c1", [1] * 30)], str)
        below = [each for each in drawn(picture, "tick") if each.get("y") == str(HEIGHT - 6)]
        spare = [each.text for each in drawn(picture, "spare")]
        self.assertEqual([each.text for each in below], ["00", "05", "10", "15", "20", "25"])
        self.assertEqual(spare, ["05", "15", "25"])

    def test_texts_are_escaped(self) -> None:
        evil = '"><script>alert(1)</script>'
        picture = bar_plot(evil, [evil], [Series(evil, "c1", [1])], lambda value: evil)
        self.assertNotIn("<script", picture)
        self.assertEqual(ElementTree.fromstring(picture).get("aria-label"), evil)

    @given(VALUES)
    def test_everything_is_on_the_paper(self, values: list[float | None]) -> None:
        labels = [str(number) for number in range(len(values))]
        for draw in (bar_plot, line_plot):
            picture = draw("T", labels, [Series("x", "c1", values)], str)
            for bar in drawn(picture, "bar"):
                self.assertTrue(LEFT <= float(bar.get("x", 0)) <= WIDTH and 0 <= float(bar.get("y", 0)) <= HEIGHT)
            for line in drawn(picture, "line"):
                points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
                self.assertTrue(all(LEFT <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points))
