"""The policies that settings give, be it an API's or that of the bearers of somebody else's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from llmproxy.access_policy import ALL_ALLOWED, AccessPolicy


class PolicySection(Protocol):
    """A section that says which requests are allowed; 0 and empty allow all."""

    @property
    def max_output_tokens(self) -> int: ...
    @property
    def param_whitelist(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def required_params(self) -> tuple[str, ...]: ...
    @property
    def required_headers(self) -> tuple[str, ...]: ...
    @property
    def header_values(self) -> Mapping[str, tuple[str, ...]]: ...


def access_policy(section: PolicySection, methods: tuple[str, ...] = ()) -> AccessPolicy | None:
    """The same as the value that travels; C{None} where it allows all."""
    made = AccessPolicy(
        methods=methods,
        max_output_tokens=section.max_output_tokens or None,
        param_whitelist=tuple(section.param_whitelist.items()),
        required_params=section.required_params,
        required_headers=section.required_headers,
        header_values=tuple(section.header_values.items()),
    )
    return None if made == ALL_ALLOWED else made
