"""Which provider a request is meant for."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import cast
from urllib.parse import unquote

from llmproxy.simulator.dialect import Dialect
from llmproxy.simulator.formats import anthropic, azure, bedrock, google, mistral, ollama, openai
from llmproxy.simulator.keys import Keys


def _dialect(module: ModuleType) -> Dialect:
    return cast(Dialect, module)


OPENAI, AZURE, ANTHROPIC, GOOGLE, MISTRAL = map(_dialect, (openai, azure, anthropic, google, mistral))
BEDROCK, OLLAMA = _dialect(bedrock), _dialect(ollama)
_PINNED = {"openai": OPENAI, "azure": AZURE, "anthropic": ANTHROPIC, "google": GOOGLE, "mistral": MISTRAL}


def route(path: str, fields: Mapping[str, str], keys: Keys) -> tuple[Dialect, str | None]:
    """The provider, and what follows the version in the path: C{None} where there is nothing.

    A first segment that is a provider's name decides; else the path does where it is one provider's alone; else
    the credential: Mistral's key, C{x-goog-api-key} and C{anthropic-version} mean what they say, all else is OpenAI.

    @param path: The raw path, without the query.
    """
    first, _, rest = path[1:].partition("/")
    if path.startswith("/openai/deployments/") or first == "azure":
        return AZURE, _after(path, "/openai/")
    if first in ("model", "bedrock"):
        return BEDROCK, _after(path, "/model/")
    if first in ("api", "ollama"):
        return OLLAMA, _after(path, "/api/")
    if first in _PINNED:
        return _PINNED[first], _versioned("/" + rest)
    return _by_request(path, fields, keys), _versioned(path)


def _by_request(path: str, fields: Mapping[str, str], keys: Keys) -> Dialect:
    called = path.startswith("/v1/models/") and ":" in unquote(path)
    if path.startswith("/v1beta/") or called or "x-goog-api-key" in fields:
        return GOOGLE
    if path.startswith("/v1/messages") or "anthropic-version" in fields:
        return ANTHROPIC
    key = fields.get("authorization", "").removeprefix("Bearer ")
    return MISTRAL if keys.knows("mistral", key) else OPENAI


def _versioned(path: str) -> str | None:
    return _after(path, "/v1/") if path.startswith("/v1/") else _after(path, "/v1beta/")


def _after(path: str, marker: str) -> str | None:
    _, found, rest = path.partition(marker)
    return unquote(rest) if found else None
