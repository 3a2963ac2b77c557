"""Mistral's API, where it is not OpenAI's: completion in the middle, agents, documents, classification.

Facts: C{docs.mistral.ai/api} and C{mistral.ai/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects import openai
from llmproxy.metering.dialects.operation import Operation, unknown
from llmproxy.metering.dialects.reading import Wire
from llmproxy.metering.dialects.shapes import Shape, having

_MAXIMA = (("max_tokens",),)
_CHOICES = (("n",),)

SHAPES = (Shape("ocr", having("pages_processed"), (("mistral", "ocr"),)),)

WIRE = Wire(("usage", "usage_info"))

OPERATIONS = (
    Operation("fim", ("fim/completions",), takes_text=True, makes_text=True, maxima=_MAXIMA, choices=_CHOICES),
    Operation(
        "agents",
        ("agents/completions",),
        takes_text=True,
        makes_text=True,
        maxima=_MAXIMA,
        choices=_CHOICES,
        takes_model=False,
    ),
    Operation(
        "conversations",
        ("conversations", "conversations/*", "conversations/*/restart"),
        takes_text=True,
        makes_text=True,
        maxima=(("completion_args", "max_tokens"),),
        takes_model=False,
    ),
    Operation(
        "moderation", ("moderations", "chat/moderations", "classifications", "chat/classifications"), takes_text=True
    ),
    Operation("ocr", ("ocr",), billed_by_request=unknown),
    Operation("batch", ("batch/jobs",), billed_by_request=unknown, deferred=openai.deferred),
)
