"""What the management API has of the running process: its settings, its providers, its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

State = Literal["enabled", "draining", "disabled"]


class UpstreamStatus(Protocol):
    """As much of an upstream as is shown."""

    base_url: str
    state: State

    @property
    def breaker(self) -> Literal["closed", "open", "half-open"]: ...


class UpstreamControl(Protocol):
    """Knows the upstreams."""

    def listed(self) -> Sequence[tuple[str, UpstreamStatus]]: ...
    def set_state(self, api: str, state: State) -> None: ...
    def in_flight(self) -> Mapping[str, int]: ...


class SettingSource(Protocol):
    """A setting in force when the settings are read now, and where it was set."""

    @property
    def path(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def source(self) -> str: ...


class ReloadOutcome(Protocol):
    """What a reload has brought: settings by their paths, and the places of workers with what they have done."""

    @property
    def changed(self) -> tuple[str, ...]: ...
    @property
    def pending(self) -> tuple[str, ...]: ...
    @property
    def rolling(self) -> tuple[str, ...]: ...
    @property
    def workers(self) -> tuple[tuple[int, str], ...]: ...


class LogLevels(Protocol):
    """Knows what is logged."""

    @property
    def level(self) -> str: ...
    def set_level(self, name: str) -> None: ...
