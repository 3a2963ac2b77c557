"""What a request can use and cost at most, as limits see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from llmproxy.http.request_reader import RequestContent


class MaximumUse(Protocol):
    """What a request can use at most; L{metering.cost_ceiling} has the meanings."""

    @property
    def input(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def choices(self) -> int: ...
    @property
    def maximum(self) -> str: ...
    @property
    def free(self) -> bool: ...
    @property
    def parts(self) -> Sequence[Any]: ...
    @property
    def tokens(self) -> int: ...


class MaximumUseEstimator(Protocol):
    """Says what a request can use and cost at most; L{metering.cost_ceiling} has the meanings."""

    def usual(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, output: int, at: float
    ) -> tuple[int, float | None] | None: ...
    def bound(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, size: int, output: int
    ) -> Any: ...
    def cost(self, api: str, model: str, bound: Any, at: float) -> float | None: ...


class RequestMaximum(NamedTuple):
    """What a request claims at most.

    @ivar bound: C{None} where only requests are counted.
    @ivar money: Nano-dollars; C{output_nano} tells how many of them one token of output is.
    """

    bound: MaximumUse | None = None
    money: int = 0
    output_nano: Callable[[], float] = float
