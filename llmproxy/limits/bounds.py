"""What a request may use at most, by what it says itself, before it is sent.

Output: what it sets as its own maximum, at the place that the API documents for it, once for each choice it asks for;
where it sets none, what the API's settings say. Input: by its content, of which L{metering.estimating} has the rule.
What a body only refers to (a stored conversation) cannot be seen in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from llmproxy.http.request_reader import RequestContent

MOST = 10**9  # tokens; what is beyond is not meant

_MAXIMA = (
    "max_tokens",  # OpenAI's chat and completions, Anthropic, Mistral
    "max_completion_tokens",
    "max_output_tokens",  # OpenAI's responses
    "max_tokens_to_sample",
    "max_gen_len",  # Llama on Bedrock
)
_CHOICES = ("n", "best_of")
# Objects in which an API has its maxima: Gemini's, Bedrock's and its models', Ollama's, Hugging Face's.
_CONFIGS = {
    "generationConfig": ("maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count"),
    "generation_config": ("maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count"),
    "inferenceConfig": ("maxTokens", "max_new_tokens"),
    "textGenerationConfig": ("maxTokenCount",),
    "options": ("num_predict",),
    "parameters": ("max_new_tokens", "maxOutputTokens", "candidateCount"),
}
_NESTED_CHOICES = frozenset(("candidateCount", "candidate_count"))
MEMBERS = frozenset((*_MAXIMA, *_CHOICES, *_CONFIGS))

# Endpoints that only read: their answers have no tokens.
_SILENT = frozenset(
    b"embeddings moderations classifications count_tokens input_tokens tokenize "
    b"countTokens embedContent batchEmbedContents rerank".split()
)
# Endpoints that no provider charges tokens for, going by their price pages.
_FREE = re.compile(
    rb"/(?:files|uploads|vector_stores|moderations|assistants|containers|models|skills)(?:/[^:]*)?$"
    rb"|/threads(?:/(?!runs)[^/]+)?(?:/messages(?:/[^/]+)?)?$"
    rb"|/(?:count_tokens|input_tokens|tokenize|cancel)$|:(?:countTokens|cancel)$"
)
# Endpoints that take a model, in their body where their path has none.
_WITH_MODEL = re.compile(
    rb"/(?:chat/completions|fim/completions|completions|responses|responses/compact|messages|embeddings|batches|ocr|rerank"
    rb"|images/(?:generations|edits|variations)|audio/(?:speech|transcriptions|translations)|videos|fine_tuning/jobs"
    rb"|realtime/(?:sessions|client_secrets|calls)|interactions|api/(?:chat|generate|embed))$"
)


class Bound(NamedTuple):
    """Tokens that a request may use at most."""

    input: int = 0
    output: int = 0


def is_free(path: bytes) -> bool:
    """Whether nothing is charged for what is done at this path, whatever a request says."""
    return _FREE.search(path) is not None


def takes_model(path: bytes) -> bool:
    """Whether a request to this path names a model."""
    return _WITH_MODEL.search(path) is not None


def output(path: bytes, content: RequestContent | None, default: int) -> int:
    """Tokens that an answer may have at most.

    @param content: C{None} where the request has no body.
    @param default: Tokens where the request sets no maximum of its own.
    """
    if content is None or content.form == "none" or path.rpartition(b"/")[2].rpartition(b":")[2] in _SILENT:
        return 0
    members = content.members
    maxima = [most for name in _MAXIMA if (most := _count(members.get(name))) is not None]
    choices = [_count(members.get(name)) or 1 for name in _CHOICES]
    for name, value in _configured(members):
        count = _count(value)
        if count is not None:
            (choices if name in _NESTED_CHOICES else maxima).append(count)
    return min(max(maxima, default=default) * max(1, *choices), MOST)


def ambiguous(content: RequestContent) -> str:
    """A member that decides what a request costs, and is there twice or is too long to be read; C{""} where none is."""
    names = (content.repeated | content.oversize) & (MEMBERS | {"model"})
    return min(names, default="")


def _configured(members: Any) -> Iterator[tuple[str, Any]]:
    for config, names in _CONFIGS.items():
        values = members.get(config)
        if isinstance(values, dict):
            for name in names:
                if name in values:
                    yield name, values[name]


def _count(value: Any) -> int | None:
    if isinstance(value, str):  # in a form
        value = int(value) if value.isdigit() and len(value) < 12 else None
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return int(min(value, MOST)) if plain and value >= 0 else None
