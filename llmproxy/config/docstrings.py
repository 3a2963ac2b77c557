"""What stands below the attributes of settings' classes, for the schema and the reference.

Read out of the sources when it is needed: pydantic's own way reads them at each start of the daemon, which takes it a
fifth of the time of all imports.
"""

from __future__ import annotations

import ast
import inspect
import textwrap


def attribute_docstrings(cls: type) -> dict[str, str]:
    """The texts below the attributes of a class and of those it inherits from, by attribute."""
    texts: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith(__package__ or ""):
            texts.update(_own(each))
    return texts


def _own(cls: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            texts[statement.target.id] = inspect.cleandoc(after.value.value)
    return texts
