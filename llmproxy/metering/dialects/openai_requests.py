"""What a request to OpenAI's API is billed for, and what of that its members bound: characters, pictures, films, tools.

Facts: C{developers.openai.com/api/reference} and the price page C{developers.openai.com/api/docs/pricing}, as of
November 2026; the prices in L{PRICES} were read in copies of that page.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy.metering.dialects.operation import MediaTokens, Members, Units, whole_number, word

# Pictures: at most 85 + 8 x 170 tokens by tiles (gpt-4o), 1,536 patches x 2.46 (gpt-4.1-nano), 10,000 patches where
# the detail is "original" (gpt-5.4 and later); 2,500 covers all but the last and gpt-4o-mini, which counts its pictures
# 33 times at a 17th of the price. Guide "Images and vision".
MEDIA = MediaTokens(image=2500, page=3000, audio_second=10, video_second=300)

# What the list of genai-prices has no price for: USD each, by model and unit. Price page, sections "Image generation",
# "Video" and "Audio" (the previews' page "gpt-4o-audio-preview"), and "Built-in tools": a search of the preview tool
# costs 25 dollars a thousand with models that do not reason, 10 with those that do.
PRICES: Mapping[str, Mapping[str, float]] = {
    "dall-e-3": {
        "images_standard_1024x1024": 0.04,
        "images_standard_1024x1792": 0.08,
        "images_standard_1792x1024": 0.08,
        "images_hd_1024x1024": 0.08,
        "images_hd_1024x1792": 0.12,
        "images_hd_1792x1024": 0.12,
    },
    "dall-e-2": {
        "images_standard_1024x1024": 0.02,
        "images_standard_512x512": 0.018,
        "images_standard_256x256": 0.016,
    },
    "sora-2": {"video_seconds_720x1280": 0.10, "video_seconds_1280x720": 0.10},
    "sora-2-pro": {
        "video_seconds_720x1280": 0.30,
        "video_seconds_1280x720": 0.30,
        "video_seconds_1024x1792": 0.50,
        "video_seconds_1792x1024": 0.50,
    },
    "gpt-4o-audio-preview*": {"input_audio_tokens": 40e-6, "output_audio_tokens": 80e-6},
    "gpt-4o-mini-audio-preview*": {"input_audio_tokens": 10e-6, "output_audio_tokens": 20e-6},
    "gpt-4o-search-preview*": {"web_search_previews": 0.025},
    "gpt-4o-mini-search-preview*": {"web_search_previews": 0.025},
    "gpt-5-search-api*": {"web_search_previews": 0.01},
    "gpt-4*": {"web_search_previews": 0.025},
    "gpt-5*": {"web_search_previews": 0.01},
    "gpt-6*": {"web_search_previews": 0.01},
    "o[0-9]*": {"web_search_previews": 0.01},
}

# Tokens of output of one picture at most: quality "high" by size (guide "Image generation", cost and latency), and 100
# for each partial picture.
_PICTURE_TOKENS = {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208, "auto": 6240}
_MAX_PICTURES_READ = 16
_PICTURE_READ_TOKENS = 6500
MAX_CALLS_PER_TOOL = 10  # of a tool, where a request sets no C{max_tool_calls}; models rarely make more than three

_UNITS_BY_TOOL = {
    "web_search": "web_searches",
    "web_search_preview": "web_search_previews",
    "file_search": "storage_searches",
    "code_interpreter": "code_executions",
    "shell": "code_executions",
    "image_generation": "image_generations",  # whose tokens have no bound
}


def speech_units(model: str, members: Members) -> Units | None:
    """Speech is billed by the characters of its input; models that count tokens do not tell them."""
    said = members.get("input")
    return {"input_characters": len(said)} if model.startswith("tts-") and isinstance(said, str) else None


def image_units(model: str, members: Members) -> Units | None:
    """DALL-E bills each picture by size and quality; all others bill tokens, which their responses report."""
    count = whole_number(members.get("n", 1))
    if not model.startswith("dall-e") or count is None:
        return None
    size = word(members.get("size"), "1024x1024")
    quality = "standard" if model == "dall-e-2" else word(members.get("quality"), "standard")
    return {f"images_{'standard' if quality == 'auto' else quality}_{size}": max(count, 1)}


def max_image_units(model: str, members: Members) -> Units | None:
    """The tokens of gpt-image's pictures are bounded by their size."""
    count, partial = whole_number(members.get("n", 1)), whole_number(members.get("partial_images", 0))
    made = _PICTURE_TOKENS.get(word(members.get("size"), "auto"))
    if not model.startswith(("gpt-image-1", "chatgpt-image")) or count is None or partial is None or made is None:
        return image_units(model, members)
    prompt = members.get("prompt")
    text = len(prompt.encode()) if isinstance(prompt, str) else 0
    read = _MAX_PICTURES_READ * _PICTURE_READ_TOKENS if "image" in members or "images" in members or not prompt else 0
    return {
        "input_tokens": text + read,
        "input_image_tokens": read,
        "output_tokens": max(count, 1) * made + 100 * partial,
    }


def video_units(model: str, members: Members) -> Units | None:
    """Films are billed by the second, by their size."""
    seconds = whole_number(members.get("seconds", 4))
    return None if seconds is None else {f"video_seconds_{word(members.get('size'), '720x1280')}": seconds}


def max_tool_calls(model: str, members: Members) -> Units | None:
    """Calls of the provider's own tools that a request allows, at most."""
    units: Units = {}
    if searches_always(model):
        units["web_search_previews"] = 1
    tools = members.get("tools")
    if not isinstance(tools, list):
        return units
    most = whole_number(members.get("max_tool_calls"))
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        name = next((name for name in _UNITS_BY_TOOL if kind == name or _is_dated(kind, name)), None)
        if name is not None:
            units[_UNITS_BY_TOOL[name]] = MAX_CALLS_PER_TOOL if most is None else most
    return units


def _is_dated(kind: object, name: str) -> bool:
    """Whether this is a version of a tool, such as C{web_search_preview_2025_03_11}."""
    return isinstance(kind, str) and kind.startswith(name + "_") and kind[len(name) + 1 :].replace("_", "").isdigit()


def searches_always(model: str) -> bool:
    """Whether every request to this model makes one web search (guide "Web search", search models)."""
    return "-search-preview" in model or "-search-api" in model
