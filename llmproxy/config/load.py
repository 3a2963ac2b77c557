"""Reads the settings: the file, above it the environment, above that the flags.

Whatever is wrong is said at once, so that nobody has to start the daemon ten times to find ten mistakes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from llmproxy.config import environ as environment
from llmproxy.config import yaml
from llmproxy.config.explain import explain
from llmproxy.config.given import Given
from llmproxy.config.model import Settings, wrong_default
from llmproxy.config.problems import Path, Place, Problem, SettingsError

__all__ = ["Problem", "SettingsError", "load", "misspelt", "parse", "read_private"]

NOTHING: Mapping[str, Any] = MappingProxyType({})
COMMAND_LINE = Place("command line")
_LARGEST = 4 * 1024 * 1024


def load(path: str, environ: Mapping[str, str], overrides: Mapping[str, Any] = NOTHING) -> Settings:
    """Read the settings file at C{path}.

    @param overrides: What the command line says, by path: C{{"server.listen": ["tcp:8080"]}}; text is read as the
        environment's is. C{None} means that the flag was not given.
    @raise SettingsError: Something is wrong; it says what, where, and what was meant.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as e:
        raise SettingsError([Problem(path, 0, 0, "", f"cannot be read: {getattr(e, 'strerror', None) or e}")]) from e
    if len(data) > _LARGEST:
        raise SettingsError([Problem(path, 0, 0, "", "is too large for a settings file")])
    return parse(_text(data, path), path, environ, overrides)


def misspelt(path: str, environ: Mapping[str, str]) -> list[str]:
    """What to warn of in the environment, beside the settings file at C{path}, a sentence each."""
    with open(path, "rb") as file:
        return environment.misspelt(environ, _text(file.read(_LARGEST), path))


def parse(text: str, file: str, environ: Mapping[str, str], overrides: Mapping[str, Any] = NOTHING) -> Settings:
    """As L{load}, for a file's text; C{file} is only its name."""
    document = yaml.read(text, file, environ)
    if document.problems and document.tree is None:
        raise SettingsError(document.problems)
    for path, value, place in environment.settings(environ):
        _lay_over(document, path, value, place)
    for name, value in overrides.items():
        if value is not None:
            _lay_over(document, tuple(name.split(".")), Given(value) if isinstance(value, str) else value, COMMAND_LINE)
    return _validated(document)


def _validated(document: yaml.Document) -> Settings:
    problems = list(document.problems)
    try:
        settings = Settings.model_validate(document.tree)
    except ValidationError as e:
        found = dict.fromkeys([*explain(e), *_beyond_one_section(document.tree)])
        problems += _placed(document, found)
    if problems:
        raise SettingsError(sorted(problems, key=lambda p: (not p.line, p.line, p.column)))
    return settings


def _placed(document: yaml.Document, found: Iterable[tuple[Path, str]]) -> list[Problem]:
    return [Problem.at(document.place(path), path, text) for path, text in found if path not in document.unusable]


def _beyond_one_section(tree: Any) -> Iterable[tuple[Path, str]]:
    """What can be seen only across sections, and what the model looks at only once all else is right."""
    apis = tree.get("apis") if isinstance(tree, dict) else None
    wrong = wrong_default(tree.get("default_api"), apis) if isinstance(apis, dict) else ""
    return [(("default_api",), wrong)] if wrong else []


def _lay_over(document: yaml.Document, path: Path, value: Any, place: Place) -> None:
    """Put a value into the tree; where the tree is wrong around it, leave that to be found."""
    tree = document.tree
    for step in path[:-1]:
        if not isinstance(tree, dict):
            return
        if tree.get(str(step)) is None:
            tree[str(step)] = {}
        tree = tree[str(step)]
    if not isinstance(tree, dict):
        return
    tree[str(path[-1])] = value
    for known in [known for known in document.places if known[: len(path)] == path]:
        del document.places[known]
    document.places[path] = place


def _text(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        before = data[: e.start]
        line, column = before.count(b"\n") + 1, e.start - before.rfind(b"\n")
        raise SettingsError([Problem(path, line, column, "", "is not text in UTF-8")]) from e


def read_private(path: str) -> tuple[int, str]:
    """A file's mode and text, of one and the same file: what L{environment.secret} wants."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mode, file.read(64 * 1024).decode("utf-8")
