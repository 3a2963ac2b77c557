"""Mistral's API, where it is not OpenAI's: completion in the middle, agents, documents, classification.

Facts: C{docs.mistral.ai/api} and C{mistral.ai/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects import openai
from llmproxy.metering.dialects.operation import ProviderOperation, unknown_units
from llmproxy.metering.dialects.reported_usage import UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, has_any

_MAXIMA = (("max_tokens",),)
_CHOICES = (("n",),)

SHAPES = (Shape("ocr", has_any("pages_processed"), (("mistral", "ocr"),)),)

SYNTAX = UsageSyntax(("usage", "usage_info"))

OPERATIONS = (
    ProviderOperation("fim", ("fim/completions",), takes_text=True, makes_text=True, maxima=_MAXIMA, choices=_CHOICES),
    ProviderOperation(
        "agents",
        ("agents/completions",),
        takes_text=True,
        makes_text=True,
        maxima=_MAXIMA,
        choices=_CHOICES,
        takes_model=False,
    ),
    ProviderOperation(
        "conversations",
        ("conversations", "conversations/*", "conversations/*/restart"),
        takes_text=True,
        makes_text=True,
        maxima=(("completion_args", "max_tokens"),),
        takes_model=False,
    ),
    ProviderOperation(
        "moderation", ("moderations", "chat/moderations", "classifications", "chat/classifications"), takes_text=True
    ),
    ProviderOperation("ocr", ("ocr",), billed_by_request=unknown_units),
    ProviderOperation("batch", ("batch/jobs",), billed_by_request=unknown_units, deferred=openai.deferred_result_id),
)
