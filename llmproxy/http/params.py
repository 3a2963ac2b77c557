"""Request parameters: a JSON body read so strictly that no provider can read another value in it.

Whatever C{Content-Type} says, the body must be one JSON object in UTF-8 (RFC 8259): no byte order mark, no other
encoding, no content coding, no key twice in any object, nothing after it, no C{NaN} or C{Infinity}. Anything else is
refused where parameters are checked, as is a body that would take long to read: bounds on depth, on the number of
values and on the digits of a number hold the reactor for some 50 ms at most, whatever a client sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from llmproxy.errors import BodyUnreadable, ParamNotAllowed
from llmproxy.http import fields

MAX_DEPTH = 64
MAX_DIGITS = 400
MAX_CONTAINERS = 10_000  # objects and arrays
MAX_KEYS = 25_000
MAX_STRINGS = 60_000
MAX_VALUES = 300_000  # as many token ids may stand in one request for embeddings
MAX_VALUE = 1024  # characters of a value that a pattern is tried on

_DIGITS_AS_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
_LONG_NUMBER = b"0" * (MAX_DIGITS + 1)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(body: bytes, lines: Iterable[bytes] = ()) -> dict[str, Any]:
    """The JSON object in C{body}; L{BodyUnreadable} where it is none or not strictly one.

    @param lines: The request's header lines: a body with a content coding is refused.
    """
    if any(coding.strip().lower() not in (b"", b"identity") for coding in _codings(lines)):
        raise BodyUnreadable("This API checks request parameters, which needs a body without content coding.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as e:
        raise BodyUnreadable("The request body is not UTF-8.") from e
    _check_bounds(body)
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as e:
        raise BodyUnreadable("The request body is not valid JSON.") from e
    if not isinstance(value, dict):
        raise BodyUnreadable("The request body is not a JSON object.")
    return value


def check(values: Mapping[str, Any], whitelist: Mapping[str, Sequence[str]]) -> None:
    """Refuse a body in which a listed parameter has a value that none of its patterns allows.

    A parameter that is not there is allowed. L{ParamNotAllowed} says which one is not.
    """
    for name, patterns in whitelist.items():
        if name in values:
            check_value(name, values[name], patterns)
    if whitelist:
        _check_spelling(values, whitelist)


def check_value(name: str, value: object, patterns: Sequence[str]) -> None:
    """Refuse a value that none of the patterns (globs, case-sensitive) allows.

    A number, C{true}, C{false} or C{null} is compared as JSON writes it; an object or array is never allowed.
    """
    text = value if isinstance(value, str) else json.dumps(value) if _is_plain(value) else None
    if text is None or len(text) > MAX_VALUE or not any(fnmatchcase(text, pattern) for pattern in patterns):
        raise ParamNotAllowed(f'The parameter "{name}" has a value that this API does not allow.')


def model_in(values: Mapping[str, Any]) -> str:
    """The model that a parsed body asks for, C{""} where it names none.

    L{ParamNotAllowed} where that is not certain: it is no string, or is spelled C{Model}.
    """
    _check_spelling(values, ("model",))
    model = values.get("model", "")
    if not isinstance(model, str) or len(model) > MAX_VALUE or not model.isprintable():
        raise ParamNotAllowed('The parameter "model" is not a name.')
    return model


def model_of(body: bytes, lines: Iterable[bytes] = ()) -> str:
    """As L{model_in}, for a body not yet parsed; L{BodyUnreadable} as L{parse} says."""
    return model_in(parse(body, lines))


def _check_spelling(values: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse C{Model} beside or for C{model}: some providers' JSON readers take either."""
    exact = set(names)
    folded = {name.casefold() for name in exact}
    for key in values:
        if key not in exact and key.casefold() in folded:
            raise ParamNotAllowed(
                "A parameter that this API checks must be spelled exactly as documented, case included."
            )


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _codings(lines: Iterable[bytes]) -> list[bytes]:
    return b",".join(fields.values(lines, b"content-encoding")).split(b",")


def _check_bounds(body: bytes) -> None:
    """Refuse what would take too long, or recurse too deep, to parse. Linear, and mostly C."""
    plain = body
    if b"\\" in body:  # pairs from the left, as a JSON reader takes them; then only quotes that delimit are left
        plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 2 * MAX_STRINGS:
        raise _too_complex()
    outside = b'"'.join(plain.split(b'"')[::2])
    opened = outside.count(b"{") + outside.count(b"[")
    if opened > MAX_CONTAINERS or outside.count(b":") > MAX_KEYS or outside.count(b",") > MAX_VALUES:
        raise _too_complex()
    if opened > MAX_DEPTH:
        _check_depth(outside.translate(None, _NOT_BRACKETS))
    if len(outside) > MAX_DIGITS and _LONG_NUMBER in outside.translate(_DIGITS_AS_ZERO):
        raise BodyUnreadable(f"The request body holds a number of more than {MAX_DIGITS} digits.")


def _check_depth(brackets: bytes) -> None:
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise BodyUnreadable(f"The request body is nested deeper than {MAX_DEPTH} levels.")


def _too_complex() -> BodyUnreadable:
    return BodyUnreadable("The request body holds more values than this API can check.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise BodyUnreadable("The request body holds a key twice.")
    return values


def _refuse(constant: str) -> NoReturn:
    raise BodyUnreadable(f"The request body holds {constant}, which is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
