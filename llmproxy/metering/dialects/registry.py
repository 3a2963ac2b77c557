"""Finds what an endpoint does by its path: first as its API's provider says, then as any other, since many speak
another's words too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from llmproxy.metering.dialects import anthropic, bedrock, generic, google, mistral, ollama, openai
from llmproxy.metering.dialects.operation import UNKNOWN, Operation

# By the providers' names in genai-prices; the order is the one in which those of others are looked through.
DIALECTS: Mapping[str, Sequence[Operation]] = {
    "openai": openai.OPERATIONS,
    "anthropic": anthropic.OPERATIONS,
    "google": google.OPERATIONS,
    "mistral": mistral.OPERATIONS,
    "aws": bedrock.OPERATIONS,
    "ollama": ollama.OPERATIONS,
    "": generic.OPERATIONS,
}


def operation(provider: str, path: bytes) -> Operation:
    """What a POST to C{path} does; L{UNKNOWN} where nobody knows.

    @param provider: The provider's name in genai-prices, or C{""}.
    @param path: As it was sent, without the query, whatever its beginning.
    """
    own = _table(DIALECTS.get(provider, ()))
    return next((known for pattern, known in (*own, *_EVERYBODY) if pattern.search(path)), UNKNOWN)


def _table(operations: Sequence[Operation]) -> list[tuple[re.Pattern[bytes], Operation]]:
    """Longest first: C{responses/input_tokens} is not C{input_tokens} of anybody."""
    patterns = [(_pattern(path), len(path), each) for each in operations for path in each.paths]
    return [(pattern, each) for pattern, _, each in sorted(patterns, key=lambda found: -found[1])]


def _pattern(path: str) -> re.Pattern[bytes]:
    return re.compile(rb"/" + re.escape(path.encode()).replace(rb"\*", rb"[^/]+") + rb"/?$")


_EVERYBODY = _table([each for operations in DIALECTS.values() for each in operations])
