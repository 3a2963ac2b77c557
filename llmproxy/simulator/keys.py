"""The keys that the simulator knows, as a provider would know the ones it has issued."""

from __future__ import annotations

from collections.abc import Iterable

PROVIDERS = ("openai", "anthropic", "google", "mistral", "azure", "bedrock", "ollama")


class Keys:
    """Each provider's keys; C{sk-sim-openai} and so on unless others are given for that provider."""

    def __init__(self, given: Iterable[tuple[str, str]] = ()) -> None:
        self._keys: dict[str, set[str]] = {}
        for provider, key in given:
            self._keys.setdefault(provider, set()).add(key)
        for provider in PROVIDERS:
            self._keys.setdefault(provider, {f"sk-sim-{provider}"})

    def knows(self, provider: str, key: str | None) -> bool:
        return key in self._keys[provider]


def parse(text: str) -> tuple[str, str]:
    """Provider and key in C{openai=sk-…}; raises L{ValueError} with what was meant."""
    provider, equals, key = (part.strip() for part in text.partition("="))
    if provider not in PROVIDERS or not equals or not key:
        raise ValueError(f'"{text}" is not PROVIDER=KEY, with one of {", ".join(PROVIDERS)}')
    return provider, key


def parse_file(text: str) -> list[tuple[str, str]]:
    """One C{PROVIDER=KEY} a line; empty lines and those that start with C{#} say nothing."""
    lines = (line.strip() for line in text.splitlines())
    return [parse(line) for line in lines if line and not line.startswith("#")]
