"""The JSON Schema of the settings file, for editors: C{python -m llmproxy.config.schema > etc/apis.schema.json}."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from llmproxy.config.docstrings import attribute_docstrings
from llmproxy.config.model import Settings
from llmproxy.config.plugin_settings import PluginSettings
from llmproxy.config.types import Section

_VARIABLE = {"type": "string", "pattern": r"\$\{.+\}", "description": "A variable: ${NAME} or ${NAME:-default}"}
_ABOUT = ("description", "default")


def schema() -> dict[str, Any]:
    """The schema of what L{load} accepts, but for what only a program can check."""
    # Serialization mode writes defaults as the file does: "30s".
    made = Settings.model_json_schema(mode="serialization")
    sections: list[type[BaseModel]] = [*_subclasses(PluginSettings), *_subclasses(Section)]
    classes = {cls.__name__: cls for cls in sections}
    defs = {name: _open(_described(section, classes[name])) for name, section in made.pop("$defs").items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of llmproxy",
        **_open(_described(made, Settings)),
        "$defs": {**defs, "Variable": _VARIABLE},
    }


def _subclasses(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def _described(section: dict[str, Any], cls: type[BaseModel]) -> dict[str, Any]:
    """The schema of this class, with what its source, and that of its bases, says about its attributes."""
    bases = [each for each in reversed(cls.__mro__) if issubclass(each, Section | PluginSettings)]
    texts = {name: text for each in bases for name, text in attribute_docstrings(each).items()}
    for name, field in section["properties"].items():
        if name in texts:
            field.setdefault("description", texts[name])
    return section


def schema_text() -> str:
    """The schema as it stands in its file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _open(schema: Any) -> Any:
    """Let a variable stand wherever something other than any text is wanted; drop what says nothing new."""
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    opened = {key: _part(key, value) for key, value in schema.items() if not _says_nothing(key, schema)}
    if "pattern" in opened:
        return {**opened, "pattern": rf"{opened['pattern']}|\$\{{.+\}}"}
    if opened.get("type") not in ("integer", "boolean") and "enum" not in opened:
        return opened
    about = {key: value for key, value in opened.items() if key in _ABOUT}
    wanted = {key: value for key, value in opened.items() if key not in _ABOUT}
    return {**about, "anyOf": [wanted, {"$ref": "#/$defs/Variable"}]}


def _part(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _open(field) for name, field in value.items()}
    if key == "description":
        return " ".join(value.split())
    return value if key in ("default", "propertyNames") else _open(value)


def _says_nothing(key: str, schema: dict[str, Any]) -> bool:
    return key == "title" or (key == "default" and "$ref" in schema)


if __name__ == "__main__":
    sys.stdout.write(schema_text())
