"""What of a LiteLLM set-up can be taken over, read from its config.yaml and its list of keys; pure.

The files' formats: docs.litellm.ai, "All settings" of the proxy, and C{GET /key/list?return_full_object=true}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmproxy.cli.client import printable
from llmproxy.config import yaml
from llmproxy.config.problems import Path, Problem, SettingsError, dotted

# LiteLLM's names of providers, with ours, where a provider is reached by default, and what its clients call.
_CHAT = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/models")
_OPENAI = (
    *_CHAT,
    *("/v1/images/generations", "/v1/images/edits", "/v1/moderations"),
    *("/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations"),
)
_AZURE = ("chat/completions", "completions", "embeddings", "images/generations", "audio/speech", "audio/transcriptions")
_PROVIDERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "openai": ("openai", "https://api.openai.com", _OPENAI),
    "text-completion-openai": ("openai", "https://api.openai.com", _OPENAI),
    "anthropic": (
        "anthropic",
        "https://api.anthropic.com",
        ("/v1/messages", "/v1/messages/count_tokens", "/v1/models"),
    ),
    "gemini": ("google", "https://generativelanguage.googleapis.com", ("/v1beta/models", "/v1beta/models/*")),
    "mistral": ("mistral", "https://api.mistral.ai", ("/v1/chat/completions", "/v1/embeddings", "/v1/models")),
    "azure": ("azure", "", tuple(f"/openai/deployments/*/{operation}" for operation in _AZURE)),
    "groq": ("generic", "https://api.groq.com/openai", _CHAT),
    "deepseek": ("generic", "https://api.deepseek.com", ("/v1/chat/completions", "/v1/models")),
    "openrouter": ("generic", "https://openrouter.ai/api", ("/v1/chat/completions", "/v1/models")),
    "xai": ("generic", "https://api.x.ai", _CHAT),
    "hosted_vllm": ("generic", "", _CHAT),
}
_OWN_CREDENTIALS = ("bedrock", "vertex_ai", "vertex_ai_beta", "sagemaker")
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_NO_COUNTERPART = "it has no counterpart here"
_AS_THEY_ARE = "requests pass as they are; nothing is added to them"
_OTHER_PROVIDER = "a request is never sent to another provider than the one that it names"
_EVENTS = "see events.sinks in the settings"
_REDIS = "see redis.url in the settings"
_SAME_API = "its endpoints are an API's as all others: add them to allowed_endpoints"
_BUDGET = "a group's budget holds for all projects in it: llmproxy group create --budget-usd"
_WHY = {
    "router_settings": "requests go to the provider that their path names; nothing is routed",
    "router_settings.redis_host": _REDIS,
    "router_settings.redis_password": _REDIS,
    "router_settings.redis_port": _REDIS,
    "router_settings.redis_url": _REDIS,
    "router_settings.num_retries": "see apis.NAME.retries in the settings",
    "router_settings.timeout": "see apis.NAME.timeouts in the settings",
    "environment_variables": "set them in the environment of the daemon",
    "files_settings": _SAME_API,
    "finetune_settings": _SAME_API,
    "litellm_settings.fallbacks": _OTHER_PROVIDER,
    "litellm_settings.context_window_fallbacks": _OTHER_PROVIDER,
    "litellm_settings.content_policy_fallbacks": _OTHER_PROVIDER,
    "litellm_settings.default_fallbacks": _OTHER_PROVIDER,
    "litellm_settings.num_retries": "see apis.NAME.retries in the settings",
    "litellm_settings.request_timeout": "see apis.NAME.timeouts in the settings",
    "litellm_settings.max_budget": _BUDGET,
    "litellm_settings.budget_duration": _BUDGET,
    "litellm_settings.telemetry": "nothing is sent to anybody",
    "litellm_settings.cache": "see cache in the settings; HTTP decides what may be reused",
    "litellm_settings.cache_params": "see cache in the settings; HTTP decides what may be reused",
    "litellm_settings.callbacks": _EVENTS,
    "litellm_settings.success_callback": _EVENTS,
    "litellm_settings.failure_callback": _EVENTS,
    "litellm_settings.default_team_settings": "teams are projects; events of all go to the same sinks",
    "litellm_settings.drop_params": "requests pass as they are",
    "general_settings.master_key": "the daemon makes a management token of its own",
    "general_settings.database_url": "see store.url in the settings; LiteLLM's tables are not read",
    "general_settings.database_connection_pool_limit": "see store in the settings",
    "general_settings.pass_through_endpoints": "each target is an API: add it to apis, its path to allowed_endpoints",
}
_TAKEN_PARAMETERS = ("model", "api_base", "base_url", "api_key")


@dataclass(frozen=True, slots=True)
class ImportNote:
    """One entry of the source.

    @ivar line: In its file, from 1; 0 where a line means nothing.
    @ivar taken: Whether it is in the result; C{detail} says as what, or why not.
    """

    file: str
    line: int
    entry: str
    taken: bool
    detail: str


@dataclass
class ImportedApi:
    """An API for the settings.

    @ivar models: What was listed for it, as the provider calls it.
    @ivar variables: Of the environment, where LiteLLM took its key from.
    """

    provider: str
    base_url: str
    endpoints: tuple[str, ...]
    models: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)


@dataclass
class LiteLLMImport:
    """What was taken, and what became of each entry."""

    apis: dict[str, ImportedApi] = field(default_factory=dict)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    notes: list[ImportNote] = field(default_factory=list)


def read_config(text: str, file: str, result: LiteLLMImport) -> None:
    """Read a config.yaml.

    @raise SettingsError: It is no YAML, or no mapping.
    """
    document = yaml.read(text, file, {})
    if not isinstance(document.tree, dict):
        no_mapping = Problem.at(document.place(()), (), "must be a mapping, as LiteLLM's config.yaml is")
        raise SettingsError(document.problems or [no_mapping])

    def note(path: Path, taken: bool, detail: str) -> None:
        result.notes.append(ImportNote(file, document.place(path).line, dotted(path), taken, detail))

    for problem in document.problems:
        result.notes.append(ImportNote(file, problem.line, problem.path, False, problem.message))
    for section, value in document.tree.items():
        if section == "model_list" and isinstance(value, list):
            for index, entry in enumerate(value):
                for path, taken, detail in _model(entry, result.apis):
                    note(("model_list", index, *path), taken, detail)
        elif isinstance(value, dict):
            for key in value:
                why = _WHY.get(f"{section}.{key}") or _WHY.get(section, _NO_COUNTERPART)
                note((section, key), False, why)
        else:
            note((section,), False, _WHY.get(section, _NO_COUNTERPART))


def _model(entry: Any, apis: dict[str, ImportedApi]) -> Iterator[tuple[Path, bool, str]]:
    """What became of one model: where in it, whether it was taken, and as what or why not."""
    parameters = entry.get("litellm_params") if isinstance(entry, dict) else None
    if not isinstance(parameters, dict) or not isinstance(parameters.get("model"), str):
        yield (), False, "it names no litellm_params.model"
        return
    kind, slash, model = str(parameters["model"]).partition("/")
    kind, model = (kind, model) if slash else ("openai", kind)
    if not model.strip():
        yield ("litellm_params", "model"), False, "it names no model"
        return
    known = _PROVIDERS.get(kind)
    if known is None:
        yield ("litellm_params", "model"), False, _unknown(kind)
        return
    provider, usual, endpoints = known
    given = parameters.get("api_base") or parameters.get("base_url")
    if (given is not None and (not isinstance(given, str) or _VARIABLE.match(given))) or not (given or usual):
        yield ("litellm_params", "api_base"), False, "the address is not in the file; write the API's base_url yourself"
        return
    name = _api(apis, kind, provider, _base_url(str(given or usual)), endpoints, own=given is not None)
    api = apis[name]
    if model not in api.models:
        api.models.append(model)
    yield (), True, f"model {model} of the API {name}"
    if entry.get("model_name") not in (None, model, f"{kind}/{model}"):
        yield ("model_name",), False, f"models are not renamed: clients ask for {model}"
    yield from _key(parameters.get("api_key"), api)
    for key in [key for key in parameters if key not in _TAKEN_PARAMETERS]:
        yield ("litellm_params", key), False, _parameter(key)
    for key in [key for key in entry if key not in ("model_name", "litellm_params")]:
        yield (key,), False, _NO_COUNTERPART


def _unknown(kind: str) -> str:
    if kind in _OWN_CREDENTIALS:
        return f"{kind} takes credentials of its own, not a key: write the API yourself"
    return f"{kind} is not known here: where it takes requests as they are, write the API yourself"


def _key(key: Any, api: ImportedApi) -> Iterator[tuple[Path, bool, str]]:
    """Where a provider key is; a key that stands in the file is not repeated."""
    if key is None:
        return
    variable = _VARIABLE.fullmatch(str(key))
    if variable is None:
        yield ("litellm_params", "api_key"), False, "a key is not taken from a file; use project create --api-key"
        return
    if variable[1] not in api.variables:
        api.variables.append(variable[1])
    yield ("litellm_params", "api_key"), True, f"--api-key …=env:{variable[1]}"


def _parameter(key: str) -> str:
    if key in ("rpm", "tpm", "max_parallel_requests"):
        return "limits belong to APIs (apis.NAME.limits), projects and tokens, not to models"
    if key in ("input_cost_per_token", "output_cost_per_token"):
        return "see prices in the settings, in USD for a million tokens"
    if key in ("timeout", "stream_timeout"):
        return "see apis.NAME.timeouts in the settings; there is none for a model"
    if key == "max_retries":
        return "see apis.NAME.retries in the settings; there is none for a model"
    if key == "api_version":
        return "clients send it, as api-version in their requests"
    return _AS_THEY_ARE


def _base_url(url: str) -> str:
    """Clients' paths begin with C{/v1} here, which LiteLLM has in its address."""
    return re.sub(r"/v1/?$", "", url).rstrip("/")


def _api(
    apis: dict[str, ImportedApi], kind: str, provider: str, url: str, endpoints: tuple[str, ...], *, own: bool
) -> str:
    """The name of the API at this address, added where it is not there yet."""
    for name, api in apis.items():
        if (api.provider, api.base_url) == (provider, url):
            return name
    if own and kind in ("openai", "text-completion-openai") and url != _PROVIDERS["openai"][1]:
        provider = "generic"  # vLLM, Ollama and others that speak OpenAI's format
        for name, api in apis.items():
            if (api.provider, api.base_url) == (provider, url):
                return name
    kind = "openai" if kind == "text-completion-openai" else kind
    name, number = kind, 2
    while name in apis:
        name, number = f"{kind}-{number}", number + 1
    apis[name] = ImportedApi(provider, url, endpoints)
    return name


def read_keys(text: str, file: str, result: LiteLLMImport) -> None:
    """Read a list of keys, as C{/key/list?return_full_object=true} responds.

    @raise ValueError: It is no such list.
    """
    given = json.loads(text)
    keys = given.get("keys") if isinstance(given, dict) else given
    if not isinstance(keys, list):
        raise ValueError("it is no list of keys")
    position = 0
    for index, key in enumerate(keys):
        if not isinstance(key, dict):
            result.notes.append(ImportNote(file, 0, f"keys[{index}]", False, "only a hash; ask for full objects"))
            continue
        name = printable(str(key.get("key_alias") or key.get("key_name") or f"key {index + 1}"))
        found = text.find(json.dumps(name), position)
        position = max(found, position)
        line = text.count("\n", 0, found) + 1 if found >= 0 else 0
        if key.get("blocked"):
            result.notes.append(ImportNote(file, line, name, False, "it is blocked"))
            continue
        result.tokens.append(_token(name, key))
        detail = "a new token: the old one is stored as a hash of another kind"
        result.notes.append(ImportNote(file, line, name, True, detail))
        for field_name, why in _lost(key):
            result.notes.append(ImportNote(file, line, f"{name}: {field_name}", False, why))


def _token(name: str, key: Mapping[str, Any]) -> dict[str, Any]:
    """The options of C{llmproxy token create}."""
    given = key.get("budget_duration")
    period = {"1d": "/day", "24h": "/day", "30d": "/month", "1mo": "/month", None: ""}.get(
        given if isinstance(given, str | None) else "?"
    )
    models = [printable(str(model).rpartition("/")[2]) for model in key.get("models") or () if "all-" not in str(model)]
    budget = key.get("max_budget") if isinstance(key.get("max_budget"), int | float) else None
    return {
        "name": name,
        **({"rpm": key["rpm_limit"]} if key.get("rpm_limit") else {}),
        **({"tpm": key["tpm_limit"]} if key.get("tpm_limit") else {}),
        **({"concurrency": key["max_parallel_requests"]} if key.get("max_parallel_requests") else {}),
        **({"budget-usd": f"{budget:.10g}{period}"} if budget and period is not None else {}),
        **({"model": models} if models else {}),
    }


def _lost(key: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if key.get("spend"):
        yield "spend", "what was spent before is not carried over"
    if key.get("max_budget") and key.get("budget_duration") not in (None, "1d", "24h", "30d", "1mo"):
        yield "max_budget", f"there is no budget for {key['budget_duration']}: day, month and lifetime are known"
    if key.get("expires"):
        yield "expires", "name --expires-in when the token is made"
    for name in ("team_id", "user_id", "metadata", "aliases", "permissions"):
        if key.get(name):
            yield name, _NO_COUNTERPART
