"""What was probably used where the provider reported nothing, and what a request can use at most, by what it holds.

Text: so many tokens for each of its words and signs, by their script; the weights were fitted to what real tokenizers
make of real-shaped prompts (C{docs/limits.md} has the figures). Media: as the providers' pages say, in L{media}.
Output, where there is no better: the size of the response at four bytes a token; of a stream, the text in its events,
as much of all of them as of a sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import NamedTuple

from llmproxy.http.request_reader import RequestContent
from llmproxy.http.text_measure import TextMeasure
from llmproxy.metering import media
from llmproxy.metering.dialects.operation import MediaTokens
from llmproxy.metering.price_list import get_snapshot

BYTES_PER_TOKEN = 4
MAX_CONTEXT_TOKENS = 2_000_000  # tokens of input where a model's context window is not known
RESERVE_TOKENS = 16  # that are reserved beyond
_MEDIA = MediaTokens()
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class Tokenizer(NamedTuple):
    """How the text of a request is counted by one family of models.

    @ivar rates: Tokens for one of each kind of L{TextMeasure}, in its order.
    @ivar margin: What is reserved, times what is likely.
    """

    rates: Sequence[float]
    margin: float


# Fitted by least squares of the relative error to what o200k_base makes of the prompts in the tests.
_O200K = Tokenizer(
    (0.84, 0.26, 0.8, 1.2, -1.0, -1.0, 0.87, -0.9, 0.0, 0.1, 1.0, 0.2, 0.23, 0.27, 0.23, 0.59, 0.55, 1.0), 1.4
)
# To the greater of cl100k_base and Claude's published tokenizer. Claude's present one makes up to 1.35 times as many
# of the same text (Anthropic's "What's new in Claude Opus 4.7").
_OTHERS = Tokenizer(
    (0.95, 0.55, 0.8, 1.2, -0.98, -1.0, 0.82, -0.9, 0.0, 0.07, 1.0, 1.2, 0.56, 1.1, 1.7, 1.08, 1.28, 1.74), 1.4
)
# To Gemma 3's, which is Gemini's: each digit is a token.
_GEMINI = Tokenizer(
    (0.8, 0.37, 0.8, 1.2, 0.54, -1.0, 0.76, -0.9, 0.11, 0.1, 1.0, 0.2, 0.2, 0.31, 0.2, 0.5, 0.5, 0.5), 1.4
)
_OLDER = ("gpt-4-", "gpt-4", "gpt-3.5", "gpt-35", "text-embedding", "davinci", "babbage")
_NEWER = ("gpt-4o", "gpt-4.1", "gpt-4.5")

# Members that hold what a model made, in the words of all providers.
_TEXTS = re.compile(
    rb'"(?:content|t(?:ext|hinking)|delta|arguments|partial_json|re(?:asoning(?:_content)?|fusal))"'
    rb'\s{0,8}:\s{0,8}"([^"\\]*+(?:\\.[^"\\]*+)*)',  # which the sample may end within
    re.DOTALL,
)


class PromptEstimate(NamedTuple):
    """Tokens of input.

    @ivar likely: As many as there probably are; C{most}: as many as there hardly ever are more of.
    """

    likely: int
    most: int


def estimate_prompt(
    content: RequestContent, size: int, provider: str, model: str, most_of_media: MediaTokens = _MEDIA
) -> PromptEstimate:
    """How many tokens a request's input probably is.

    @param size: Bytes of its body, by which it goes where that could not be read: no token is shorter than a byte.
    @param provider: Its name in genai-prices, or C{""}.
    @param most_of_media: What media count for at most.
    """
    if content.form == "none":
        return PromptEstimate(0, 0)
    if content.form == "unknown" or not content.complete:
        window = context_window(provider, model)
        return PromptEstimate(min(tokens(size), window), min(max(size, content.size), window))
    if not content.media and not content.unseen_media:
        return estimate_text(content.text, provider, model)
    tokenizer, window = _text_rules(provider, model)
    text = text_tokens(content.text, tokenizer)
    likely, most = media.tokens(content.media, content.unseen_media, provider, model, most_of_media)
    most += text * tokenizer.margin + RESERVE_TOKENS
    return PromptEstimate(min(round(text + likely), window), min(round(most), window))


def estimate_text(text: TextMeasure, provider: str, model: str) -> PromptEstimate:
    """As L{estimate_prompt}, for a request that holds nothing but text."""
    tokenizer, window = _text_rules(provider, model)
    count = text_tokens(text, tokenizer)
    likely, most = round(count), round(count * tokenizer.margin + RESERVE_TOKENS)
    return _new(PromptEstimate, (likely if likely < window else window, most if most < window else window))


@lru_cache(4096)  # only clients that make up models get there
def _text_rules(provider: str, model: str) -> tuple[Tokenizer, int]:
    """How a model's provider counts text, and how many tokens the model can read."""
    return tokenizer_of(provider, model), context_window(provider, model)


@lru_cache(4096)  # only clients that make up models get there
def context_window(provider: str, model: str) -> int:
    """Tokens of input that a model can read, going by genai-prices.

    @param provider: The provider's name there.
    """
    everyone = get_snapshot().providers
    known = next((each for each in everyone if each.id == provider), None)
    found = known.find_model(model, all_providers=everyone) if known is not None and model else None
    return (found.context_window if found is not None else None) or MAX_CONTEXT_TOKENS


def tokenizer_of(provider: str, model: str) -> Tokenizer:
    """How a model's provider counts text."""
    if provider == "google" and "claude" not in model:
        return _GEMINI
    if provider not in ("openai", "azure") or (model.startswith(_OLDER) and not model.startswith(_NEWER)):
        return _OTHERS
    return _O200K


def text_tokens(text: TextMeasure, tokenizer: Tokenizer) -> float:
    """How many tokens a text of so many characters of each kind probably is."""
    likely: float = sum(map(mul, text, tokenizer.rates))
    return likely if likely > 0.0 else 0.0


def tokens(size: float) -> int:
    """How many tokens so many bytes of text probably are."""
    return -(-int(size) // BYTES_PER_TOKEN)


def text_share(samples: Sequence[bytes]) -> float:
    """How much of a stream is text, going by these parts of it."""
    size = sum(map(len, samples))
    text = sum(len(b"".join(_TEXTS.findall(sample))) for sample in samples)
    return text / size if size else 0.0
