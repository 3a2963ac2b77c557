"""OpenAI's API, which most servers speak: chat, responses, embeddings, speech, pictures, films, batches.

Facts: C{developers.openai.com/api/reference} and its price page C{developers.openai.com/api/docs/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import MediaTokens, Members, Operation, Units, unknown, whole_number, word

# Pictures: at most 85 + 8 x 170 tokens by tiles (gpt-4o), 1,536 patches x 2.46 (gpt-4.1-nano), 10,000 patches where
# the detail is "original" (gpt-5.4 and later); 2,500 covers all but the last and gpt-4o-mini, which counts its pictures
# 33 times at a 17th of the price. Guide "Images and vision", November 2026.
MEDIA = MediaTokens(image=2500, page=3000, audio_second=10, video_second=300)

CHAT = Operation(
    "chat",
    ("chat/completions",),
    takes_text=True,
    makes_text=True,
    maxima=(("max_completion_tokens",), ("max_tokens",)),
    choices=(("n",),),
    media=MEDIA,
)
RESPONSES = Operation(
    "responses",
    ("responses", "responses/compact"),
    takes_text=True,
    makes_text=True,
    maxima=(("max_output_tokens",),),
    media=MEDIA,
)


def spoken(model: str, members: Members) -> Units | None:
    """Speech is billed by the characters of its input; models that count tokens do not tell them."""
    said = members.get("input")
    return {"input_characters": len(said)} if model.startswith("tts-") and isinstance(said, str) else None


def pictured(model: str, members: Members) -> Units | None:
    """DALL-E bills each picture by size and quality; gpt-image bills tokens, of which there is no bound."""
    if not model.startswith("dall-e"):
        return None
    count = whole_number(members.get("n", 1))
    size, quality = word(members.get("size"), "1024x1024"), word(members.get("quality"), "standard")
    return None if count is None else {f"images_{quality}_{size}": max(count, 1)}


def filmed(model: str, members: Members) -> Units | None:
    """Films are billed by the second, by their size."""
    seconds = whole_number(members.get("seconds", 4))
    return None if seconds is None else {f"video_seconds_{word(members.get('size'), '720x1280')}": seconds}


OPERATIONS = (
    CHAT,
    Operation(
        "completions",
        ("completions",),
        takes_text=True,
        makes_text=True,
        maxima=(("max_tokens",),),
        choices=(("n",), ("best_of",)),
        media=MEDIA,
    ),
    RESPONSES,
    Operation("embeddings", ("embeddings",), takes_text=True),
    Operation("speech", ("audio/speech",), billed_by_request=spoken),
    Operation("transcription", ("audio/transcriptions", "audio/translations"), billed_by_request=unknown),
    Operation("images", ("images/generations", "images/edits", "images/variations"), billed_by_request=pictured),
    Operation("video", ("videos",), billed_by_request=filmed),
    Operation("video", ("videos/*/remix", "videos/edits", "videos/extensions"), billed_by_request=unknown),
    Operation("moderation", ("moderations",), free=True),
    Operation("batch", ("batches",), takes_model=False, billed_by_request=unknown),
    Operation("fine_tuning", ("fine_tuning/jobs",), billed_by_request=unknown),
    Operation("count", ("responses/input_tokens", "tokenize", "detokenize"), free=True),
    Operation(
        "storage",
        ("files", "uploads", "uploads/*/parts", "uploads/*/complete", "conversations", "conversations/*/items"),
        takes_model=False,
        free=True,
    ),
    Operation("cancel", ("cancel",), takes_model=False, free=True),
)
