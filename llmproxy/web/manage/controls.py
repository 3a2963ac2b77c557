"""What the management API has of the running process: its settings, its providers, its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

State = Literal["enabled", "draining", "disabled"]


class KeyStatus(Protocol):
    """A project's key that is passed over, and the status of the response why."""

    project_id: str
    masked: str
    status: int


class UpstreamStatus(Protocol):
    """As much of an upstream as is shown."""

    number: int
    base_url: str
    weight: int
    priority: int
    state: State
    in_flight: int
    health: Literal["unknown", "healthy", "unhealthy"]

    @property
    def breaker(self) -> Literal["closed", "open", "half-open"]: ...
    @property
    def projects_out(self) -> int: ...


class UpstreamControl(Protocol):
    """Knows the upstreams.

    C{in_flight} counts by API; an API's only upstream does not count itself. C{keys_out} also tells for how many
    seconds each key will be passed over; C{last_probe}: a status or a word, C{""} where there was none.
    """

    def listed(self) -> Sequence[tuple[str, Sequence[UpstreamStatus]]]: ...
    def set_state(self, api: str, number: int, state: State) -> None: ...
    def in_flight(self) -> Mapping[str, int]: ...
    def keys_out(self, api: str, number: int) -> Sequence[tuple[KeyStatus, float]]: ...
    def last_probe(self, api: str, number: int) -> str: ...


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
