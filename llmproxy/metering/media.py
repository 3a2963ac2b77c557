"""How many tokens pictures, sounds, films and documents are, as the providers' pages say.

OpenAI, "Images and vision", calculating costs: 32-pixel patches (at most 1,536, times a factor of the model) or
512-pixel tiles of what was scaled into 2,048 by 768. Anthropic, "Vision": width times height through 750, at most 1,568
tokens, 4,784 for models that see in high resolution. Google, "Token counting" and "Media resolution": tiles of 768
pixels at 258 tokens up to Gemini 2.5, 1,120 a picture from Gemini 3 on (2,240 at the highest), 32 tokens a second of
sound, 263 a second of film at one frame, 560 a page. Anthropic, "PDF support": 1,500 to 3,000 tokens of text a page,
and its picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from llmproxy.http.media_heads import LOWEST_RATES, Medium
from llmproxy.metering.dialects.operation import MediaTokens

# The most that one picture is with providers whose rule is not known; and the usual.
_MOST_OF_OTHERS = 4_784
_USUAL_PICTURE = 1_500
_PAGE_TOKENS = 2_000
_PAGE_BYTES, _LEAST_PAGE_BYTES = 60_000, 15_000  # of a PDF
_USUAL_SECONDS_SHARE = 0.25  # sounds are seldom sent at the lowest rate there is


def tokens(found: Sequence[Medium], unseen: int, provider: str, model: str, most: MediaTokens) -> tuple[float, float]:
    """What they probably are, and what they are at most.

    @param unseen: Pictures that are only referred to.
    @param most: What one counts for at most.
    """
    if not found and not unseen:
        return 0, 0
    each = [_medium(medium, provider, model, most) for medium in found]
    unknown = _picture(0, 0, provider, model, most)
    return sum(likely for likely, _ in each) + unseen * unknown[0], sum(most for _, most in each) + unseen * unknown[1]


def seconds(found: Sequence[Medium]) -> float:
    """How long sounds last at most, one after the other."""
    return sum(medium.seconds or medium.size / LOWEST_RATES[b""] for medium in found)


def _medium(medium: Medium, provider: str, model: str, most: MediaTokens) -> tuple[float, float]:
    if medium.kind == "image":
        return _picture(medium.width, medium.height, provider, model, most)
    if medium.kind in ("audio", "video"):
        longest = medium.seconds * (most.audio_second if medium.kind == "audio" else most.video_second)
        return longest * _USUAL_SECONDS_SHARE, longest
    if medium.kind == "document":
        return _PAGE_TOKENS * (1 + medium.size // _PAGE_BYTES), most.page * (1 + medium.size // _LEAST_PAGE_BYTES)
    return medium.size / 3, medium.size  # some other text in base64: a document in plain text


def _picture(width: int, height: int, provider: str, model: str, most: MediaTokens) -> tuple[float, float]:
    if provider == "google" or model.startswith("gemini"):
        return _google(width, height, model)
    if provider in ("anthropic", "aws") or "claude" in model:
        return _anthropic(width, height)
    if provider in ("openai", "azure") or model.startswith(("gpt-", "o1", "o3", "o4", "chatgpt")):
        if width:
            exact = _openai(width, height, model)
            return exact, exact
        return _openai(1024, 1536, model), max(_openai(2048, 768, model), float(most.image))
    if not width:
        return _USUAL_PICTURE, max(most.image, _MOST_OF_OTHERS)
    return min(width * height / 750, 1_600), min(width * height / 400 + 100, _MOST_OF_OTHERS)


def _anthropic(width: int, height: int) -> tuple[float, float]:
    if not width:
        return 1_568, 4_784
    exact = ceil(width * height / 750)
    return min(exact, 1_568), min(exact + 4, 4_784)


def _google(width: int, height: int, model: str) -> tuple[float, float]:
    if not model.startswith(("gemini-1", "gemini-2")):
        return 1_120, 2_240
    if width and width <= 384 and height <= 384:
        return 258, 258
    tiles = ceil(width / 768) * ceil(height / 768) if width else 4
    return 258 * min(tiles, 4), 258 * min(max(tiles, 1), 16)


# Base and tile of models that count in tiles; patches times a factor for those that count so.
_TILES = (("gpt-4o-mini", (2833, 5667)), ("gpt-5", (70, 140)), ("o1", (75, 150)), ("o3", (75, 150)))
_PATCHES = (
    ("gpt-5-mini", 1.62), ("gpt-5-nano", 2.46), ("gpt-4.1-mini", 1.62), ("gpt-4.1-nano", 2.46), ("o4-mini", 1.72),
)  # fmt: skip
_MAX_PATCHES = 1536


def _openai(width: int, height: int, model: str) -> float:
    for name, factor in _PATCHES:
        if model.startswith(name):
            return min(ceil(width / 32) * ceil(height / 32), _MAX_PATCHES) * factor
    base, tile = next((cost for name, cost in _TILES if model.startswith(name)), (85, 170))
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return base + tile * ceil(width * scale / 512) * ceil(height * scale / 512)
