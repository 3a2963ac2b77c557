"""Amazon Bedrock's API: C{model/NAME/invoke} and C{model/NAME/converse}, streamed or not.

Facts: C{docs.aws.amazon.com/bedrock/latest/APIReference} and C{aws.amazon.com/bedrock/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import MediaTokens, ProviderOperation
from llmproxy.metering.dialects.reported_usage import UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, each_side, has_any

_MEDIA = MediaTokens(image=4784, page=4600)

SHAPES = (
    Shape(
        "converse",
        has_any("inputTokens", "outputTokens"),
        (("aws", "default"),),
        correct=each_side("inputTokens", "outputTokens"),
    ),
    Shape(
        "invocation",
        has_any("inputTokenCount"),
        members=(
            (("inputTokenCount",), ("input_tokens",)),
            (("cacheReadInputTokenCount",), ("input_tokens", "cache_read_tokens")),
            (("cacheWriteInputTokenCount",), ("input_tokens", "cache_write_tokens")),
            (("outputTokenCount",), ("output_tokens",)),
        ),
        correct=each_side("inputTokenCount", "outputTokenCount"),
    ),
)

SYNTAX = UsageSyntax(("usage", "amazon-bedrock-invocationMetrics"))

_MARK = b"oken"  # C{inputTokens}, C{inputTokenCount} and C{input_tokens}

OPERATIONS = (
    ProviderOperation(
        "converse",
        ("model/*/converse", "model/*/converse-stream"),
        takes_text=True,
        makes_text=True,
        mark=_MARK,
        maxima=(("inferenceConfig", "maxTokens"),),
        media=_MEDIA,
    ),
    # The body is in the words of the model's maker.
    ProviderOperation(
        "invoke",
        ("model/*/invoke", "model/*/invoke-with-response-stream"),
        takes_text=True,
        makes_text=True,
        mark=_MARK,
        maxima=(
            ("max_tokens",),
            ("max_tokens_to_sample",),
            ("max_gen_len",),
            ("maxTokens",),
            ("inferenceConfig", "maxTokens"),
            ("inferenceConfig", "max_new_tokens"),
            ("textGenerationConfig", "maxTokenCount"),
        ),
        media=_MEDIA,
    ),
    ProviderOperation("count", ("model/*/count-tokens",), free=True),
)
