"""The tables of C{docs/settings.md}, made from the model: C{python -m llmproxy.config.reference docs/settings.md}."""

from __future__ import annotations

import json
import sys
from pathlib import Path as File
from typing import Any

from llmproxy.config.environ import variable
from llmproxy.config.fields import Leaf, leaves
from llmproxy.config.problems import Path, dotted
from llmproxy.config.schema import schema

GENERATED_MARK = "<!-- From here on made by: python -m llmproxy.config.reference docs/settings.md -->\n"


def reference() -> str:
    """Every setting with its default, its meaning and its variable, a table for each section."""
    tables: dict[Path, list[Leaf]] = {(): []}
    for leaf in leaves():
        tables.setdefault(leaf.path[:-1], []).append(leaf)
    described = _properties()
    return "\n".join(_table(path, members, described) for path, members in tables.items())


def _table(path: Path, members: list[Leaf], described: dict[str, Any]) -> str:
    title = f"`{dotted(path).replace('[0]', '[]')}`" if path else "At the top"
    rows = [_row(leaf, described[leaf.model.__name__][str(leaf.path[-1])]) for leaf in members]
    head = ["| setting | default | meaning | variable |", "|---|---|---|---|"]
    return "\n".join([f"### {title}", "", str(members[0].model.__doc__), "", *head, *rows, ""])


def _row(leaf: Leaf, described: dict[str, Any]) -> str:
    default = "required" if leaf.info.is_required() else f"`{_default(described)}`"
    name = variable(leaf)
    meaning = described["description"] + _choices(described)
    cells = (f"`{leaf.path[-1]}`", default, meaning, f"`{name}`" if name else "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |".replace("|  |", "| |")


def _choices(described: dict[str, Any]) -> str:
    choices = [word for one in described.get("anyOf", ()) for word in one.get("enum", ())]
    return f" One of {', '.join(f'`{word}`' for word in choices)}." if choices else ""


def _default(described: dict[str, Any]) -> str:
    default = described.get("default", {})
    return default if isinstance(default, str) and default else json.dumps(default)


def _properties() -> dict[str, dict[str, Any]]:
    made = schema()
    return {
        "Settings": made["properties"],
        **{n: s["properties"] for n, s in made["$defs"].items() if "properties" in s},
    }


def with_tables(text: str) -> str:
    """The page's text with its tables made anew."""
    return text.partition(GENERATED_MARK)[0] + GENERATED_MARK + "\n" + reference()


if __name__ == "__main__":
    page = File(sys.argv[1])
    page.write_text(with_tables(page.read_text("utf-8")), "utf-8")
