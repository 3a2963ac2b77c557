"""What is wrong with a body, in words and by JSON pointers (RFC 6901, section 6; RFC 9457, section 3)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from llmproxy.errors import FieldProblem, Invalid
from llmproxy.web.manage.body_types import BodyContext

MAX_LISTED_ERRORS = 20  # errors that one response names

Step = int | str


def invalid(error: ValidationError, body: object, fields: Collection[str], known: BodyContext) -> Invalid:
    """The refusal that names each field that is wrong.

    @param body: What was sent; C{fields}: the names that it may have.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    listed = [_located(each["loc"], each["type"], each["msg"], fields) for each in found[:MAX_LISTED_ERRORS]]
    said = [": ".join(filter(None, (".".join(_step(step, known) for step in path), what))) for path, what in listed]
    more = [f"and {len(found) - MAX_LISTED_ERRORS} more"] if len(found) > MAX_LISTED_ERRORS else []
    problems = [FieldProblem(what, "pointer", pointer(path, body, known)) for path, what in listed]
    return Invalid("The body is not valid: " + "; ".join(said + more) + ".", problems)


def pointer(path: tuple[Step, ...], body: object, known: BodyContext) -> str:
    """A JSON pointer, as a URI's fragment, to the value at this path, or to the member that is missing there; to
    what it is in where a step of it is nowhere in the body, or may be a secret.
    """
    return "#" + "".join(f"/{_escaped(step)}" for step in _steps(path, body, known))


def _steps(path: tuple[Step, ...], body: Any, known: BodyContext) -> Iterator[Step]:
    for step in path:
        if not _is_plain(step, known):
            return
        if isinstance(body, dict) and isinstance(step, str):
            yield step
            if step not in body:
                return
        elif isinstance(body, list) and isinstance(step, int) and step < len(body):
            yield step
        else:
            return
        body = body[step]


def _escaped(step: Step) -> str:
    return quote(str(step).replace("~", "~0").replace("/", "~1"), safe="")


def _located(path: tuple[Step, ...], kind: str, said: str, fields: Collection[str]) -> tuple[tuple[Step, ...], str]:
    """Where it is, and what; rules for several fields begin with the name of the one that is to blame."""
    what = "unknown key" if kind == "extra_forbidden" else said.removeprefix("Value error, ")
    name, _, rest = what.partition(": ")
    return ((name,), rest) if not path and rest and name in fields else (path, what)


def _step(step: Step, known: BodyContext) -> str:
    return str(step) if _is_plain(step, known) else "…"


def _is_plain(step: Step, known: BodyContext) -> bool:
    """Whether a step of a field's path may be shown: it may be a secret or worse in the wrong place."""
    return isinstance(step, int) or step in known.apis or re.fullmatch("[A-Za-z_]{1,32}", step) is not None
