"""The usual JSON responses as types that hold nothing but counts.

A type takes only what the dialects read in the same way and refuses everything else, whose turn is the general reading
then: counts of a further kind, an error, calls of tools that are billed, a second place with a usage. So it names every
member that the general reading looks at: what must not say anything is C{Absent}, what must count nothing C{Zero}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple, TypeAlias

from msgspec import Meta, Struct
from msgspec.json import Decoder

from llmproxy.metering.dialects.reported_usage import MAX_WORD_CHARS
from llmproxy.metering.dialects.shapes import MAX_COUNT

Tokens: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Count: TypeAlias = Tokens | None
Zero: TypeAlias = Literal[0] | None
Text: TypeAlias = str | None
Absent: TypeAlias = None
_NONE: Mapping[str, int] = {}
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class TypedCounts(NamedTuple):
    """What a response says.

    @ivar model: As it stands there, like C{tier}, C{speed} and C{geo}; C{""} for nothing.
    @ivar input: Tokens of all input, C{output} of all output; C{read} and C{written}: from and to the provider's cache.
    @ivar details: What else was counted, by unit; nothing that is zero.
    """

    model: str
    tier: str
    speed: str
    geo: str
    input: int
    read: int
    written: int
    output: int
    reasoning: int
    details: Mapping[str, int] = _NONE


class _Response(Struct, gc=False, kw_only=True):
    """What no usual response has, whoever sends it."""

    error: Absent = None
    event_type: Absent = None
    item: Absent = None


class _Counts(Struct, gc=False, forbid_unknown_fields=True):
    """A usage object, or a part of one: of members that are not named in it, nobody can tell what they count."""


# OpenAI's chat completions and embeddings, and those who speak like it


class _PromptDetails(_Counts):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Zero = None


class _CompletionDetails(_Counts):
    reasoning_tokens: Count = None
    audio_tokens: Zero = None
    accepted_prediction_tokens: Count = None
    rejected_prediction_tokens: Count = None


class _ChatUsage(_Counts):
    prompt_tokens: Tokens
    completion_tokens: Tokens
    total_tokens: Count = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chat(_Response, kw_only=True):
    usage: _ChatUsage
    model: str = ""
    service_tier: Text = None
    object: Literal["chat.completion", "chat.completion.chunk", "text_completion"] | None = None
    type: Absent = None
    output: Absent = None
    candidates: Absent = None
    tool_usage: Absent = None


class _EmbeddingsUsage(_Counts):
    prompt_tokens: Tokens
    total_tokens: Count = None


class _Embeddings(_Response, kw_only=True):
    usage: _EmbeddingsUsage
    model: str = ""
    service_tier: Text = None
    object: Literal["list"] | None = None
    type: Absent = None
    output: Absent = None
    candidates: Absent = None
    tool_usage: Absent = None


_chat = Decoder(_Chat).decode
_embeddings = Decoder(_Embeddings).decode


def read_chat(body: bytes) -> TypedCounts | None:
    said = _chat(body)
    usage = said.usage
    details, read, written, reasoning = usage.prompt_tokens_details, 0, 0, 0
    if details is not None:
        read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
    if usage.completion_tokens_details is not None:
        reasoning = usage.completion_tokens_details.reasoning_tokens or 0
    given, made, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    # Else not all stands where OpenAI has it, and the general reading corrects something (dialects.openai).
    if read + written > given or reasoning > made or (total is not None and total - given > made):
        return None
    values = (said.model, said.service_tier or "", "", "", given, read, written, made, reasoning, _NONE)
    return _new(TypedCounts, values)


def read_embeddings(body: bytes) -> TypedCounts | None:
    said = _embeddings(body)
    return TypedCounts(said.model, said.service_tier or "", "", "", said.usage.prompt_tokens, 0, 0, 0, 0)


def _adds_up(given: int, cached: int, made: int, reasoning: int, total: int | None) -> bool:
    """Whether all stands where OpenAI has it, so that L{dialects.openai.with_reasoning} corrects nothing."""
    return cached <= given and reasoning <= made and (total is None or total - given <= made)


# OpenAI's responses


class _InputDetails(_Counts):
    cached_tokens: Count = None
    cache_write_tokens: Count = None


class _OutputDetails(_Counts):
    reasoning_tokens: Count = None


class _ResponseUsage(_Counts):
    input_tokens: Tokens
    output_tokens: Tokens
    total_tokens: Tokens
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Item(Struct, gc=False):
    type: Literal["message", "reasoning", "function_call", "custom_tool_call"]


class _ResponseObject(_Response, kw_only=True):
    usage: _ResponseUsage
    model: str = ""
    output: list[_Item] | None = None
    service_tier: Text = None
    object: Literal["response"] | None = None
    type: Absent = None
    candidates: Absent = None
    tool_usage: Absent = None


_response = Decoder(_ResponseObject).decode


def read_response(body: bytes) -> TypedCounts | None:
    said = _response(body)
    usage = said.usage
    read = written = reasoning = 0
    if usage.input_tokens_details is not None:
        read = usage.input_tokens_details.cached_tokens or 0
        written = usage.input_tokens_details.cache_write_tokens or 0
    if usage.output_tokens_details is not None:
        reasoning = usage.output_tokens_details.reasoning_tokens or 0
    given, made = usage.input_tokens, usage.output_tokens
    if not _adds_up(given, read + written, made, reasoning, usage.total_tokens):
        return None
    values = (said.model, said.service_tier or "", "", "", given, read, written, made, reasoning, _NONE)
    return _new(TypedCounts, values)


# Anthropic's messages


class CacheCreation(_Counts):
    ephemeral_5m_input_tokens: Count = None
    ephemeral_1h_input_tokens: Count = None


class ServerTools(_Counts):
    web_search_requests: Zero = None
    web_fetch_requests: Count = None
    code_execution_requests: Zero = None


class ThinkingDetails(_Counts):
    thinking_tokens: Count = None


class MessageCounts(_Counts):
    cache_creation_input_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation: CacheCreation | None = None
    server_tool_use: ServerTools | None = None
    output_tokens_details: ThinkingDetails | None = None
    service_tier: Text = None
    inference_geo: Text = None
    speed: Text = None


class MessageUsage(MessageCounts, kw_only=True):
    input_tokens: Tokens
    output_tokens: Tokens


class Message(_Response, kw_only=True):
    usage: MessageUsage
    model: str = ""
    type: Literal["message"] | None = None
    object: Absent = None
    service_tier: Absent = None
    output: Absent = None
    candidates: Absent = None
    tool_usage: Absent = None


_message = Decoder(Message).decode


def read_message(body: bytes) -> TypedCounts | None:
    said = _message(body)
    return message_counts(said.model, said.usage)


def message_counts(model: str, usage: MessageUsage) -> TypedCounts:
    """What a message says that was made by this model, and has this usage."""
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details, reasoning = _NONE, 0
    if usage.cache_creation is not None:
        details = _not_zero(
            cache_write_5m_tokens=usage.cache_creation.ephemeral_5m_input_tokens,
            cache_write_1h_tokens=usage.cache_creation.ephemeral_1h_input_tokens,
        )
    if usage.output_tokens_details is not None:
        reasoning = usage.output_tokens_details.thinking_tokens or 0
    return TypedCounts(
        model,
        usage.service_tier or "",
        usage.speed or "",
        usage.inference_geo or "",
        usage.input_tokens + read + written,
        read,
        written,
        usage.output_tokens,
        reasoning,
        details,
    )


def _not_zero(**counts: int | None) -> Mapping[str, int]:
    return {unit: count for unit, count in counts.items() if count}


# Gemini's generateContent


class _TextTokens(_Counts, rename="camel"):
    modality: Literal["TEXT"]
    token_count: Count = None


_OfText: TypeAlias = Annotated[list[_TextTokens], Meta(max_length=1)] | None


class _GeminiUsage(_Counts, rename="camel"):
    prompt_token_count: Tokens
    candidates_token_count: Count = None
    thoughts_token_count: Count = None
    cached_content_token_count: Count = None
    tool_use_prompt_token_count: Zero = None
    total_token_count: Count = None
    prompt_tokens_details: _OfText = None
    candidates_tokens_details: _OfText = None
    cache_tokens_details: _OfText = None
    service_tier: Text = None
    traffic_type: Text = None


class _Candidate(Struct, gc=False, rename="camel"):
    grounding_metadata: Absent = None


class _Gemini(_Response, kw_only=True, rename={"usage_metadata": "usageMetadata", "model_version": "modelVersion"}):
    usage_metadata: _GeminiUsage
    model_version: str = ""
    candidates: list[_Candidate] | None = None
    usage: Absent = None
    model: Absent = None
    type: Absent = None
    object: Absent = None
    service_tier: Absent = None
    output: Absent = None
    tool_usage: Absent = None


_gemini = Decoder(_Gemini).decode


def read_gemini(body: bytes) -> TypedCounts | None:
    said = _gemini(body)
    usage = said.usage_metadata
    given, thought = usage.prompt_token_count, usage.thoughts_token_count or 0
    if len(said.model_version) > MAX_WORD_CHARS or (usage.service_tier and usage.traffic_type):
        return None
    if usage.candidates_token_count is None and not _adds_up(given, 0, thought, 0, usage.total_token_count):
        return None
    details = _NONE
    if usage.prompt_tokens_details or usage.candidates_tokens_details or usage.cache_tokens_details:
        details = _not_zero(
            cache_text_read_tokens=_count_text(usage.cache_tokens_details),
            input_text_tokens=_count_text(usage.prompt_tokens_details),
            output_text_tokens=_count_text(usage.candidates_tokens_details),
        )
    model, tier = said.model_version.removeprefix("models/"), usage.service_tier or usage.traffic_type or ""
    read, made = usage.cached_content_token_count or 0, (usage.candidates_token_count or 0) + thought
    return TypedCounts(model, tier, "", "", given, read, 0, made, thought, details)


def _count_text(listed: list[_TextTokens] | None) -> int | None:
    return listed[0].token_count if listed else None


class TypedResponse(NamedTuple):
    """One kind of response.

    @ivar read: What a body says, or C{None} where it is not a usual one, as L{msgspec.MsgspecError} says too.
    @ivar place: The member that holds its usage; C{sample}: JSON of one that counts all that C{read} does.
    """

    read: Callable[[bytes], TypedCounts | None]
    place: str
    sample: str


# By the names of operations. What C{sample} says is read both ways for each provider before its type is used.
TYPED_RESPONSES: Mapping[str, TypedResponse] = {
    "chat": TypedResponse(
        read_chat,
        "usage",
        """{"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 4}, "completion_tokens_details":
        {"reasoning_tokens": 50, "accepted_prediction_tokens": 6, "rejected_prediction_tokens": 7}}""",
    ),
    "embeddings": TypedResponse(read_embeddings, "usage", """{"prompt_tokens": 1000, "total_tokens": 1000}"""),
    "responses": TypedResponse(
        read_response,
        "usage",
        """{"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200,
        "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 50}}""",
    ),
    "messages": TypedResponse(
        read_message,
        "usage",
        """{"input_tokens": 1000, "output_tokens": 200, "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 23, "ephemeral_1h_input_tokens": 7},
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 8},
        "output_tokens_details": {"thinking_tokens": 50}}""",
    ),
    "generate": TypedResponse(
        read_gemini,
        "usageMetadata",
        """{"promptTokenCount": 1000, "candidatesTokenCount": 200, "thoughtsTokenCount": 50,
        "cachedContentTokenCount": 30, "totalTokenCount": 1250,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 999}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 199}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 29}]}""",
    ),
}
