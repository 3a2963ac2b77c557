"""Pictures, speech and transcription: what they tell, and what they cost."""

from __future__ import annotations

import unittest

from llmproxy.simulator.formats import openai
from tests.unit.simulator.formats.call import call, dollars, events, spoken

SPEECH = {"model": "tts-1", "input": "one two three", "voice": "alloy"}


class ImagesTests(unittest.TestCase):
    def test_gpt_image_is_paid_by_tokens(self) -> None:
        asked = call("images/generations", {"model": "gpt-image-1", "prompt": "a b"}, counts={"image": 100})
        made = openai.reply(asked)
        self.assertEqual(spoken(made)["usage"]["input_tokens_details"], {"text_tokens": 2, "image_tokens": 100})
        self.assertEqual(dollars(made), (2 * 5 + 100 * 10 + 272 * 40) / 1e6)

    def test_dall_e_is_paid_by_the_picture_and_tells_nothing(self) -> None:
        made = openai.reply(call("images/generations", {"model": "dall-e-3", "prompt": "a", "n": 2, "quality": "hd"}))
        self.assertNotIn("usage", spoken(made))
        self.assertEqual(dollars(made), 0.16)


class VideosTests(unittest.TestCase):
    def test_by_the_second(self) -> None:
        made = openai.reply(call("videos", {"model": "sora-2-pro", "prompt": "a ship", "seconds": "8"}))
        self.assertEqual((spoken(made)["status"], dollars(made)), ("queued", 2.4))


class SpeechTests(unittest.TestCase):
    def test_tts_1_is_paid_by_characters(self) -> None:
        self.assertEqual(dollars(openai.reply(call("audio/speech", SPEECH))), 13 * 15 / 1e6)

    def test_later_models_tell_tokens_in_events(self) -> None:
        made = openai.reply(call("audio/speech", {**SPEECH, "model": "gpt-4o-mini-tts", "stream_format": "sse"}))
        told = events(made)[-1]["usage"]
        self.assertEqual(told, {"input_tokens": 3, "output_tokens": 60, "total_tokens": 63})
        self.assertEqual(dollars(made), (3 * 0.6 + 60 * 12) / 1e6)


class TranscriptionTests(unittest.TestCase):
    def test_whisper_is_paid_by_seconds(self) -> None:
        made = openai.reply(call("audio/transcriptions", {"file": "a.mp3", "model": "whisper-1"}))
        self.assertEqual(spoken(made)["usage"], {"type": "duration", "seconds": 9})
        self.assertEqual(dollars(made), 0.0009)

    def test_later_models_are_paid_by_tokens(self) -> None:
        form = {"file": "a.mp3", "model": "gpt-4o-transcribe", "stream": "true"}
        made = openai.reply(call("audio/transcriptions", form))
        self.assertEqual(events(made)[-1]["usage"]["input_token_details"], {"text_tokens": 0, "audio_tokens": 90})
        self.assertEqual(dollars(made), (90 * 6 + 2 * 10) / 1e6)
