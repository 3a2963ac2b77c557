"""What self-hosted and lesser known servers have beside OpenAI's words: reranking, and endpoints of their own."""

from __future__ import annotations

from llmproxy.metering.dialects.operation import Operation, nothing_more

OPERATIONS = (
    Operation("rerank", ("rerank",), takes_text=True, billed_by_request=nothing_more),
    Operation("score", ("score", "classify", "pooling"), takes_text=True, billed_by_request=nothing_more),
)
