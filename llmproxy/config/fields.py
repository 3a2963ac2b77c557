"""The settings as a list: every path that may be set, and what may stand there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llmproxy.config.model import Settings
from llmproxy.config.problems import Path


class Leaf(NamedTuple):
    """One setting. In C{path}, C{<name>} stands for the name of an API and C{0} for any item of a list."""

    path: Path
    info: FieldInfo
    model: type[BaseModel]


def leaves(model: type[BaseModel] = Settings, path: Path = ()) -> Iterator[Leaf]:
    """Every setting that has no further settings inside, in the order of the model."""
    for key, info in model.model_fields.items():
        inner, at = _inside(info.annotation)
        if inner is None:
            yield Leaf((*path, key), info, model)
        else:
            yield from leaves(inner, (*path, key, *at))


def section(path: Path) -> type[BaseModel] | None:
    """The model of what stands at C{path}, if that has settings of its own."""
    kind: Any = Settings
    for step in path:
        if not _is_model(kind):
            kind = _item(kind)
        elif step in kind.model_fields:
            kind = kind.model_fields[step].annotation
        else:
            return None
    return kind if _is_model(kind) else None


def _inside(kind: Any) -> tuple[type[BaseModel] | None, Path]:
    if _is_model(kind):
        return kind, ()
    item = _item(kind)
    if _is_model(item):
        return item, ("<name>",) if get_origin(kind) is dict else (0,)
    return None, ()


def _item(kind: Any) -> Any:
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    return arguments[0] if get_origin(kind) is tuple else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
