"""Where provider keys that are stored as references come from: variables, files, plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmproxy import plugins
from llmproxy.config.model import Secrets, Settings
from llmproxy.config.secret_variables import PREFIX, SECRETS
from llmproxy.interfaces import ISecretSource, ISecretSourceFactory
from llmproxy.upstream.secret_references import SecretReferences
from llmproxy.upstream.secret_rules import SecretRules

BUILT_IN = ("env", "file")


def secret_references(
    settings: Settings,
    environ: Mapping[str, str],
    reactor: Any,
    *,
    is_own: Callable[[str], bool],
    learn: Callable[[str], object],
) -> SecretReferences:
    """What resolves them; L{ValueError} where nobody provides a store that the settings name, or it refuses.

    @param is_own: Whether this is a secret of this process itself; C{learn}: told every secret.
    """
    chosen, sources = settings.secrets, _sources(settings.secrets, reactor)
    return SecretReferences(
        SecretRules(chosen.environment, chosen.directories, sources.keys(), _own_files(settings.state_dir, environ)),
        sources,
        environ,
        reactor,
        refresh=chosen.refresh,
        is_own=is_own,
        learn=learn,
    )


def _sources(chosen: Secrets, reactor: Any) -> dict[str, ISecretSource]:
    made: dict[str, ISecretSource] = {}
    for entry in chosen.stores:
        if entry.type in made or entry.type in BUILT_IN:
            raise ValueError(f"secrets.stores: {entry.type} is there already.")
        made[entry.type] = plugins.find(ISecretSourceFactory, entry.type).source(entry.options, reactor)
    return made


def _own_files(state_dir: str, environ: Mapping[str, str]) -> list[str]:
    named = [environ.get(f"{prefix}{name}_FILE", "") for name in SECRETS for prefix in (PREFIX, "")]
    kept = [Path(state_dir).absolute() / name for name in ("encryption-key", "management-token")]
    return [*filter(None, named), *map(str, kept)]
