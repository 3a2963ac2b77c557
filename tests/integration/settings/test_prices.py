"""What the fields of C{prices} change: a model for each, and its cost in the event of a request."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.settings_stack import PLAIN, SettingsStack
from tests.support.stack import eventually

USUAL = {"input": 1.0, "output": 10.0}  # USD for a million tokens
PRICES: list[dict[str, Any]] = [
    {"model": "usual", **USUAL},
    {"model": "dear-input", **USUAL, "input": 7.0},
    {"model": "dear-output", **USUAL, "output": 70.0},
    {"model": "cached", **USUAL, "cached": 0.1},
    {"model": "written", **USUAL, "cache_write": 3.0},
    {"model": "heard", **USUAL, "input_audio": 20.0},
    {"model": "spoken", **USUAL, "output_audio": 80.0},
    {"model": "each", **USUAL, "per_request": 0.5},
    {"model": "searching", **USUAL, "units": {"web_searches": 0.5}},
    {"model": "of-one-api", "api": "claude", **USUAL},
    {"model": "by-a-glob-*", **USUAL},
]
INPUT, OUTPUT = 1000, 100
TEXT = (INPUT * 1 + OUTPUT * 10) / 1e6
numbers = itertools.count()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SettingsStack]:
    with SettingsStack(tmp_path_factory.mktemp("prices"), {"claude": {"provider": "anthropic"}}, prices=PRICES) as run:
        yield run


def cost(stack: SettingsStack, model: str, api: str = PLAIN, **use: int) -> float | None:
    """USD for a request with so many tokens (1000 and 100 where nothing is said), as its event says."""
    consumed = {"input": INPUT, "output": OUTPUT, **use}
    body = {"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": "a"}]}
    path = f"/{api}/v1/" + ("messages" if api == "claude" else "chat/completions")
    number = f"priced-{next(numbers)}"
    steered = {
        "Content-Type": "application/json",
        **({"anthropic-version": "2023-06-01"} if api == "claude" else {}),
        "X-Request-ID": number,
        "X-Sim-Use": ", ".join(f"{unit}={count}" for unit, count in consumed.items()),
    }
    assert stack.ask("POST", path, json.dumps(body).encode(), steered).status == 200
    (event,) = eventually(lambda: [each for each in stack.request_events() if each["request_id"] == number])
    found = event["cost_usd"]
    return None if found is None else float(found)


def test_input_and_output(stack: SettingsStack) -> None:
    assert cost(stack, "usual") == pytest.approx(TEXT)
    assert cost(stack, "dear-input") == pytest.approx(TEXT + INPUT * 6 / 1e6)
    assert cost(stack, "dear-output") == pytest.approx(TEXT + OUTPUT * 60 / 1e6)


def test_cached_input(stack: SettingsStack) -> None:
    assert cost(stack, "usual", input=400, cached=600) == pytest.approx(TEXT)
    assert cost(stack, "cached", input=400, cached=600) == pytest.approx(TEXT - 600 * 0.9 / 1e6)


def test_written_input(stack: SettingsStack) -> None:
    assert cost(stack, "usual", "claude", input=400, written=600) == pytest.approx(TEXT)
    assert cost(stack, "written", "claude", input=400, written=600) == pytest.approx(TEXT + 600 * 2 / 1e6)


def test_sound(stack: SettingsStack) -> None:
    assert cost(stack, "usual", input=600, audio=400) == pytest.approx(TEXT)
    assert cost(stack, "heard", input=600, audio=400) == pytest.approx(TEXT + 400 * 19 / 1e6)
    assert cost(stack, "spoken", output=50, audio_output=50) == pytest.approx(TEXT + 50 * 70 / 1e6)


def test_each_request(stack: SettingsStack) -> None:
    assert cost(stack, "each") == pytest.approx(TEXT + 0.5)


def test_units(stack: SettingsStack) -> None:
    assert cost(stack, "searching", "claude", searches=3) == pytest.approx(TEXT + 1.5)


def test_whose_price_it_is(stack: SettingsStack) -> None:
    """Of the API and the model that it names, and of nothing else."""
    assert cost(stack, "of-one-api", "claude") == pytest.approx(TEXT)
    assert cost(stack, "of-one-api", PLAIN) is None
    assert cost(stack, "by-a-glob-or-so") == pytest.approx(TEXT)
    assert cost(stack, "unheard-of") is None
