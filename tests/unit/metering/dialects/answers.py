"""Measures answers as the daemon does, for tests of the dialects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.meter import Meter, dialect
from llmproxy.metering.prices import OwnPrice, Prices
from llmproxy.model import Usage

NOW = 1_794_992_800.0  # in November 2026
PRICES = Prices()


def measured(
    said: Any,
    provider: str = "openai",
    path: str = "/v1/chat/completions",
    *,
    asked: str = "",
    members: Mapping[str, Any] | None = None,
    own: Iterable[OwnPrice] = (),
    lines: Iterable[bytes] = (),
    kind: str = "",
    piece: int = 0,
) -> Usage:
    """What an answer used.

    @param said: An answer; a list: the events of a stream; C{bytes} as they are.
    @param kind: The media type, where it is not that of what is C{said}.
    @param piece: Bytes that come at a time; 0 for all at once.
    """
    if isinstance(said, bytes):
        body = said
    elif isinstance(said, list):
        end = "\n" if "ndjson" in kind else "\n\n"
        body = "".join(("" if "ndjson" in kind else "data: ") + json.dumps(each) + end for each in said).encode()
    else:
        body = json.dumps(said).encode()
    kind = kind or ("text/event-stream" if isinstance(said, list) else "application/json")
    prices = Prices(own) if own else PRICES
    meter = Meter(dialect("api", provider, prices, path.encode()), [b"Content-Type: " + kind.encode(), *lines])
    for start in range(0, len(body), piece or max(len(body), 1)):
        meter.feed(body[start : start + (piece or len(body))])
    return meter.measured(
        asked=asked, given=lambda: PromptEstimate(100, 400), complete=True, at=NOW, members=members or {}
    )


def counts(usage: Usage) -> tuple[int, int, int, int]:
    """Input, what of it was cached, what was written, output."""
    return usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.output_tokens
