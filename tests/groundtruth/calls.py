"""The calls: every dialect, every thing that is billed, in random amounts; what each is, not what it should cost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
BOUNDARY = "----ground-truth"


@dataclass
class Ask:
    """One call, with the requests that look at its result later.

    @ivar kind: What it is, for the table.
    @ivar use: What it is to consume, by the simulator's units.
    @ivar later: From the answer's JSON, the paths that are fetched afterwards, in order; twice each.
    """

    kind: str
    path: str
    body: Any
    use: dict[str, int]
    headers: dict[str, str] = field(default_factory=dict)
    later: Callable[[Any], Sequence[str]] | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    def fields(self, rng: random.Random) -> dict[str, str]:
        """With what the simulator is to do; one in four answers is compressed, one in three is cut anywhere."""
        kind = f"multipart/form-data; boundary={BOUNDARY}" if isinstance(self.body, bytes) else JSON
        fields = {"Content-Type": kind, "X-Sim-Events": str(rng.randint(1, 12)), **self.headers}
        if self.use:
            fields["X-Sim-Use"] = ", ".join(f"{unit}={count}" for unit, count in self.use.items())
        if rng.random() < 0.25:
            fields["X-Sim-Gzip"] = "1"
        if rng.random() < 0.33:
            fields["X-Sim-Split"] = str(rng.randint(1, 10**6))
        return fields


def form(**fields: str) -> bytes:
    """A form with a file in it."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
    parts.insert(1, 'Content-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n' + "sound " * 500)
    return "".join(f"--{BOUNDARY}\r\n{part}\r\n" for part in parts).encode() + f"--{BOUNDARY}--\r\n".encode()


def _counts(rng: random.Random, *units: str, most: int = 5000) -> dict[str, int]:
    return {unit: rng.randint(1, most) for unit in units}


_SAID = [{"role": "user", "content": "what does it cost"}]


def openai_chat(rng: random.Random) -> Ask:
    model = rng.choice(["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "o3"])
    kind, body, headers = "openai chat", {"model": model, "messages": _SAID}, {}
    if rng.random() < 0.3:
        kind, body["service_tier"] = "openai chat, tiers", rng.choice(["flex", "priority", "auto"])
    if rng.random() < 0.1:
        kind, headers["X-Sim-Tier"] = "openai chat, tiers", "default"
    return _streamed(rng, Ask(kind, "/openai/v1/chat/completions", body, _use(rng), headers))


def _use(rng: random.Random) -> dict[str, int]:
    units = rng.choice([("input", "output"), ("input", "cached", "output"), ("input", "cached", "output", "reasoning")])
    return _counts(rng, *units)


def _streamed(rng: random.Random, ask: Ask, asks: bool = True) -> Ask:
    """Half of them as a stream that tells its usage."""
    if rng.random() < 0.5:
        ask.kind += ", streamed"
        ask.body["stream"] = True
        if asks:
            ask.body["stream_options"] = {"include_usage": True}
    return ask


def openai_audio(rng: random.Random) -> Ask:
    model = rng.choice(["gpt-audio", "gpt-4o-audio-preview"])
    use = _counts(rng, "input", "output", "audio", "audio_output")
    return _streamed(
        rng, Ask(f"openai {model}", "/openai/v1/chat/completions", {"model": model, "messages": _SAID}, use)
    )


def responses(rng: random.Random) -> Ask:
    use, kind = _use(rng), "openai responses"
    body: dict[str, Any] = {"model": rng.choice(["gpt-4.1", "gpt-5", "o3"]), "input": "news?"}
    match rng.randint(0, 3):
        case 0:
            kind, body["tools"] = "openai responses, web search", [{"type": "web_search"}]
            use |= _counts(rng, "searches", most=4)
            if rng.random() < 0.3:
                kind, body["tools"] = "openai responses, search preview", [{"type": "web_search_preview"}]
                use["preview_searches"] = use.pop("searches")
        case 1:
            kind, body["tools"] = "openai responses, file search", [{"type": "file_search", "vector_store_ids": ["v"]}]
            use |= _counts(rng, "file_searches", most=4)
        case 2:
            kind, body["service_tier"] = "openai responses, tiers", rng.choice(["flex", "priority"])
    return _streamed(rng, Ask(kind, "/openai/v1/responses", body, use), asks=False)


def background(rng: random.Random) -> Ask:
    body = {"model": "o3", "input": "think", "background": True, "max_output_tokens": 20_000}
    use = _counts(rng, "input", "output", "reasoning")
    return Ask(
        "openai background",
        "/openai/v1/responses",
        body,
        use,
        later=lambda said: [f"/openai/v1/responses/{said['id']}"],
    )


def embeddings(rng: random.Random) -> Ask:
    body = {"model": "text-embedding-3-small", "input": "one two"}
    path = rng.choice(
        ["/openai/v1/embeddings", "/azure/openai/deployments/text-embedding-3-small/embeddings?api-version=1"]
    )
    return Ask("embeddings", path, body, _counts(rng, "input"))


def images(rng: random.Random) -> Ask:
    if rng.random() < 0.5:
        size, quality = rng.choice(["1024x1024", "1024x1792"]), rng.choice(["standard", "hd"])
        body = {"model": "dall-e-3", "prompt": "a ship", "size": size, "quality": quality}
        return Ask("openai dall-e", "/openai/v1/images/generations", body, {})
    if rng.random() < 0.5:
        use, content = _counts(rng, "input", "image", "image_output"), form(model="gpt-image-1", prompt="a ship")
        return Ask("openai gpt-image edits", "/openai/v1/images/edits", content, use)
    body = {"model": "gpt-image-1", "prompt": "a ship"}
    return Ask("openai gpt-image", "/openai/v1/images/generations", body, _counts(rng, "input", "image_output"))


def videos(rng: random.Random) -> Ask:
    model = rng.choice(["sora-2", "sora-2-pro"])
    body = {"model": model, "prompt": "a ship", "seconds": rng.choice(["4", "8", "12"]), "size": "1280x720"}
    return Ask("openai videos", "/openai/v1/videos", body, {})


def speech(rng: random.Random) -> Ask:
    model = rng.choice(["tts-1", "tts-1-hd", "gpt-4o-mini-tts"])
    body = {"model": model, "input": "sag wörtlich, was es kostet " * rng.randint(1, 20), "voice": "alloy"}
    kind = "openai speech by characters" if model.startswith("tts") else "openai speech by tokens"
    if model == "gpt-4o-mini-tts" and rng.random() < 0.5:
        kind, body["stream_format"] = "openai speech by tokens, events", "sse"
    return Ask(kind, "/openai/v1/audio/speech", body, {})


def transcription(rng: random.Random) -> Ask:
    path = "/openai/v1/audio/transcriptions"
    if rng.random() < 0.5:
        return Ask("openai whisper", path, form(model="whisper-1"), _counts(rng, "seconds", most=600))
    fields = {"model": "gpt-4o-transcribe", **({"stream": "true"} if rng.random() < 0.5 else {})}
    return Ask("openai transcription by tokens", path, form(**fields), _counts(rng, "audio", "output"))


def openai_batch(rng: random.Random) -> Ask:
    body = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    body["metadata"] = {"model": "gpt-4o"}
    return Ask(
        "openai batch", "/openai/v1/batches", body, _counts(rng, "input", "output"),
        later=lambda said: [
            f"/openai/v1/batches/{said['id']}",
            f"/openai/v1/files/{said['id'].replace('batch_', 'file-out_')}/content",
        ],
    )  # fmt: skip


ANTHROPIC = {"anthropic-version": "2023-06-01"}


def anthropic(rng: random.Random) -> Ask:
    body: dict[str, Any] = {"model": "claude-opus-4-8", "max_tokens": 9000, "messages": _SAID}
    kind, headers, use = "anthropic", dict(ANTHROPIC), _counts(rng, "input", "output")
    match rng.randint(0, 7):
        case 0:
            kind, use = "anthropic cache", use | _counts(rng, "cached", "written", "written_1h")
        case 1:
            kind, use = "anthropic web search", use | _counts(rng, "searches", most=4)
        case 2:
            kind, body["speed"] = "anthropic fast", "fast"
            if rng.random() < 0.3:
                headers["X-Sim-Tier"] = "standard"
        case 3:
            kind, body["inference_geo"] = "anthropic inference_geo", "us"
        case 4:
            kind, use = "anthropic compaction", use | _counts(rng, "compaction_input", "compaction_output")
        case 5:
            kind, body["model"] = "anthropic long context", "claude-sonnet-4-5"
            use["input"] += 250_000
        case 6:
            kind, headers["X-Sim-Style"] = "anthropic odd deltas", rng.choice(["zeros", "bare"])
            body["model"], use = "claude-haiku-4-5", use | _counts(rng, "cached", "written")
    return _streamed(rng, Ask(kind, "/anthropic/v1/messages", body, use, headers), asks=False)


def anthropic_batch(rng: random.Random) -> Ask:
    params = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": _SAID}
    body = {"requests": [{"custom_id": "one", "params": params}]}
    return Ask(
        "anthropic batch", "/anthropic/v1/messages/batches", body, _counts(rng, "input", "output"), dict(ANTHROPIC),
        later=lambda said: [f"/anthropic/v1/messages/batches/{said['id']}{rest}" for rest in ("", "/results")],
    )  # fmt: skip


def gemini(rng: random.Random) -> Ask:
    model, kind, use = "gemini-2.5-flash", "gemini", _counts(rng, "input", "output", "reasoning")
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "what does it cost"}]}]}
    match rng.randint(0, 6):
        case 0:
            kind, use = "gemini cache", use | _counts(rng, "cached")
        case 1:
            kind, use = "gemini audio", use | _counts(rng, "audio", "cached_audio")
        case 2:
            kind, body["serviceTier"] = "gemini tiers", rng.choice(["flex", "priority", "standard"])
            model = rng.choice(["gemini-2.5-flash", "gemini-3.8-flash-tts"])
        case 3:
            kind, model = "gemini long context", "gemini-2.5-pro"
            use["input"] += 250_000
        case 4:
            kind, use = "gemini tools and pictures", use | _counts(rng, "tool", "image")
        case 5:
            kind, use, body["tools"] = "gemini grounded", {**use, "grounded": 1}, [{"google_search": {}}]
    verb = rng.choice(["generateContent", "streamGenerateContent", "streamGenerateContent?alt=sse"])
    kind += ", streamed" if verb.startswith("stream") else ""
    return Ask(kind, f"/google/v1beta/models/{model}:{verb}", body, use)


def interactions(rng: random.Random) -> Ask:
    body = {"model": "gemini-2.5-flash", "input": "what does it cost"}
    use = _counts(rng, "input", "cached", "output", "reasoning", "tool")
    return _streamed(rng, Ask("gemini interactions", "/google/v1beta/interactions", body, use), asks=False)


def gemini_embedding(rng: random.Random) -> Ask:
    body = {"content": {"parts": [{"text": "one two three"}]}}
    return Ask("gemini embedding", "/google/v1beta/models/gemini-embedding-001:embedContent", body, {})


def gemini_as_openai(rng: random.Random) -> Ask:
    body = {"model": "gemini-2.5-flash", "messages": _SAID}
    use = _counts(rng, "input", "output", "reasoning")
    return _streamed(rng, Ask("gemini as openai", "/google/v1beta/openai/chat/completions", body, use))


def mistral(rng: random.Random) -> Ask:
    if rng.random() < 0.2:
        return Ask("mistral embeddings", "/mistral/v1/embeddings", {"model": "mistral-embed", "input": "a b"}, {})
    if rng.random() < 0.1:
        body = {"model": "mistral-ocr-2505", "document": {"type": "document_url", "document_url": "https://a/b.pdf"}}
        return Ask("mistral ocr", "/mistral/v1/ocr", body, _counts(rng, "pages", most=9))
    model = rng.choice(["mistral-large-2411", "mistral-small-latest"])
    use = _counts(rng, "input", "output") | (_counts(rng, "cached") if "small" in model else {})
    ask = Ask("mistral", "/mistral/v1/chat/completions", {"model": model, "messages": _SAID}, use)
    return _streamed(rng, ask, asks=False)


def azure(rng: random.Random) -> Ask:
    path = f"/azure/openai/deployments/{rng.choice(['gpt-4o', 'gpt-4.1'])}/chat/completions?api-version=2024-10-21"
    return _streamed(rng, Ask("azure", path, {"messages": _SAID}, _use(rng)))


def bedrock(rng: random.Random) -> Ask:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "what does it cost"}]}]}
    nova, claude = "amazon.nova-pro-v1:0", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
    verb = rng.choice(["converse", "converse-stream", "invoke", "invoke-with-response-stream"])
    model = claude if verb.startswith("invoke") else rng.choice([nova, claude])
    use = _counts(rng, "input", "output")
    if rng.random() < 0.5:
        use |= _counts(rng, "cached")
    if verb.startswith("invoke"):
        body |= {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9000}
    return Ask(f"bedrock {verb}", f"/bedrock/model/{model}/{verb}", body, use)


def others(rng: random.Random) -> Ask:
    style, model = rng.choice(
        [
            ("xai", "grok-4"),
            ("xai", "grok-3-mini"),
            ("groq", "llama-3.3-70b-versatile"),
            ("moonshot", "kimi-k2-0905-preview"),
        ]
    )
    use = _counts(rng, "input", "output") | (_counts(rng, "reasoning") if style == "xai" else {})
    use |= _counts(rng, "cached") if style != "groq" else {}
    ask = Ask(style, f"/{style}/v1/chat/completions", {"model": model, "messages": _SAID}, use, {"X-Sim-Style": style})
    return _streamed(rng, ask, asks=False)


def ollama(rng: random.Random) -> Ask:
    streamed, verb = rng.random() < 0.5, rng.choice(["chat", "generate"])
    said: dict[str, Any] = {"messages": _SAID} if verb == "chat" else {"prompt": "what does it cost"}
    body = {"model": "llama3.2", **said} | ({} if streamed else {"stream": False})
    return Ask("ollama" + ", streamed" * streamed, f"/ollama/api/{verb}", body, _counts(rng, "input", "output"))


KINDS: Sequence[tuple[Callable[[random.Random], Ask], int]] = (
    (openai_chat, 8), (openai_audio, 2), (responses, 6), (background, 2), (embeddings, 2), (images, 3), (speech, 3),
    (transcription, 3), (openai_batch, 1), (anthropic, 12), (anthropic_batch, 1), (gemini, 10), (gemini_embedding, 1),
    (interactions, 2), (videos, 1),
    (gemini_as_openai, 2), (mistral, 3), (azure, 3), (bedrock, 5), (others, 5), (ollama, 2),
)  # fmt: skip
"""Each kind, and how often it comes."""


def mixed(many: int, seed: int = 9) -> list[Ask]:
    """So many calls, each kind about as often as it should come, the same ones for the same seed."""
    rng = random.Random(seed)
    makers = rng.choices([maker for maker, _ in KINDS], [weight for _, weight in KINDS], k=many)
    return [maker(rng) for maker in makers]
