"""Finds what a name in the settings stands for: built-ins and outsiders come through the same door."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from twisted.plugin import getPlugins
from zope.interface import Interface

import twisted.plugins


def find(interface: type[Interface], name: str, package: ModuleType = twisted.plugins) -> Any:
    """The one plugin that provides C{interface} under this C{name}.

    L{ValueError} says which names there are where there is none, and where two plugins claim the same one.
    """
    found: list[Any] = sorted(getPlugins(interface, package), key=_name)
    named = [plugin for plugin in found if _name(plugin) == name]
    if len(named) == 1:
        return named[0]
    if named:
        makers = ", ".join(sorted(f"{type(p).__module__}.{type(p).__qualname__}" for p in named))
        raise ValueError(
            f"{len(named)} plugins provide {interface.__name__} as {name!r}: {makers}. Remove all but one."
        )
    known = ", ".join(dict.fromkeys(map(_name, found))) or "none at all"
    raise ValueError(f"No plugin provides {interface.__name__} as {name!r}. Known: {known}.")


def _name(plugin: Any) -> str:
    return str(plugin.name)
