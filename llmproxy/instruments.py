"""Figures and states that the parts of this process show of themselves: among the metrics, and on the ready page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

Reading = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Instrument:
    """A figure that somebody keeps, read when a monitor asks for it.

    @ivar name: Without the prefix C{llmproxy_}; of a L{Counter} also without C{_total}.
    @ivar help: What it is, in one sentence.
    @ivar read: The figure now; where there is a C{label}, one for each of its values.
    @ivar label: By what figures of this name are told apart, such as C{api}; C{""} where there is only one.
    @ivar across: What it is for several workers together: C{sum} of all, C{max} or C{min}.
    """

    kind: ClassVar[str]

    name: str
    help: str
    read: Callable[[], Reading]
    label: str = ""
    across: str = "sum"

    def labelled(self, value: str) -> Self:
        """The same for one value of its label; what it reads was one figure until now."""
        read = self.read
        return replace(self, read=lambda: {value: _figure(read())})

    def merged(self, other: Self) -> Self:
        """One instrument for the label's values of both."""
        return replace(self, read=lambda: {**_by_label(self.read()), **_by_label(other.read())})


class Gauge(Instrument):
    """A figure that may rise and fall."""

    __slots__ = ()
    kind = "gauge"


class Counter(Instrument):
    """A figure that only rises while this process lives."""

    __slots__ = ()
    kind = "counter"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A state on the ready page.

    @ivar name: Its key there.
    @ivar read: C{ok}, or what is wrong in a few words.
    @ivar required: Whether no request is to be sent here while it is not C{ok}: 503. Otherwise requests are served all
        the same, and the page says C{degraded}. Where settings decide that, it is asked each time.
    """

    name: str
    read: Callable[[], str]
    required: bool | Callable[[], bool] = False

    @property
    def is_required(self) -> bool:
        """C{required}, as it is now."""
        return self.required() if callable(self.required) else self.required


def check_gauge(read: Callable[[], Mapping[str, float]]) -> Gauge:
    """What says of checks by their names whether they are C{ok}: 1, or else 0."""
    return Gauge("check_ok", "1 for a check of the ready page that is ok, 0 for others.", read, "check", "min")


def _figure(reading: Reading) -> float:
    if isinstance(reading, Mapping):
        raise TypeError("It has its label's values already.")
    return reading


def _by_label(reading: Reading) -> Mapping[str, float]:
    if not isinstance(reading, Mapping):
        raise TypeError("It has no label.")
    return reading
