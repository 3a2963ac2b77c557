"""Request parameters: what L{request_reader} found, held against the lists of an API, a project or a token.

What could be read in more than one way is refused: a body must be one JSON object in UTF-8 (RFC 8259) without a byte
order mark, or a form, with no listed parameter in it twice, and whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from llmproxy.errors import BodyUnreadable, ParamNotAllowed
from llmproxy.errors.policy import ParamRequired
from llmproxy.http.request_reader import RequestContent

MAX_VALUE_CHARACTERS = 1024  # characters of a value that a pattern is tried on


def checked_members(content: RequestContent, names: Iterable[str]) -> Mapping[str, Any]:
    """The parameters of a request; L{BodyUnreadable} where they cannot be read, or in more ways than one.

    @param names: Those that are checked.
    """
    if content.problem:
        raise BodyUnreadable(content.problem)
    if content.form == "unknown" or not content.complete:
        raise BodyUnreadable
    checked = {name.casefold() for name in names}
    if any(name.casefold() in checked for name in content.repeated):
        raise BodyUnreadable("The request body holds a key twice.")
    if any(name.casefold() in checked for name in content.oversize):
        raise BodyUnreadable("The request body holds a parameter of a length that cannot be checked here.")
    return content.members


def check_params(values: Mapping[str, Any], whitelist: Mapping[str, Sequence[str]], whose: str = "API") -> None:
    """Refuse a body in which a listed parameter has a value that none of its patterns allows.

    A parameter that is not there is allowed. L{ParamNotAllowed} says which one is not.

    @param whose: Whose list it is: the C{API}'s, a C{project}'s or a C{token}'s.
    """
    for name, patterns in whitelist.items():
        if name in values:
            check_param(name, values[name], patterns, whose)
    if whitelist:
        _check_spelling(values, whitelist)


def check_required(values: Mapping[str, Any], required: Iterable[Sequence[str]], whose: str = "API") -> None:
    """Refuse a body that lacks a parameter, or has it empty or C{null}: L{ParamRequired} names it.

    @param required: Names of which one must be there, of each.
    """
    for names in required:
        if all(values.get(name) in (None, "") for name in names):
            listed = " or ".join(f'"{name}"' for name in names)
            raise ParamRequired(f"This {whose} requires the parameter {listed}.")


def check_param(name: str, value: object, patterns: Sequence[str], whose: str = "API") -> None:
    """Refuse a value that none of the patterns (globs, case-sensitive) allows.

    A number, C{true}, C{false} or C{null} is compared as JSON writes it; an object or array is never allowed.
    """
    text = value if isinstance(value, str) else json.dumps(value) if _is_plain(value) else None
    if text is None or len(text) > MAX_VALUE_CHARACTERS or not any(fnmatchcase(text, pattern) for pattern in patterns):
        raise ParamNotAllowed(f'The parameter "{name}" has a value that this {whose} does not allow.')


def model_of(values: Mapping[str, Any]) -> str:
    """The model that a parsed body asks for, C{""} where it names none.

    L{ParamNotAllowed} where that is not certain: it is no string, or is spelled C{Model}.
    """
    _check_spelling(values, ("model",))
    model = values.get("model", "")
    if not isinstance(model, str) or len(model) > MAX_VALUE_CHARACTERS or not model.isprintable():
        raise ParamNotAllowed('The parameter "model" is not a name.')
    return model


def _check_spelling(values: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse C{Model} beside or for C{model}: some providers' JSON readers take either."""
    exact = set(names)
    folded = {name.casefold() for name in exact}
    for key in values:
        if key not in exact and key.casefold() in folded:
            raise ParamNotAllowed(
                "A parameter that is checked here must be spelled exactly as documented, case included."
            )


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float)
