"""What differs between two settings, and which of that a running process can follow. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from llmproxy.config.model import Settings
from llmproxy.config.problems import dotted

# What a running process can follow; all else is taken up when it starts.
_FOLLOWED = re.compile(
    r"default_api|(apis|alerts)(\..*)?|prices|attribution|limits\.(on_loss(\..*)?|unknown_price)|logging\.level",
    re.ASCII,
)


class SettingsChanges(NamedTuple):
    """Settings by their paths, such as C{apis.openai.timeouts.idle}.

    @ivar followed: Those that are other, and can be followed; C{pending}: those that need a restart.
    """

    followed: tuple[str, ...]
    pending: tuple[str, ...]


def changes(before: Settings, after: Settings) -> SettingsChanges:
    """What is other in C{after}."""
    paths = sorted(dotted(path) for path in _different(before, after))
    followed = tuple(path for path in paths if _FOLLOWED.fullmatch(path))
    return SettingsChanges(followed, tuple(path for path in paths if path not in followed))


def combined(running: Settings, after: Settings) -> Settings:
    """The settings of a process that runs with C{running} and follows what it can of C{after}."""
    limits, logging = running.limits, running.logging
    return after.model_copy(
        update={
            **{name: getattr(running, name) for name in type(running).model_fields},
            "default_api": after.default_api,
            "apis": after.apis,
            "prices": after.prices,
            "attribution": after.attribution,
            "alerts": after.alerts,
            "limits": limits.model_copy(
                update={"on_loss": after.limits.on_loss, "unknown_price": after.limits.unknown_price}
            ),
            "logging": logging.model_copy(update={"level": after.logging.level}),
        }
    )


def _different(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(before, BaseModel) and type(before) is type(after):
        for name in type(before).model_fields:
            yield from _different(getattr(before, name), getattr(after, name), (*path, name))
    elif isinstance(before, Mapping) and isinstance(after, Mapping) and path == ("apis",):
        for name in {**before, **after}:
            yield from _different(before.get(name), after.get(name), (*path, name))
    elif before != after:
        yield path
