"""What forms of projects and tokens have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CHANGED_MEANWHILE = (
    "Somebody else has changed it since this form was opened, and nothing was saved. The form has what you wrote; the "
    "page has what is stored now. Save again to have it as in the form."
)
NOTHING_FOUND: Mapping[str, Any] = {"data": [], "total": 0, "next_cursor": None}  # a list that was not read


class LimitField(NamedTuple):
    """A limit in a form; C{hint} says how it is written."""

    name: str
    label: str
    hint: str
    is_number: bool = True


LIMIT_FIELDS = (
    LimitField("requests_per_minute", "Requests per minute", "60"),
    LimitField("tokens_per_minute", "Tokens per minute", "100000"),
    LimitField("concurrency", "Concurrent requests", "10"),
    LimitField("budget_usd", "Budget in dollars", "20/month, 2/day", is_number=False),
    LimitField("budget_tokens", "Budget in tokens", "1000000/day", is_number=False),
    LimitField("soft_budget_usd", "Warn at dollars", "15/month", is_number=False),
    LimitField("soft_budget_tokens", "Warn at tokens", "800000/day", is_number=False),
)


def limit_values(form: Mapping[str, str]) -> dict[str, Any]:
    """The limits of a form as the management API takes them: what is empty lifts one."""
    values: dict[str, Any] = {}
    for field in LIMIT_FIELDS:
        if field.name in form:
            text = form[field.name].strip()
            values[field.name] = number(text) if field.is_number else words(text)
    return values


def number(text: str) -> int | str | None:
    """A whole number; text that is none stays, for the API to say so; C{None} where there is none."""
    text = text.strip().replace(",", "").replace("_", "")
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else text


def words(text: str) -> list[str]:
    """What stands between commas, spaces or lines."""
    return text.replace(",", " ").split()


def labels_of(text: str) -> list[str]:
    """The labels, or C{name=text} of metadata, that a list is narrowed to: what stands between commas."""
    return [each for part in text.split(",") if (each := part.strip())]


def note_values(form: Mapping[str, str]) -> dict[str, Any]:
    """Labels and metadata of a form as the management API takes them."""
    values: dict[str, Any] = {}
    if "labels" in form:
        values["labels"] = words(form["labels"])
    if "metadata" in form:
        lines = [line.partition("=") for line in form["metadata"].splitlines() if line.strip()]
        values["metadata"] = {name.strip(): text.strip() for name, _, text in lines}
    return values


def metadata_text(metadata: Mapping[str, str]) -> str:
    """As L{note_values} reads it."""
    return "\n".join(f"{name}={text}" for name, text in metadata.items())
