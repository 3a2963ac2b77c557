"""Ollama's own API, and llama.cpp's: streams of one JSON object a line.

Facts: C{docs.ollama.com/api} (usage), C{github.com/ggml-org/llama.cpp/tree/master/tools/server}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import ProviderOperation
from llmproxy.metering.dialects.reported_usage import Counts, UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, has_any, left_out

_COUNTS = ("prompt_eval_count", "eval_count")  # either is missing where it is zero: Go's C{omitempty}


def other_usage_object(answer: Counts) -> Counts | None:
    """The counts stand among the members of the last object of a stream, and of a response."""
    return answer if any(name in answer for name in _COUNTS) else None


def final(said: Counts) -> bool | None:
    """A stream's last object says so."""
    done = said.get("done")
    return done if isinstance(done, bool) else None


SHAPES = (
    Shape(
        "ollama",
        has_any(*_COUNTS),
        members=((("prompt_eval_count",), ("input_tokens",)), (("eval_count",), ("output_tokens",))),
        leaves_out=left_out(input_tokens="prompt_eval_count", output_tokens="eval_count"),
    ),
)

SYNTAX = UsageSyntax(elsewhere=other_usage_object, final=final)

OPERATIONS = (
    ProviderOperation(
        "generate",
        ("api/chat", "api/generate"),
        takes_text=True,
        makes_text=True,
        maxima=(("options", "num_predict"),),
        mark=b'eval_count"',
    ),
    ProviderOperation("embeddings", ("api/embed", "api/embeddings"), takes_text=True),
    ProviderOperation("admin", ("api/show", "api/pull", "api/push", "api/create", "api/copy"), free=True),
)
