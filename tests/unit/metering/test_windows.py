"""How much a model can read."""

from llmproxy.metering.windows import MAX_CONTEXT_TOKENS, context_window


def test_known_and_unknown() -> None:
    assert context_window("openai", "gpt-4o") == 128_000
    assert context_window("openai", "") == context_window("nobody", "x") == MAX_CONTEXT_TOKENS
