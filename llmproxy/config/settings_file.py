"""Where a process has its settings from, to be read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.config.effective import EffectiveSetting, effective
from llmproxy.config.load import load
from llmproxy.config.model import Settings


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file, with the environment and the command line above it.

    @ivar overrides: What the command line says; see L{load}.
    """

    path: str
    environ: Mapping[str, str]
    overrides: Mapping[str, Any]

    def load(self) -> Settings:
        """The settings as they are now; L{SettingsError<problems.SettingsError>} where they are wrong."""
        return load(self.path, self.environ, self.overrides)

    def effective(self) -> list[EffectiveSetting]:
        """Each of them with its source, as L{load} fails."""
        return effective(self.path, self.environ, self.overrides)
