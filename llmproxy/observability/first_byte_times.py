"""How long first bytes took, counted in classes, and percentiles out of that. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial

# Seconds up to which each class reaches, a factor of the square root of two apart: 10 ms to 164 s; the last has no end.
CLASS_BOUNDS = tuple(0.01 * 2 ** (step / 2) for step in range(29))
CLASS_COUNT = len(CLASS_BOUNDS) + 1

# The number of the class that a time belongs to; in C, as every request asks for it.
time_class: Callable[[float], int] = partial(bisect_left, CLASS_BOUNDS)


def percentile(counts: Sequence[int], share: float) -> float | None:
    """The time in seconds within which this share (C{0} to C{1}) of what was counted stayed; C{None} without any.

    Within a class times are taken as spread evenly, so the figure is at most 20 % off; of the last class it is where
    that begins.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for number, count in enumerate(counts):
        if count and below + count >= wanted:
            low = CLASS_BOUNDS[number - 1] if number else 0.0
            if number == len(CLASS_BOUNDS):
                return low
            return low + (CLASS_BOUNDS[number] - low) * (wanted - below) / count
        below += count
    return CLASS_BOUNDS[-1]
