"""Guessing at tokens, through the started daemon."""

from __future__ import annotations

from pathlib import Path

from tests.support.stack import MANAGEMENT, Stack


def test_guesses_are_held_back_and_nobody_else(tmp_path: Path) -> None:
    """After 20 wrong tokens the address is told to wait; the valid one still works there, and refusals are counted."""
    with Stack(tmp_path) as stack:
        guesses = [stack.ask("GET", "/v1/models", token=f"sk-lp-{n:043d}") for n in range(30)]
        assert [guess.status for guess in guesses] == [401] * 20 + [429] * 10
        assert 0 < int(guesses[-1].header("Retry-After") or 0) <= 60
        assert stack.ask("GET", "/v1/models").status == 200
        metrics = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
        assert 'llmproxy_refusals_total{api="openai",code="too_many_failures"} 10.0' in metrics
