"""What direct requests of one flow have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llmproxy.metering.typed_usage import TypedUsage


class RequestFacts(NamedTuple):
    """What is recorded of a head, beside its flow."""

    user_agent: str
    sdk_retry: int
    attribution: str


class PreparedFlow(NamedTuple):
    """What direct requests of one flow have in common.

    @ivar outgoing: The head that is sent up to the body's length; C{b""} where it has holes.
    @ivar key: The provider's, which no response may say.
    @ivar typed: Measures its responses, where they are the provider's; C{has_tier}: whether their head tells a tier.
    @ivar is_coded: Whether its body may have a content coding.
    @ivar is_policed: Whether its body is checked; C{is_measured}: measured; C{is_read_whole}: read for more than its
        model, and whether it asks for a stream; C{wanted}: for which members.
    @ivar estimates_input: Whether it is text that counts as input.
    @ivar streams: Whether its head asks for a stream.
    @ivar total: Seconds that the whole response may take, C{stream_total} where it is a stream, C{header_timeout} until
        such a stream begins; C{0}: for ever.
    @ivar facts: What is recorded of its head; C{None} where that differs.
    """

    outgoing: bytes
    key: bytes
    typed: TypedUsage | None
    has_tier: bool
    is_coded: bool
    is_policed: bool
    is_measured: bool
    is_read_whole: bool
    wanted: Callable[[str], bool]
    estimates_input: bool
    streams: bool
    total: float
    stream_total: float
    header_timeout: float
    path: str
    facts: RequestFacts | None

    def due(self, arrived: float, sent: float, *, streams: bool) -> float:
        """When the head of a response must have come; C{0}: never."""
        if not streams:
            return arrived + self.total if self.total else 0.0
        ends = [arrived + self.stream_total] if self.stream_total else []
        if self.header_timeout:
            ends.append(sent + self.header_timeout)
        return min(ends, default=0.0)
