"""What requests to OpenAI cost that say so themselves, and what they may cost at most."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.metering.dialects.registry import operation
from tests.unit.metering.dialects.answers import measured


@pytest.mark.parametrize(
    ("path", "members", "right"),
    [
        ("/v1/audio/speech", {"model": "tts-1", "input": "word " * 800}, 0.06),
        ("/v1/audio/speech", {"model": "tts-1-hd", "input": "word " * 800}, 0.12),
        ("/v1/audio/speech", {"model": "gpt-4o-mini-tts", "input": "word"}, None),
        ("/v1/images/generations", {"model": "dall-e-3"}, 0.04),
        ("/v1/images/generations", {"model": "dall-e-3", "quality": "hd", "size": "1024x1792", "n": 1}, 0.12),
        ("/v1/images/variations", {"model": "dall-e-2", "size": "512x512", "n": "4"}, 0.072),
        ("/v1/images/generations", {"model": "dall-e-3", "size": "9x9"}, None),
        ("/v1/images/generations", {"model": "gpt-image-1"}, None),
        ("/v1/videos", {"model": "sora-2", "seconds": "8", "size": "1280x720"}, 0.8),
        ("/v1/videos", {"model": "sora-2-pro", "seconds": 12, "size": "1792x1024"}, 6.0),
        ("/v1/audio/transcriptions", {"model": "whisper-1"}, None),
        ("/v1/fine_tuning/jobs", {"model": "gpt-4o"}, None),
        ("/v1/batches", {}, None),
        ("/v1/moderations", {"model": "omni-moderation-latest"}, 0.0),
        ("/v1/nobody/knows", {}, None),
    ],
)
def test_what_the_request_tells(path: str, members: dict[str, Any], right: float | None) -> None:
    """Where an answer tells no usage; what is not known is said to be, and never nothing."""
    used = measured(
        {"data": [{"url": "https://x.example"}]}, path=path, asked=members.get("model", ""), members=members
    )
    assert used.cost_usd == (None if right is None else pytest.approx(right))
    assert used.basis == ("unknown" if right is None and "9x9" not in str(members) else used.basis)
    assert used.basis in (("none",) if right == 0.0 else ("exact", "unknown"))


@pytest.mark.parametrize(
    ("path", "model", "members", "right"),
    [
        ("/v1/responses", "gpt-4.1", {"tools": [{"type": "web_search"}], "max_tool_calls": 3}, {"web_searches": 3}),
        (
            "/v1/responses",
            "gpt-4.1",
            {"tools": [{"type": "web_search_preview_2025_03_11"}]},
            {"web_search_previews": 10},
        ),
        ("/v1/responses", "gpt-4.1", {"tools": [{"type": "function", "name": "web_search"}]}, {}),
        ("/v1/chat/completions", "gpt-4o-search-preview", {}, {"web_search_previews": 1}),
        ("/v1/images/generations", "gpt-image-1", {"prompt": "abcd", "n": 2, "size": "1024x1024"}, None),
        ("/v1/images/generations", "gpt-image-9", {"prompt": "abcd"}, None),
    ],
)
def test_what_a_request_allows_at_most(path: str, model: str, members: dict[str, Any], right: Any) -> None:
    at_most = operation("openai", path.encode()).at_most
    assert at_most is not None
    found = at_most(model, members)
    if model == "gpt-image-1":
        assert found == {"input_tokens": 4, "input_image_tokens": 0, "output_tokens": 8320}
    else:
        assert found == right
