"""Pictures, sounds and documents, as the providers' pages count them."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.http.media_heads import Medium
from llmproxy.metering import media
from llmproxy.metering.dialects.operation import MediaTokens

MOST = MediaTokens(image=2500, page=3000, audio_second=32, video_second=300)


def tokens(medium: Medium, provider: str, model: str) -> tuple[float, float]:
    return media.tokens([medium], 0, provider, model, MOST)


class Pictures(TestCase):
    def test_openai(self) -> None:
        """The examples of the guide: 1,024 squared is 765 in gpt-4o, 2,048 by 4,096 is 1,105."""
        for size, right in (((1024, 1024), 765), ((2048, 4096), 1105)):
            self.assertEqual(tokens(Medium("image", 1, *size), "openai", "gpt-4o"), (right, right))
        self.assertEqual(tokens(Medium("image", 1, 1024, 1024), "openai", "gpt-4.1-mini")[1], 1024 * 1.62)
        self.assertEqual(tokens(Medium("image", 1, 1024, 1024), "openai", "gpt-4o-mini")[1], 2833 + 4 * 5667)

    def test_anthropic(self) -> None:
        """1,092 squared is 1,590 by the rule of 750 pixels a token."""
        self.assertTrue(1560 < tokens(Medium("image", 1, 1092, 1092), "anthropic", "claude-x")[0] < 1600)
        self.assertEqual(tokens(Medium("image", 1, 9000, 9000), "anthropic", "claude-x")[1], 4784)

    def test_google(self) -> None:
        self.assertEqual(tokens(Medium("image", 1, 300, 300), "google", "gemini-2.5-pro"), (258, 258))
        self.assertEqual(tokens(Medium("image", 1, 960, 540), "google", "gemini-3-pro")[0], 1120)

    def test_only_referred_to(self) -> None:
        likely, most = media.tokens([], 3, "openai", "gpt-4o", MOST)
        self.assertTrue(0 < likely <= most)

    def test_no_more_likely_than_most(self) -> None:
        for provider, model in (("openai", "gpt-4o"), ("anthropic", "claude"), ("google", "gemini-3"), ("", "x")):
            for size in ((0, 0), (1, 1), (100, 5000), (4000, 3000)):
                likely, most = tokens(Medium("image", 1, *size), provider, model)
                self.assertLessEqual(likely, most, (provider, size))


class Others(TestCase):
    def test_by_seconds_and_pages(self) -> None:
        self.assertEqual(tokens(Medium("audio", 1, seconds=60), "google", "gemini-3")[1], 1920)
        self.assertEqual(tokens(Medium("document", 150_000), "anthropic", "claude")[1], 3000 * 11)
        self.assertEqual(media.seconds([Medium("audio", 9, seconds=3), Medium("unknown", 2000)]), 4)
