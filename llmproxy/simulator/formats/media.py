"""OpenAI's pictures, films, speech and transcription: what is billed by other things than tokens of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import CREATED, SSE, Call, Reply, event, whole
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use

_BLOCK = b"\x00" * 512


def images(call: Call) -> Reply:
    """GPT Image reports tokens and is billed by them; DALL-E reports nothing and is billed by the picture."""
    call.need("prompt")
    model, many = str(call.body.get("model") or "dall-e-2"), int(call.body.get("n") or 1)
    data = [{"b64_json": "iVBORw0KGgo="}] * many
    if model.startswith("dall-e"):
        size, quality = call.body.get("size") or "1024x1024", call.body.get("quality") or "standard"
        size = "1024x1792" if size == "1792x1024" else size
        use = Use().but({"pictures": many, **call.counts})
        return whole({"created": CREATED, "data": data}).charged(bill("openai", f"{model} {quality} {size}", use))
    use = Use(input=count(call.body["prompt"]), image_output=272 * many).but(call.counts)
    details = {"text_tokens": use.input + use.cached, "image_tokens": use.image}
    told = {
        "input_tokens": use.prompt,
        "input_tokens_details": details,
        "output_tokens": use.completion,
        "total_tokens": use.prompt + use.completion,
    }
    return whole({"created": CREATED, "data": data, "usage": told}).charged(bill("openai", model, use))


def videos(call: Call) -> Reply:
    """A film that will be made: paid for by the second when it is asked for."""
    call.need("prompt")
    model, seconds = str(call.body.get("model") or "sora-2"), int(call.body.get("seconds") or 4)
    film = {"id": f"video_{call.digest[:24]}", "object": "video", "status": "queued", "seconds": str(seconds)}
    told = {**film, "model": model, "size": call.body.get("size") or "720x1280"}
    return whole(told).charged(bill("openai", model, Use(film=seconds)))


def speech(call: Call) -> Reply:
    """Sound: tts-1 is billed by characters, the later ones by tokens, which only the stream of events tells."""
    call.need("model", "input", "voice")
    model, text = str(call.body["model"]), str(call.body["input"])
    if model.startswith("tts-"):
        use = Use().but({"characters": len(text), **call.counts})
        return Reply(200, "audio/mpeg", pieces=[_BLOCK] * 4).charged(bill("openai", model, use))
    use = Use(input=count(text), audio_output=20 * count(text)).but(call.counts)
    charge = bill("openai", model, use)
    if call.body.get("stream_format") == "sse":
        return Reply(200, SSE, pieces=_speech_events(use)).charged(charge)
    return Reply(200, "audio/mpeg", pieces=[_BLOCK] * 4).charged(charge)


def _speech_events(use: Use) -> Iterator[bytes]:
    for _ in range(4):
        yield event({"type": "speech.audio.delta", "audio": "AAAA"})
    told = {"input_tokens": use.prompt, "output_tokens": use.completion, "total_tokens": use.prompt + use.completion}
    yield event({"type": "speech.audio.done", "usage": told})


def transcription(call: Call) -> Reply:
    """Text of a form's file: whisper-1 is billed by seconds, the later ones by tokens."""
    call.need("file", "model")
    model = str(call.body["model"])
    if model == "whisper-1":
        use = Use().but({"seconds": 9, **call.counts})
        told: dict[str, Any] = {"type": "duration", "seconds": use.seconds}
    else:
        use = Use(audio=90, output=call.text.tokens).but(call.counts)
        told = {
            "type": "tokens",
            "input_tokens": use.prompt,
            "input_token_details": {"text_tokens": use.input, "audio_tokens": use.audio},
            "output_tokens": use.completion,
            "total_tokens": use.prompt + use.completion,
        }
    charge = bill("openai", model, use)
    if call.body.get("stream") == "true" and model != "whisper-1":
        return Reply(200, SSE, pieces=_transcript_events(call, told)).charged(charge)
    return whole({"text": str(call.text), "usage": told}).charged(charge)


def _transcript_events(call: Call, told: dict[str, Any]) -> Iterator[bytes]:
    for piece in call.text:
        yield event({"type": "transcript.text.delta", "delta": piece})
    yield event({"type": "transcript.text.done", "text": str(call.text), "usage": told})
