"""A credential for the management API, as the layers pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["viewer", "operator", "admin"]


@dataclass(frozen=True, slots=True)
class ManagementKey:
    """A credential for the management API.

    @ivar projects: The only ones that its bearer sees and changes; C{None} for all.
    @ivar prefix: Its first characters, to recognise it by.
    @ivar last_used_at: True to the minute.
    """

    id: str
    name: str
    role: Role
    projects: tuple[str, ...] | None = None
    prefix: str = ""
    created_at: float = 0.0
    last_used_at: float | None = None
    deactivated_at: float | None = None

    @property
    def active(self) -> bool:
        return self.deactivated_at is None
