"""What the providers say that their models cost; kept by hand, apart from any list that the proxy uses.

Read in November 2026 on each provider's own page, US dollars, pay as you go:

  - OpenAI, "Pricing" and the pages of single models (developers.openai.com): standard, flex, priority and batch; web
    search 10 dollars (its preview 25 with models that do not reason) and file search 2.5 dollars a thousand calls; GPT
    Image by tokens, DALL-E by the picture, Sora by the second; whisper-1 0.006 dollars a minute; tts-1 by characters.
  - Anthropic, "Pricing" (platform.claude.com): cache writes 1.25 and 2 times the input, reads a tenth; batches half;
    web search 10 dollars a thousand; Sonnet 4.5 above 200,000 tokens of input twice, its output 1.5 times; "Fast mode"
    and "Data residency": C{inference_geo: us} is 1.1 times every price of tokens.
  - Google, "Gemini Developer API pricing" and "Optimization and inference" (ai.google.dev): flex and batch half;
    priority 1.75 to 2 times, 1.8 in the table; 2.5 Pro above 200,000 tokens; 35 dollars a thousand grounded prompts.
  - Mistral (mistral.ai), xAI (docs.x.ai), Groq (groq.com), Moonshot (platform.moonshot.ai), Amazon Bedrock
    (aws.amazon.com/bedrock/pricing; C{global.} profiles without the premium of regional ones), Azure OpenAI as OpenAI.
  - Ollama's own machine: what the example in docs/usage.md says that it costs its owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

Rates = Mapping[str, int]
"""Pico-dollars for one of each unit of L{llmproxy.simulator.use.Use}: a dollar a million is a million for each."""

PICO = 10**12
_SHARED = {"tool": "input", "reasoning": "output", "compaction_input": "input", "compaction_output": "output"}


class Price(NamedTuple):
    """What a model costs.

    @ivar tiers: Rates for work of another kind: C{flex}, C{priority}, C{batch}, C{fast}.
    @ivar above: Tokens of input beyond which C{long} holds for the whole request; 0: never.
    """

    rates: Rates
    tiers: Mapping[str, Rates] = MappingProxyType({})
    above: int = 0
    long: Rates = MappingProxyType({})


def rates(text: float = 0, cached: float | None = None, output: float = 0, **more: float) -> Rates:
    """From dollars for a million tokens or characters; for a single picture, search or second under its own name."""
    single = {name: more.pop(name) for name in _SINGLE if name in more}
    million = {"input": text, "output": output, "cached": text if cached is None else cached, **more}
    found = {name: int(Decimal(str(dollars)) * PICO / 10**6) for name, dollars in million.items()}
    found |= {name: int(Decimal(str(dollars)) * PICO) for name, dollars in single.items()}
    return found | {name: found[same] for name, same in _SHARED.items()}


_SINGLE = ("searches", "preview_searches", "file_searches", "grounded", "seconds", "pictures", "film", "pages")
_TOOLS = {"searches": 0.01, "file_searches": 0.0025}


def _openai(
    text: float, cached: float, output: float, preview: float = 0.025, **tiers: tuple[float, float, float]
) -> Price:
    tools = {**_TOOLS, "preview_searches": preview}
    others = {name: rates(*prices, **tools) for name, prices in tiers.items()}
    half = rates(text / 2, cached, output / 2)
    return Price(rates(text, cached, output, **tools), {"batch": half, **others})


def _claude(text: float, output: float) -> Rates:
    return rates(text, text / 10, output, written=text * 1.25, written_1h=text * 2, searches=0.01)


def _anthropic(text: float, output: float, above: int = 0, **tiers: tuple[float, float]) -> Price:
    others = {name: _claude(*prices) for name, prices in tiers.items()}
    long = _claude(text * 2, output * 1.5) if above else {}
    return Price(_claude(text, output), {"batch": _claude(text / 2, output / 2), **others}, above, long)


def _gemini(text: float, cached: float, output: float, **more: float) -> Price:
    def times(factor: float) -> Rates:
        dear = {name: dollars * (1 if name in _SINGLE else factor) for name, dollars in more.items()}
        return rates(text * factor, cached * factor, output * factor, **dear)

    return Price(times(1), {"flex": times(0.5), "batch": times(0.5), "priority": times(1.8)})


GPT_4O = _openai(2.5, 1.25, 10, priority=(4.25, 2.125, 17))
GPT_41 = _openai(2, 0.5, 8, priority=(3.5, 0.875, 14))

PRICES: Mapping[str, Mapping[str, Price]] = {
    "openai": {
        "gpt-4o": GPT_4O,
        "gpt-4o-mini": _openai(0.15, 0.075, 0.6, priority=(0.25, 0.125, 1)),
        "gpt-4.1": GPT_41,
        "gpt-4.1-mini": _openai(0.4, 0.1, 1.6, priority=(0.7, 0.175, 2.8)),
        "gpt-5": _openai(1.25, 0.125, 10, 0.01, flex=(0.625, 0.0625, 5), priority=(2.5, 0.25, 20)),
        "o3": _openai(2, 0.5, 8, 0.01, flex=(1, 0.25, 4), priority=(3.5, 0.875, 14)),
        "gpt-audio": Price(rates(2.5, None, 10, audio=32, audio_output=64)),
        "gpt-4o-audio-preview": Price(rates(2.5, None, 10, audio=40, audio_output=80)),
        "text-embedding-3-small": Price(rates(0.02)),
        "gpt-image-1": Price(rates(5, 1.25, 0, image=10, image_output=40)),
        "dall-e-3 standard 1024x1024": Price(rates(pictures=0.04)),
        "dall-e-3 standard 1024x1792": Price(rates(pictures=0.08)),
        "dall-e-3 hd 1024x1024": Price(rates(pictures=0.08)),
        "dall-e-3 hd 1024x1792": Price(rates(pictures=0.12)),
        "dall-e-2 standard 1024x1024": Price(rates(pictures=0.02)),
        "sora-2": Price(rates(film=0.1)),
        "sora-2-pro": Price(rates(film=0.3)),
        "tts-1": Price(rates(characters=15)),
        "tts-1-hd": Price(rates(characters=30)),
        "gpt-4o-mini-tts": Price(rates(0.6, None, 0, audio_output=12)),
        "whisper-1": Price(rates(seconds=0.0001)),
        "gpt-4o-transcribe": Price(rates(2.5, None, 10, audio=6)),
    },
    "anthropic": {
        "claude-sonnet-4-5": _anthropic(3, 15, above=200_000),
        "claude-haiku-4-5": _anthropic(1, 5),
        "claude-opus-4-1": _anthropic(15, 75),
        "claude-opus-4-8": _anthropic(5, 25, fast=(10, 50)),
    },
    "google": {
        "gemini-2.5-pro": Price(
            rates(1.25, 0.125, 10, grounded=0.035),
            {"batch": rates(0.625, 0.0625, 5), "flex": rates(0.625, 0.0625, 5), "priority": rates(2.25, 0.225, 18)},
            above=200_000,
            long=rates(2.5, 0.25, 15, grounded=0.035),
        ),
        "gemini-2.5-flash": _gemini(0.3, 0.03, 2.5, audio=1, cached_audio=0.1, image=0.3, grounded=0.035),
        "gemini-3.8-flash-tts": _gemini(0.5, 0.5, 9),
        "gemini-embedding-001": Price(rates(0.15)),
    },
    "mistral": {
        "mistral-large-2411": Price(rates(2, None, 6)),
        "mistral-small-latest": Price(rates(0.15, 0.015, 0.6)),
        "mistral-embed": Price(rates(0.1)),
        "mistral-ocr-2505": Price(rates(pages=0.001)),
    },
    "azure": {"gpt-4o": GPT_4O, "gpt-4.1": GPT_41, "text-embedding-3-small": Price(rates(0.02))},
    "bedrock": {
        "amazon.nova-pro-v1:0": Price(rates(0.8, 0.2, 3.2)),
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0": Price(_claude(3, 15)),
    },
    "xai": {"grok-4": Price(rates(3, 0.75, 15)), "grok-3-mini": Price(rates(0.3, 0.075, 0.5))},
    "groq": {"llama-3.3-70b-versatile": Price(rates(0.59, None, 0.79))},
    "moonshot": {"kimi-k2-0905-preview": Price(rates(0.6, 0.15, 2.5))},
    "ollama": {"llama3.2": Price(rates(0.05, None, 0.2))},
}
