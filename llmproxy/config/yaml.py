"""YAML that remembers where everything stands, and that says everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from llmproxy.config import external_text
from llmproxy.config.external_text import ExternalText
from llmproxy.config.problems import Location, Path, Problem, printable

MAX_DEPTH = 40
MAX_VALUES = 20_000  # those that aliases stand for count: aliases of aliases grow without end

_PLAIN = "plain"
_TEXT, _SEQUENCE, _MAPPING = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


@dataclass
class Document:
    """What a file holds.

    @ivar tree: Mappings with text as keys, lists, and scalars; those that hold variables are L{ExternalText}.
    @ivar places: Where each entry of a mapping (its key) and each item of a list stands.
    @ivar unusable: The paths whose value could not be read; C{problems} says why.
    """

    file: str
    tree: Any = None
    places: dict[Path, Location] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unusable: set[Path] = field(default_factory=set)

    def place(self, path: Path) -> Location:
        """Where the setting stands, or else the nearest one around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Location(self.file, 1, 1))


def read(text: str, file: str, environ: Mapping[str, str]) -> Document:
    """Read a file's text. Never raises: whatever is wrong stands among the document's problems."""
    document = Document(file)
    try:
        node = _composed(text)
        document.tree = _Reader(document, environ).value(node, ()) if node is not None else {}
    except _Unreadable as e:
        document.problems = [Problem(file, e.line, e.column, "", e.message)]
    return document


class _Loader(yaml.SafeLoader):
    """PyYAML speaks YAML 1.1, where C{on} is a boolean; here L{scalar_value} says what a plain scalar means."""

    _depth = 0  # of the nodes that are being composed

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return {yaml.ScalarNode: _TEXT, yaml.SequenceNode: _SEQUENCE, yaml.MappingNode: _MAPPING}[kind]

    # Both look for what is too deep before PyYAML works on it, which takes longer for each bracket that is deeper.

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level > MAX_DEPTH:
            raise _too_deep(self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth > MAX_DEPTH:
            raise _too_deep(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Unreadable(Exception):
    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        self.message, self.line, self.column = message, line, column


def _composed(text: str) -> yaml.Node | None:
    """The tree of nodes, which know where they stand; L{_Unreadable} at what is not YAML."""
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as e:
        before = text[: e.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise _Unreadable(f"the character {printable(text[e.position])} may not stand in a file", line, column) from e
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line, column = _position(mark)
        raise _Unreadable(f"is not YAML: {_sentence(e)}{_hint(text, line)}", line, column) from e
    except (yaml.YAMLError, ValueError, OverflowError) as e:  # the scanner lets an escape like "\UFFFFFFFF" through
        raise _Unreadable("is not YAML", *_position(loader.get_mark() if loader else None)) from e


def _too_deep(mark: Any) -> _Unreadable:
    return _Unreadable(f"is nested deeper than {MAX_DEPTH} levels", *_position(mark))


def _sentence(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    if error.problem and "found character '\\t'" in error.problem:
        parts = ["a tab may not indent (use spaces)"]
    return printable(", ".join(parts))[:200]


def _hint(text: str, line: int) -> str:
    """Within braces, where those of a variable would end the mapping, it needs quotes."""
    return (
        ' (within { } or [ ], write "${NAME}" in quotes)' if "${" in "".join(text.splitlines()[line - 1 : line]) else ""
    )


def _position(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


class _Reader:
    """Turns nodes into values, once."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._values = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._values += 1
        if len(path) > MAX_DEPTH:
            raise _too_deep(node.start_mark)
        if self._values > MAX_VALUES:
            raise _Unreadable(f"holds more than {MAX_VALUES:,} values", *_position(node.start_mark))
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            return self._sequence(node, path)
        if isinstance(node, yaml.ScalarNode) and node.tag in (_PLAIN, _TEXT):
            return self._scalar(node, path)
        return self._unusable(path, node, f"the tag {printable(node.tag)[:60]} means nothing here")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(path, self._place(key_node), "a key must be text")
                continue
            key = key_node.value  # as it is written: a key is never a boolean
            inner = (*path, key)
            if key in mapping:
                self._problem(inner, self._place(key_node), f"stands here twice (first in line {lines[key]})")
                continue
            place = self._document.places[inner] = self._place(key_node)
            lines[key] = place.line
            mapping[key] = self.value(value_node, inner)
        return mapping

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        values = []
        for index, item in enumerate(node.value):
            self._document.places[*path, index] = self._place(item)
            values.append(self.value(item, (*path, index)))
        return values

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        try:
            text = external_text.expand(node.value, self._environ)
        except ValueError as e:
            return self._unusable(path, node, str(e))
        meaning = external_text.scalar_value(text) if node.tag == _PLAIN else text
        if external_text.holds_variable(node.value):
            return ExternalText(text, node.value, meaning)
        return meaning

    def _unusable(self, path: Path, node: yaml.Node, message: str) -> None:
        self._document.unusable.add(path)
        self._problem(path, self._document.places.get(path, self._place(node)), message)

    def _problem(self, path: Path, place: Location, message: str) -> None:
        self._document.problems.append(Problem.at(place, path, message))

    def _place(self, node: yaml.Node) -> Location:
        return Location(self._document.file, *_position(node.start_mark))
