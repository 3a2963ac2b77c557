"""The rules of the house that neither ruff, mypy nor import-linter know; see C{docs/development.md}.

Exceptions are named here with their reason, and the lists only shrink: nothing new goes in.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import TestCase

import llmproxy
from llmproxy.app import build
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.store import baseline
from llmproxy.store.migrate import SCRIPTS, newest_revision
from llmproxy.store.sqlite_file import VERSION_TABLE

PACKAGE = Path(llmproxy.__file__).parent
MAX_LINES = 400

# What says nothing to whoever greps for it, as a public name of its own.
PARTICIPLES = frozenset(
    (
        *("answered", "asked", "booked", "counted", "found", "given", "granted", "heard", "held", "judged", "kept"),
        *("known", "left", "made", "meant", "named", "said", "seen", "sent", "settled", "shown", "taken", "told"),
        *("used", "written"),
    )
)

# Lines that each may have at most.
LONG_MODULES = {
    "llmproxy.model": (490, "the values that pass between the layers, each of them short"),
    "llmproxy.wire.server.channel": (565, "a connection's life: whatever happens to it in each of its states"),
}
PARTICIPLES_LEFT = {
    "llmproxy.interfaces:ICounters.used": "a promise that plugins fill",
    "llmproxy.limits.counters.memory:MemoryCounters.used": "of ICounters",
    "llmproxy.limits.counters.remote:RemoteCounters.used": "of ICounters",
}


@cache
def modules() -> dict[str, Path]:
    """All modules by their dotted names; the simulator shares no code with the proxy, and no rule."""
    files = [path for path in PACKAGE.rglob("*.py") if "simulator" not in path.parts]
    return {_dotted(path): path for path in files}


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text("utf-8"))


def imported(module: str) -> set[str]:
    """Our modules that this one imports: when it is loaded, only for its types, or within a function."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else node.module)
    return (found & modules().keys()) - {"llmproxy", module}


def public_names(module: str) -> Iterator[str]:
    """Classes, functions, methods and constants without an underscore, as C{module:Class.method}."""
    for node in tree(module).body:
        for name in _names(node):
            if name.startswith("_"):
                continue
            yield f"{module}:{name}"
            if isinstance(node, ast.ClassDef):
                methods = (inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef))
                yield from (f"{module}:{name}.{inner.name}" for inner in methods if not inner.name.startswith("_"))


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


class NamesTests(TestCase):
    def test_a_class_name_occurs_once(self) -> None:
        """Whoever searches for a class finds one."""
        places: dict[str, list[str]] = defaultdict(list)
        for module in modules():
            for node in tree(module).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(module)
        twice = {name: of for name, of in places.items() if len(of) > 1}
        self.assertEqual(twice, {})

    def test_no_bare_participle_is_a_public_name(self) -> None:
        """C{told} or C{given} does not say who told what, nor can it be searched for."""
        bare = {
            name
            for module in modules()
            for name in public_names(module)
            if re.split(r"[:.]", name)[-1].lower() in PARTICIPLES
        }
        self.assertEqual(bare, PARTICIPLES_LEFT.keys())


class ShapeTests(TestCase):
    def test_modules_are_short(self) -> None:
        """One module, one idea; those that are longer may only become shorter."""
        lines = {module: len(path.read_text("utf-8").splitlines()) for module, path in modules().items()}
        bounds = {module: bound for module, (bound, _) in LONG_MODULES.items()}
        long = {module: count for module, count in lines.items() if count > bounds.get(module, MAX_LINES)}
        self.assertEqual(long, {})
        self.assertEqual({module for module in bounds if lines.get(module, 0) <= MAX_LINES}, set())

    def test_no_import_circle(self) -> None:
        """Nor one that C{TYPE_CHECKING} hides."""
        found = circles({module: imported(module) for module in modules()})
        self.assertEqual(found, [])

    def test_circles_are_seen(self) -> None:
        """Of what is looked for above."""
        edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"d2"}, "d2": set()}
        self.assertEqual(circles(edges), [["b", "c"]])

    def test_the_composition_is_one_page(self) -> None:
        self.assertLessEqual(len(inspect.getsource(build).splitlines()), 50)

    def test_new_databases_are_of_the_newest_revision(self) -> None:
        """C{make schema} has been run after the last upgrade was written."""
        script = (SCRIPTS / baseline.NAME).read_text()
        self.assertIn(f"""INSERT INTO "{VERSION_TABLE}" VALUES ('{newest_revision(SCRIPTS)}')""", script)

    def test_the_pipeline_needs_nine_things(self) -> None:
        self.assertLessEqual(len(inspect.signature(Pipeline).parameters), 9)
