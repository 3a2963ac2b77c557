"""Anthropic's API: messages, their count, batches of them.

Facts: C{platform.claude.com/docs/en/api/messages} and C{platform.claude.com/docs/en/about-claude/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import MediaTokens, Operation, unknown

# Pictures: width x height / 750, at most 1,568 tokens, and 4,784 in high resolution (Opus 4.7 and later); a page of a
# PDF is its text, 1,500 to 3,000 tokens, and its picture. Guides "Vision" and "PDF support", November 2026.
MEDIA = MediaTokens(image=4784, page=4600, audio_second=32, video_second=300)

MESSAGES = Operation(
    "messages", ("messages",), takes_text=True, makes_text=True, maxima=(("max_tokens",),), media=MEDIA
)

OPERATIONS = (
    MESSAGES,
    Operation(
        "complete", ("complete",), takes_text=True, makes_text=True, maxima=(("max_tokens_to_sample",),), media=MEDIA
    ),
    Operation("count", ("messages/count_tokens",), free=True),
    Operation("batch", ("messages/batches",), takes_model=False, billed_by_request=unknown),
)
