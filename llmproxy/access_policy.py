"""What is allowed beside limits, by an API, a project and a token alike: all that hold for a request must allow it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

AllowedValues = tuple[tuple[str, tuple[str, ...]], ...]
"""Names, each with the globs that its values must match."""


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Which requests an API, a project or a token allows; what is empty, or C{None}, allows all.

    @ivar apis: Names of APIs; C{methods}, C{endpoints} (patterns), C{models} (globs) and C{ips} (networks) likewise.
    @ivar max_output_tokens: The most that a request may ask for.
    @ivar param_whitelist: Members of the body, and what each may be where it is there.
    @ivar required_params: Members that must be there, each one or several with C{|} between, of which one must be.
    @ivar required_headers: Names of header fields that must be there.
    @ivar header_values: Names of header fields, and what each may be where it is there.
    """

    apis: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    param_whitelist: AllowedValues = ()
    required_params: tuple[str, ...] = ()
    required_headers: tuple[str, ...] = ()
    header_values: AllowedValues = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (getattr(self, each.name) for each in fields(self) if each.init)
        object.__setattr__(self, "_hash", hash(tuple(values)))

    def __hash__(self) -> int:
        return self._hash  # what is compiled of a policy is looked up by it, for each request


ALL_ALLOWED = AccessPolicy()
