"""The usual streams whose usage several events report, likewise as L{typed_responses}: one type for each such event.

An event of these types has no other members, so that it holds nothing else that the general reading looks at. What they
tell together is what L{reported_usage.merge} makes of them: a later count holds, unless it is nothing or zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.json import Decoder

from llmproxy.metering.typed_responses import (
    CacheCreation,
    Count,
    Message,
    MessageCounts,
    MessageUsage,
    ThinkingDetails,
    Tokens,
    TypedCounts,
    message_counts,
)


class _Anything(Struct, gc=False):
    """An object that tells nothing of usage."""


class _MessageStart(Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["message_start"]
    message: Message


class _LaterUsage(MessageCounts, kw_only=True):
    output_tokens: Tokens
    input_tokens: Count = None


class _MessageDelta(Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["message_delta"]
    usage: _LaterUsage
    delta: _Anything | None = None
    context_management: _Anything | None = None


_start = Decoder(_MessageStart).decode
_delta = Decoder(_MessageDelta).decode


def read_message_events(events: bytes) -> TypedCounts | None:
    """Anthropic's: its beginning has the input, its end the output.

    @param events: The data of those that report usage, a line for each.
    """
    first, mark, last = events.partition(b"\n")
    if not mark:
        return None
    message, later = _start(first).message, _delta(last).usage
    usage = message.usage
    for said, before in (
        (later.service_tier, usage.service_tier),
        (later.speed, usage.speed),
        (later.inference_geo, usage.inference_geo),
    ):
        if said and before and said != before:
            return None  # of what cannot be shown, the other would hold
    creation, thinking = later.cache_creation, later.output_tokens_details
    if creation is not None and usage.cache_creation is not None:
        before_creation = usage.cache_creation
        creation = CacheCreation(
            creation.ephemeral_5m_input_tokens or before_creation.ephemeral_5m_input_tokens,
            creation.ephemeral_1h_input_tokens or before_creation.ephemeral_1h_input_tokens,
        )
    if thinking is not None and usage.output_tokens_details is not None:
        thinking = ThinkingDetails(thinking.thinking_tokens or usage.output_tokens_details.thinking_tokens)
    together = MessageUsage(
        input_tokens=later.input_tokens or usage.input_tokens,
        output_tokens=later.output_tokens or usage.output_tokens,
        cache_creation_input_tokens=later.cache_creation_input_tokens or usage.cache_creation_input_tokens,
        cache_read_input_tokens=later.cache_read_input_tokens or usage.cache_read_input_tokens,
        cache_creation=creation or usage.cache_creation,
        output_tokens_details=thinking or usage.output_tokens_details,
        service_tier=later.service_tier or usage.service_tier,
        inference_geo=later.inference_geo or usage.inference_geo,
        speed=later.speed or usage.speed,
    )
    return message_counts(message.model, together)


# By the names of operations; of others, one event alone reports the usage, and is read as a response is.
TYPED_STREAMS: Mapping[str, Callable[[bytes], TypedCounts | None]] = {"messages": read_message_events}
