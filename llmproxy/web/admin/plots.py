"""Plots as SVG, made here: lines and stacked bars over time, with axes, and what each point says as its title. Pure.

Colours come from the style sheet, by the class of each series; nothing here carries a style of its own, so that the
pages can forbid inline styles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from markupsafe import Markup

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 62, 8, 10, 24
TICK_CHARS = 6  # of a label fit below the axis; the rest is said when hovered
SMALLEST = 1e-12  # what is less than that is nothing
TICKS = 4  # lines across, at most one more


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one colour of bars.

    @ivar name: What the legend and the titles call it; C{css_class}: what gives it its colour.
    @ivar values: One for each point; C{None} where there is none.
    """

    name: str
    css_class: str
    values: Sequence[float | None]


def nice_step(largest: float, ticks: int = TICKS) -> float:
    """The distance of lines across: 1, 2, 2.5 or 5 times a power of ten, so that about C{ticks} reach C{largest}."""
    if largest < SMALLEST:
        return 1.0
    raw = largest / ticks
    power = 10.0 ** floor(log10(raw))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= raw * (1 - 1e-9))


def line_plot(title: str, labels: Sequence[str], series: Sequence[Series], shown: Callable[[float], str]) -> Markup:
    """A line for each series.

    @param labels: When each point is, as people read it.
    @param shown: Makes text with its unit of a value.
    """
    frame = _Frame(len(labels), max((v for s in series for v in s.values if v is not None), default=0.0))
    body = []
    for each in series:
        for part in _unbroken(each.values):
            points = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in part)
            if len(part) == 1:
                body.append(f'<circle class="dot {each.css_class}" cx="{frame.x(part[0][0]):.1f}" '
                            f'cy="{frame.y(part[0][1]):.1f}" r="2.5"/>')  # fmt: skip
            else:
                body.append(f'<polyline class="line {each.css_class}" points="{points}"/>')
    return _plot(title, frame, labels, series, shown, body)


def bar_plot(title: str, labels: Sequence[str], series: Sequence[Series], shown: Callable[[float], str]) -> Markup:
    """A bar for each point, of the series on top of each other."""
    totals = [sum(each.values[at] or 0.0 for each in series) for at in range(len(labels))]
    frame = _Frame(len(labels), max(totals, default=0.0))
    width = max(1.0, frame.slot * 0.72)
    body = []
    for at in range(len(labels)):
        base = 0.0
        for each in series:
            value = each.values[at] or 0.0
            if value > 0:
                top = frame.y(base + value)
                body.append(
                    f'<rect class="bar {each.css_class}" x="{frame.x(at) - width / 2:.1f}" y="{top:.1f}" '
                    f'width="{width:.1f}" height="{max(0.5, frame.y(base) - top):.1f}"/>'
                )
            base += value
    return _plot(title, frame, labels, series, shown, body)


class _Frame:
    """Where values stand on the paper."""

    def __init__(self, points: int, largest: float) -> None:
        self.step = nice_step(largest)
        self.top = max(self.step, ceil(largest / self.step - 1e-9) * self.step)
        self.slot = (WIDTH - LEFT - RIGHT) / max(1, points)

    def x(self, at: int) -> float:
        return LEFT + self.slot * (at + 0.5)

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / self.top)


def _plot(
    title: str,
    frame: _Frame,
    labels: Sequence[str],
    series: Sequence[Series],
    shown: Callable[[float], str],
    body: Sequence[str],
) -> Markup:
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_axes(frame, labels, shown),
        *body,
        *_hovers(frame, labels, series, shown),
        "</svg>",
    ]
    return Markup("".join(parts))


def _axes(frame: _Frame, labels: Sequence[str], shown: Callable[[float], str]) -> list[str]:
    parts = []
    for number in range(round(frame.top / frame.step) + 1):
        y = frame.y(number * frame.step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
                     f"{escape(shown(number * frame.step))}</text>")  # fmt: skip
    every = max(1, ceil(len(labels) / 6))
    for at in range(0, len(labels), every):  # the first stands beside the axis, clear of its lowest label
        place = f'x="{frame.x(at):.1f}" text-anchor="middle"' if at else f'x="{LEFT}"'
        tick = "tick" if at // every % 2 == 0 else "tick spare"  # where there is little room
        parts.append(f'<text class="{tick}" {place} y="{HEIGHT - 6}">{escape(labels[at][:TICK_CHARS].strip())}</text>')
    return parts


def _hovers(frame: _Frame, labels: Sequence[str], series: Sequence[Series], shown: Callable[[float], str]) -> list[str]:
    """A column over each point, that says when hovered what is there."""
    parts = []
    for at, label in enumerate(labels):
        lines = [f"{each.name}: {'–' if (v := each.values[at]) is None else shown(v)}" for each in series]
        parts.append(
            f'<rect class="hover" x="{frame.x(at) - frame.slot / 2:.1f}" y="{TOP}" width="{frame.slot:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"><title>{"&#10;".join(map(escape, (label, *lines)))}</title></rect>'
        )
    return parts


def _unbroken(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches without gaps, each as (number of the point, value)."""
    stretches: list[list[tuple[int, float]]] = []
    for at, value in enumerate(values):
        if value is None:
            continue
        if stretches and stretches[-1][-1][0] == at - 1:
            stretches[-1].append((at, value))
        else:
            stretches.append([(at, value)])
    return stretches
