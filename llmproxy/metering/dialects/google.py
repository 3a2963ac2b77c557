"""Gemini's API and Vertex AI's: C{models/NAME:verb}.

Facts: C{ai.google.dev/api} and C{ai.google.dev/gemini-api/docs/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import MediaTokens, Operation, unknown

# Pictures: 258 tokens a tile (Gemini 2), up to 1,120 in high and 2,240 in ultra-high resolution (Gemini 3); sound 32 a
# second, films 263 to 300 a second, pages as pictures. Guides "Token counting" and "Media resolution", November 2026.
MEDIA = MediaTokens(image=2240, page=1120, audio_second=32, video_second=300)

_GENERATION = ("generationConfig", "generation_config")

GENERATE = Operation(
    "generate",
    ("*:generateContent", "*:streamGenerateContent"),
    takes_text=True,
    makes_text=True,
    maxima=tuple((config, name) for config in _GENERATION for name in ("maxOutputTokens", "max_output_tokens")),
    choices=tuple((config, name) for config in _GENERATION for name in ("candidateCount", "candidate_count")),
    media=MEDIA,
)

OPERATIONS = (
    GENERATE,
    Operation("embeddings", ("*:embedContent", "*:batchEmbedContents"), takes_text=True, media=MEDIA),
    Operation("count", ("*:countTokens", "*:computeTokens"), free=True),
    Operation("predict", ("*:predict", "*:predictLongRunning"), billed_by_request=unknown),
    Operation("batch", ("*:batchGenerateContent", "*:asyncBatchEmbedContent"), billed_by_request=unknown),
    # Anthropic's and Mistral's models on Vertex AI take those providers' own words.
    Operation(
        "raw",
        ("*:rawPredict", "*:streamRawPredict"),
        takes_text=True,
        makes_text=True,
        maxima=(("max_tokens",),),
        choices=(("n",),),
        media=MediaTokens(image=4784, page=4600),
    ),
    Operation(
        "interactions",
        ("interactions",),
        takes_text=True,
        makes_text=True,
        maxima=(("generation_config", "max_output_tokens"),),
        media=MEDIA,
    ),
    Operation("storage", ("files", "files:register", "fileSearchStores"), takes_model=False, free=True),
)
