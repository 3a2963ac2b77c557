"""C{${NAME}} and C{${NAME:-default}} in the values of the settings file; C{$$} is a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Mapping

_DOLLAR = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def holds_variable(text: str) -> bool:
    """Whether anything in C{text} comes from outside, rather than from the file."""
    return any(match[1] is not None for match in _DOLLAR.finditer(text))


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Put in what the variables stand for. L{ValueError} where one is not set, or not written as one.

    A variable that is empty counts as not set where there is a default, as in a shell.
    """
    return _DOLLAR.sub(lambda match: _value(match, environ), text)


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    named = _NAMED.fullmatch(match[1]) if match[2] else None
    if named is None:
        raise ValueError("${ begins a variable: write ${NAME}, ${NAME:-default}, or $${ for the characters themselves")
    name, default = named.groups()
    value = environ.get(name)
    if value or (value is not None and default is None):
        return value
    if default is None:
        raise ValueError(f"the environment variable {name} is not set (set it, or write ${{{name}:-default}})")
    return str(default)
