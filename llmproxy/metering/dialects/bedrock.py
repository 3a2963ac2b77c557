"""Amazon Bedrock's API: C{model/NAME/invoke} and C{model/NAME/converse}, streamed or not.

Facts: C{docs.aws.amazon.com/bedrock/latest/APIReference} and C{aws.amazon.com/bedrock/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import MediaTokens, Operation

_MEDIA = MediaTokens(image=4784, page=4600)

OPERATIONS = (
    Operation(
        "converse",
        ("model/*/converse", "model/*/converse-stream"),
        takes_text=True,
        makes_text=True,
        maxima=(("inferenceConfig", "maxTokens"),),
        media=_MEDIA,
    ),
    # The body is in the words of the model's maker.
    Operation(
        "invoke",
        ("model/*/invoke", "model/*/invoke-with-response-stream"),
        takes_text=True,
        makes_text=True,
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
    Operation("count", ("model/*/count-tokens",), free=True),
)
