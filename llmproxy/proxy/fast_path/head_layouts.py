"""Tells which known head something begins with, by where its first field with a hole stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TypeVar

from llmproxy.proxy.fast_path.head_shape import HeadLayout

MAX_LAYOUTS = 1024  # that are looked for in what was received
MAX_NAMES = 16  # that the first field with a hole has in these
MAX_LAYOUTS_OF_PLACE = 8  # of those whose first hole is in the same place

H = TypeVar("H")


class HeadLayouts:
    """The layouts of heads that were found lately.

    Clients spell the first field with a hole in few ways: a look for each of these tells how a head may be laid out,
    however many layouts there are.
    """

    def __init__(self) -> None:
        self._places: dict[bytes, dict[int, list[HeadLayout]]] = {}  # by the end of a line, and such a name
        self._all: deque[HeadLayout] = deque()

    def clear(self) -> None:
        self._places.clear()
        self._all.clear()

    def find(self, data: bytes, heads: Mapping[bytes, H]) -> H | None:
        """Which of the heads this begins with, as far as their holes do not matter.

        @param heads: By their keys.
        """
        end = data.find(b"\r\n\r\n")
        for name, places in self._places.items():
            for layout in places.get(data.find(name, 0, end), ()):
                head = heads.get(layout.key_in(data))
                if head is not None:
                    return head
        return None

    def add(self, layout: HeadLayout) -> None:
        """Look for this one too from now on, in place of the oldest where there are too many."""
        name, place = _where(layout)
        if name not in self._places and len(self._places) >= MAX_NAMES:
            self.clear()
        alike = self._places.setdefault(name, {}).setdefault(place, [])
        if layout in alike:
            return
        alike.insert(0, layout)
        self._all.append(layout)
        if len(alike) > MAX_LAYOUTS_OF_PLACE:
            self._all.remove(alike[-1])
            self._drop(alike[-1])
        elif len(self._all) > MAX_LAYOUTS:
            self._drop(self._all.popleft())

    def _drop(self, layout: HeadLayout) -> None:
        name, place = _where(layout)
        alike = self._places[name][place]
        alike.remove(layout)
        if not alike:
            del self._places[name][place]
            if not self._places[name]:
                del self._places[name]


def _where(layout: HeadLayout) -> tuple[bytes, int]:
    """What its first field with a hole begins with, the end of the line before included, and where that stands."""
    return b"\n" + layout.name, layout.name_at - 1
