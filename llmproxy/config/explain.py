"""Turns what pydantic found wrong into sentences for whoever wrote the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmproxy.config import fields
from llmproxy.config.problems import Path, did_you_mean, dotted, quoted

Sentence = Callable[[ErrorDetails, Path], str]


def explain(error: ValidationError) -> Iterator[tuple[Path, str]]:
    """Every finding as the path it is about and what is wrong there."""
    for found in error.errors(include_url=False):
        if found["type"] == "too_short" and found["input"]:
            continue  # only what is right in it was counted, and what is wrong is found anyway
        path = found["loc"][:-1] if found["loc"][-1:] == ("[key]",) else found["loc"]
        sentence: Sentence = _MESSAGES.get(found["type"], _other)
        message = sentence(found, path)
        yield (path or ("default_api",) if found["type"] == "value_error" else path), message


def _own(found: ErrorDetails, path: Path) -> str:
    return str(found["ctx"]["error"])


def _missing(found: ErrorDetails, path: Path) -> str:
    return "is missing"


def _unknown(found: ErrorDetails, path: Path) -> str:
    if path[-1] == "<<":
        return "merging mappings is not part of YAML 1.2 (give the section an anchor, and use an alias for it)"
    return f"is not a setting{_hint(path)}"


def _hint(path: Path) -> str:
    """The nearest setting of the same section, or else one of that name in another."""
    key, model = str(path[-1]), fields.section(path[:-1])
    near = did_you_mean(key, model.model_fields) if model else ""
    if near:
        return near
    others = [dotted(leaf.path) for leaf in fields.leaves() if leaf.path[-1] == key]
    return f" here (did you mean {' or '.join(others)}?)" if 0 < len(others) < 4 else ""


def _choice(found: ErrorDetails, path: Path) -> str:
    choices = [word.strip(" '") for word in found["ctx"]["expected"].replace(" or ", ", ").split(",")]
    value = found["input"]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"{quoted(value)} is not one of {', '.join(choices)}{hint}"


def _not_a_mapping(found: ErrorDetails, path: Path) -> str:
    value = found["input"]
    return "is empty" if value is None else f"is {quoted(value)}, not a mapping of settings"


def _too_short(found: ErrorDetails, path: Path) -> str:
    return "is empty; it needs at least one entry"


def _too_small(found: ErrorDetails, path: Path) -> str:
    return f"{quoted(found['input'])} is too small (at least {found['ctx']['ge']})"


def _too_large(found: ErrorDetails, path: Path) -> str:
    return f"{quoted(found['input'])} is too large (at most {found['ctx']['le']})"


def _other(found: ErrorDetails, path: Path) -> str:
    return f"{quoted(found['input'])} will not do: {found['msg']}"


_MESSAGES: dict[str, Sentence] = {
    "value_error": _own,
    "missing": _missing,
    "extra_forbidden": _unknown,
    "literal_error": _choice,
    "model_type": _not_a_mapping,
    "model_attributes_type": _not_a_mapping,
    "dict_type": _not_a_mapping,
    "too_short": _too_short,
    "greater_than_equal": _too_small,
    "less_than_equal": _too_large,
}
