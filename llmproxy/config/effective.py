"""What holds in the end, setting by setting, with where each value comes from; secrets are masked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from llmproxy.base.url_masking import MASK, mask_url
from llmproxy.config.external_text import ExternalText
from llmproxy.config.load import NO_OVERRIDES, read_document, validate
from llmproxy.config.problems import Location, Path, dotted

DEFAULT_SOURCE = "default"
_SECRET_NAME = re.compile(r"(?i)pass(word|wd|phrase)?$|secret|token|credential|authorization|api_?key|(^|_)(key|auth)$")

PLUGIN_SETTINGS = (("events", "sinks"), ("secrets", "stores"), ("auth", "validators"))


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting.

    @ivar path: As C{apis.openai.timeouts.request}.
    @ivar value: As JSON knows it, durations and sizes as people write them; secrets are C{***}.
    @ivar place: Where it was set; C{None} where it is the default.
    """

    path: str
    value: Any
    place: Location | None

    @property
    def source(self) -> str:
        """C{etc/apis.yaml:12}, C{LLMPROXY_CACHE_ENABLED}, or C{default}."""
        if self.place is None:
            return DEFAULT_SOURCE
        return f"{self.place.file}:{self.place.line}" if self.place.line else self.place.file


def effective(
    path: str, environ: Mapping[str, str], overrides: Mapping[str, Any] = NO_OVERRIDES
) -> list[EffectiveSetting]:
    """Every setting in the model's order, those of each API and of each item of a list by themselves.

    @raise llmproxy.config.problems.SettingsError: The settings are wrong.
    """
    document = read_document(path, environ, overrides)
    settings = validate(document)
    found = []
    for inner, value in _values(settings, settings.model_dump(mode="json"), ()):
        written = _written(document.tree, inner)
        place = None if written is None else document.place(inner)
        found.append(EffectiveSetting(dotted(inner), _masked(inner, value, written), place))
    return found


def _values(model: Any, dumped: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """What has no settings inside, with its path."""
    if isinstance(model, BaseModel):
        extra = model.model_extra or {}
        for name in [*type(model).model_fields, *extra]:
            yield from _values(extra[name] if name in extra else getattr(model, name), dumped[name], (*path, name))
    elif isinstance(model, dict) and any(isinstance(inner, BaseModel) for inner in model.values()):
        for name, inner in model.items():
            yield from _values(inner, dumped[name], (*path, name))
    elif isinstance(model, tuple) and any(isinstance(inner, BaseModel) for inner in model):
        for index, inner in enumerate(model):
            yield from _values(inner, dumped[index], (*path, index))
    else:
        yield path, dumped


def _written(tree: Any, path: Path) -> Any:
    """What stands there before it is read; C{None} where nothing does."""
    for step in path:
        if isinstance(tree, ExternalText):  # all of it came as one text: LLMPROXY_PRICES or a flag
            return tree
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def _masked(path: Path, value: Any, written: Any) -> Any:
    """The value without what only the daemon may know.

    What stands in a plugin's settings is not known here: there whatever is named like a secret is masked, and what came
    by C{${NAME}} is shown as that.
    """
    if path[:2] in PLUGIN_SETTINGS and path[-1] != "type":
        if _SECRET_NAME.search(str(path[-1])):
            return MASK if value not in (None, "") else value
        return _plugin_value(value, written)
    return _without_passwords(value)


def _plugin_value(value: Any, written: Any) -> Any:
    if isinstance(value, dict):
        inner = written if isinstance(written, dict) else {}
        return {
            key: MASK if _SECRET_NAME.search(str(key)) else _plugin_value(item, inner.get(key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        items = written if isinstance(written, list) and len(written) == len(value) else [None] * len(value)
        return [_plugin_value(item, inner) for item, inner in zip(value, items, strict=True)]
    return _without_passwords(written.source if isinstance(written, ExternalText) else value)


def _without_passwords(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_passwords(item) for item in value]
    return mask_url(value) if isinstance(value, str) else value
