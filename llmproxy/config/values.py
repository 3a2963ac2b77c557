"""Plain values: each takes what the file said and returns it cleaned, or raises L{ValueError} with what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from llmproxy.base import budgets
from llmproxy.config.external_text import ExternalText
from llmproxy.config.problems import quoted
from llmproxy.config.units import truncate
from llmproxy.model import Budget

_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
MAX_WORKERS = 256
MAX_EXACT_INTEGER = 2**53  # what JSON and YAML readers of every kind agree on


def text(value: Any) -> str:
    """Any text. Numbers and the like must be quoted, so that nothing is read as what it was not meant to be."""
    if isinstance(value, bool | int | float):
        raise ValueError(f"{quoted(value)} is not text (write it in quotes)")
    if not isinstance(value, str):
        raise ValueError("is empty" if value is None else f"is {quoted(value)}, not text")
    if not value.isascii() and re.search(r"[\ud800-\udfff]", value):
        raise ValueError("is not UTF-8")
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value):
        raise ValueError("holds a control character")
    return str(value)


def name(value: Any) -> str:
    """Text that is not empty."""
    if not text(value).strip():
        raise ValueError("is empty")
    return str(value)


def flag(value: Any) -> bool:
    """C{true} or C{false}; from the environment also the other usual words."""
    given = _FLAGS.get(value.lower()) if isinstance(value, ExternalText) else value
    if not isinstance(given, bool):
        raise ValueError(f"{quoted(value)} is neither true nor false")
    return given


def whole(value: Any) -> int:
    """A whole number."""
    given = int(value) if isinstance(value, ExternalText) and re.fullmatch(r"-?[0-9]{1,18}", value) else value
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) > MAX_EXACT_INTEGER:
        raise ValueError(f"{quoted(value)} is not a whole number")
    return given


def workers(value: Any) -> int | str:
    """How many processes share the work."""
    if value == "auto":
        return "auto"
    try:
        count = whole(value)
    except ValueError:
        raise ValueError(f"{quoted(value)} is not a whole number, nor auto") from None
    if count < 1:
        raise ValueError(f"{quoted(value)} is too small (at least 1)")
    if count > MAX_WORKERS:
        raise ValueError(f"{quoted(value)} is too large (at most {MAX_WORKERS})")
    return count


def amount(value: Any) -> float:
    """A number that is not below zero, such as a price."""
    given = value.meaning if isinstance(value, ExternalText) else value
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= MAX_EXACT_INTEGER:
        raise ValueError(f"{quoted(value)} is not a number from 0")
    return float(given)


def items(value: Any) -> Any:
    """A list; from the environment, its items with commas between them."""
    if isinstance(value, ExternalText):
        return [ExternalText(part.strip(), value.source) for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return value
    if value is None:
        raise ValueError("is empty")
    if isinstance(value, dict):
        raise ValueError("is a mapping, not a list")
    raise ValueError(f"{quoted(value)} is not a list (write [{quoted(value)}])")


def one_or_more(value: Any) -> Any:
    """A list, or its only item."""
    return items(value) if isinstance(value, ExternalText | list | tuple) or value is None else items([value])


def usd(value: Any) -> str:
    """A budget in dollars, C{20/month}."""
    return _budget(value, budgets.usd, budgets.usd_text)


def token_budget(value: Any) -> str:
    """A budget in tokens, C{1000000/day}."""
    return _budget(value, budgets.tokens, budgets.tokens_text)


def _budget(value: Any, read: Callable[[str], Budget], write: Callable[[Budget], str]) -> str:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return write(read(str(truncate(value)) if plain and not isinstance(value, float) else str(value)))
    except ValueError as e:
        raise ValueError(f"{quoted(value)} {e}") from None


def pattern(value: Any) -> str:
    """A glob for a parameter's value; a number, C{true} and C{false} stand for what JSON writes so."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, float) else str(whole(value)) if isinstance(value, int) else text(value)


def directory(value: Any) -> str:
    """A directory, by its absolute path; not the root, which has everything in it."""
    path = os.path.normpath(name(value))
    if not path.startswith("/") or not path.strip("/"):
        raise ValueError(f"{quoted(value)} is not the absolute path of a directory (try /run/secrets)")
    return path


def cache_backend(value: Any) -> str:
    """The name of a cache backend; C{in-memory} is another word for C{memory}."""
    return "memory" if name(value).lower() == "in-memory" else str(value)
