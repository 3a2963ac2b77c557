"""Settings that name a plugin: C{type}, and whatever that plugin takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from llmproxy.config.external_text import ExternalText


class PluginSettings(BaseModel):
    """The name of a plugin, as C{type}, and its own settings beside it."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        return _plain(given) if isinstance(given, Mapping) else given

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _plain(value: Any) -> Any:
    """Text from outside as the types that it would have had in the file: a plugin's settings have no others."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.meaning if isinstance(value, ExternalText) else value
