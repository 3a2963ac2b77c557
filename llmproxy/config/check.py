"""Looks the settings over without starting anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy.config.given import shown
from llmproxy.config.load import NOTHING, load, misspelt
from llmproxy.config.model import Settings
from llmproxy.config.problems import SettingsError

EX_CONFIG = 78  # sysexits.h


def report(path: str, environ: Mapping[str, str], overrides: Mapping[str, Any] = NOTHING) -> tuple[int, str]:
    """The exit code and what to print: 0 and a summary, or 78 and everything that is wrong."""
    try:
        found = summary(path, load(path, environ, overrides))
        return 0, "\n".join([found, *(f"Warning: {each}" for each in misspelt(path, environ))])
    except SettingsError as e:
        count = len(e.problems)
        return EX_CONFIG, f"{e}\n{count} problem{'s' if count > 1 else ''} in the settings."


def summary(path: str, settings: Settings) -> str:
    """What the daemon would do, in a few lines, without secrets."""
    width = max(map(len, settings.apis))
    apis = [
        f"  {name:<{width}}  {api.base_url}  ({len(api.allowed_endpoints)} endpoints)"
        + (", at the root too" if name == settings.default_api else "")
        for name, api in settings.apis.items()
    ]
    listen, store = ", ".join(settings.server.listen), shown(settings.store.url)[1:-1]
    return "\n".join([f"{path} is right.", *apis, f"  listens on {listen}", f"  store: {store}"])
