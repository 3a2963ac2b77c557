"""Reads the settings: the file, above it the environment, above that the flags.

Whatever is wrong is said at once, so that nobody has to start the daemon ten times to find ten mistakes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from llmproxy.base.url_masking import mask_url
from llmproxy.config import environ as environment
from llmproxy.config import yaml
from llmproxy.config.explain import explain
from llmproxy.config.external_text import ExternalText
from llmproxy.config.model import Settings, default_api_problem
from llmproxy.config.problems import Location, Path, Problem, SettingsError

__all__ = ["Problem", "SettingsError", "environment_warnings", "load", "parse", "read_private"]

NO_OVERRIDES: Mapping[str, Any] = MappingProxyType({})
COMMAND_LINE = Location("command line")
MAX_FILE_BYTES = 4 * 1024 * 1024


def load(path: str, environ: Mapping[str, str], overrides: Mapping[str, Any] = NO_OVERRIDES) -> Settings:
    """Read the settings file at C{path}.

    @param overrides: What the command line says, by path: C{{"server.listen": ["tcp:8080"]}}; text is read as the
        environment's is. C{None} means that the flag was not given.
    @raise SettingsError: Something is wrong; it says what, where, and what was meant.
    """
    return validate(read_document(path, environ, overrides))


def environment_warnings(path: str, environ: Mapping[str, str]) -> list[str]:
    """What to warn of in the environment, beside the settings file at C{path}, a sentence each."""
    with open(path, "rb") as file:
        return environment.unknown_variables(environ, _text(file.read(MAX_FILE_BYTES), path))


def parse(text: str, file: str, environ: Mapping[str, str], overrides: Mapping[str, Any] = NO_OVERRIDES) -> Settings:
    """As L{load}, for a file's text; C{file} is only its name."""
    return validate(_document(text, file, environ, overrides))


def read_document(path: str, environ: Mapping[str, str], overrides: Mapping[str, Any] = NO_OVERRIDES) -> yaml.Document:
    """What L{load} validates: the file with what stands above it, and where each setting was written.

    @raise SettingsError: The file cannot be read, or is not YAML at all.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as e:
        raise SettingsError([Problem(path, 0, 0, "", f"cannot be read: {getattr(e, 'strerror', None) or e}")]) from e
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError([Problem(path, 0, 0, "", "is too large for a settings file")])
    return _document(_text(data, path), path, environ, overrides)


def _document(text: str, file: str, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> yaml.Document:
    document = yaml.read(text, file, environ)
    if document.problems and document.tree is None:
        raise SettingsError(document.problems)
    for path, value, place in environment.settings(environ):
        _override(document, path, value, place)
    for name, value in overrides.items():
        if value is not None:
            _override(
                document, tuple(name.split(".")), ExternalText(value) if isinstance(value, str) else value, COMMAND_LINE
            )
    return document


def validate(document: yaml.Document) -> Settings:
    """The settings that a document holds.

    @raise SettingsError: Something is wrong; it says what, where, and what was meant.
    """
    problems = list(document.problems)
    try:
        settings = Settings.model_validate(document.tree)
    except ValidationError as e:
        found = dict.fromkeys([*explain(e), *_beyond_one_section(document.tree)])
        problems += _located(document, found)
    if problems:
        raise SettingsError(_in_order(problems))
    return settings


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda p: (not p.line, p.line, p.column))


def _located(document: yaml.Document, found: Iterable[tuple[Path, str]]) -> list[Problem]:
    return [
        Problem.at(document.place(path), path, text)
        for path, text in found
        # What a section says of one of its settings begins with that one's name.
        if path not in document.unusable and (*path, text.partition(":")[0]) not in document.unusable
    ]


def _beyond_one_section(tree: Any) -> Iterable[tuple[Path, str]]:
    """What can be seen only across sections, and what the model looks at only once all else is right."""
    apis = tree.get("apis") if isinstance(tree, dict) else None
    wrong = default_api_problem(tree.get("default_api"), apis) if isinstance(apis, dict) else ""
    return [(("default_api",), wrong)] if wrong else []


def _override(document: yaml.Document, path: Path, value: Any, place: Location) -> None:
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
    """A file's mode and text, of one and the same file: what L{secret_variables.secret} wants."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mode, file.read(64 * 1024).decode("utf-8")


def check_report(
    path: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] = NO_OVERRIDES,
    further: Callable[[Settings], Iterable[tuple[Path, str]]] = lambda settings: (),
) -> tuple[int, str]:
    """The exit code and what to print: 0 and a summary, or 78 and everything that is wrong.

    @param further: What else is wrong with settings that can be read, by the setting's path.
    """
    try:
        document = read_document(path, environ, overrides)
        settings = validate(document)
        if problems := _located(document, further(settings)):
            raise SettingsError(_in_order(problems))
        found = _summary(path, settings)
        return 0, "\n".join([found, *(f"Warning: {each}" for each in environment_warnings(path, environ))])
    except SettingsError as e:
        count = len(e.problems)
        return os.EX_CONFIG, f"{e}\n{count} problem{'s' if count > 1 else ''} in the settings."


def _summary(path: str, settings: Settings) -> str:
    """What the daemon would do, in a few lines, without secrets."""
    width = max(map(len, settings.apis))
    apis = [
        f"  {name:<{width}}  {api.base_url}  ({len(api.allowed_endpoints)} endpoints)"
        + (", at the root too" if name == settings.default_api else "")
        for name, api in settings.apis.items()
    ]
    listen, store = ", ".join(settings.server.listen), mask_url(settings.store.url)
    return "\n".join([f"{path} is right.", *apis, f"  listens on {listen}", f"  store: {store}"])
