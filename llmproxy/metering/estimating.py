"""What was probably used where the provider told nothing, and what a request can use at most, by what it holds.

Text: so many tokens for each of its words and signs, by their script; the weights were fitted to what real tokenizers
make of real-shaped prompts (C{docs/limits.md} has the figures). Media: as the providers' pages say, in L{media}.
Output, where there is no better: the size of the answer at four bytes a token; of a stream, the text in its events, as
much of all of them as of a sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from llmproxy.http.content_measure import TextMeasure
from llmproxy.http.request_reader import RequestContent
from llmproxy.metering import media
from llmproxy.metering.dialects.operation import MediaTokens
from llmproxy.metering.windows import context_window

BYTES_PER_TOKEN = 4
MARGIN = 1.3  # of what is reserved over what is likely
LEAST_TOKENS = 16  # that are reserved beyond

_MEDIA = MediaTokens()
# Tokens for one of each kind of L{TextMeasure}, in its order.
_RATES = (1.0, 0.3, 0.5, 0.5, 0.02, 0.7, 0.6, 0.8, 0.9, 1.0, 3.0)

# Members that hold what a model made, in the words of all providers.
_TEXTS = re.compile(
    rb'"(?:content|text|delta|arguments|partial_json|thinking|reasoning|reasoning_content|refusal)"'
    rb'\s{0,8}:\s{0,8}"([^"\\]*+(?:\\.[^"\\]*+)*)',  # which the sample may end within
    re.DOTALL,
)


class PromptEstimate(NamedTuple):
    """Tokens of input.

    @ivar likely: As many as there probably are; C{most}: as many as there hardly ever are more of.
    """

    likely: int
    most: int


def prompt(
    content: RequestContent, size: int, provider: str, model: str, most_of_media: MediaTokens = _MEDIA
) -> PromptEstimate:
    """How many tokens a request's input probably is.

    @param size: Bytes of its body, by which it goes where that could not be read: no token is shorter than a byte.
    @param provider: Its name in genai-prices, or C{""}.
    @param most_of_media: What media count for at most.
    """
    if content.form == "none":
        return PromptEstimate(0, 0)
    window = context_window(provider, model)
    if content.form == "unknown" or not content.complete:
        return PromptEstimate(min(tokens(size), window), min(max(size, content.size), window))
    text = text_tokens(content.text)
    likely, most = media.tokens(content.media, content.unseen_media, provider, model, most_of_media)
    return PromptEstimate(min(round(text + likely), window), min(round(text * MARGIN + LEAST_TOKENS + most), window))


def text_tokens(text: TextMeasure) -> float:
    """How many tokens a text of so many characters of each kind probably is."""
    return sum(count * rate for count, rate in zip(text, _RATES, strict=True))


def tokens(size: float) -> int:
    """How many tokens so many bytes of text probably are."""
    return -(-int(size) // BYTES_PER_TOKEN)


def share(samples: Sequence[bytes]) -> float:
    """How much of a stream is text, going by these parts of it."""
    size = sum(map(len, samples))
    text = sum(len(found) for sample in samples for found in _TEXTS.findall(sample))
    return text / size if size else 0.0
