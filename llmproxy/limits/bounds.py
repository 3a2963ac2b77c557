"""What a request may use at most, told from its body before it is sent.

Input: no token is shorter than a byte, so the body's size bounds it, and so does the model's context window. What a
body only refers to (an image by its URL, a stored conversation) cannot be seen in it. Output: what the request sets as
its own maximum, once for each choice it asks for; where it sets none, what the API's settings say. A body that is no
JSON object, or that could not be read, has no parameters to look at.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

MOST = 10**9  # tokens; what is beyond is not meant

_MAXIMA = frozenset(
    ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "max_new_tokens", "maxTokens")
)
_CHOICES = frozenset(("n", "best_of", "candidateCount", "candidate_count"))
_NUMBER = rb"[ \t\r\n]*:[ \t\r\n]*([0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE]\+?[0-9]{1,2})?)"
_MAXIMUM = re.compile(rb'"(?:' + b"|".join(name.encode() for name in sorted(_MAXIMA)) + rb')"' + _NUMBER)
_CHOICE = re.compile(rb'"(?:' + b"|".join(name.encode() for name in sorted(_CHOICES)) + rb')"' + _NUMBER)
# Endpoints that only read: their answers have no tokens.
_SILENT = frozenset(
    b"embeddings moderations classifications count_tokens input_tokens tokenize "
    b"countTokens embedContent batchEmbedContents".split()
)


class Bound(NamedTuple):
    """Tokens that a request may use at most."""

    input: int = 0
    output: int = 0


def bound(path: bytes, body: bytes | None, size: int, default_output: int) -> Bound:
    """The bound of one request.

    @param body: The whole of it; C{None} where it was not read.
    @param size: Its size in bytes, whether it was read or not.
    @param default_output: Tokens of output where the request sets no maximum of its own.
    """
    if body is not None and body[:64].lstrip()[:1] not in (b"{", b"["):
        return Bound()
    if path.rpartition(b"/")[2].rpartition(b":")[2] in _SILENT:
        return Bound(size, 0)
    most, choices = (None, 1) if body is None else _asked(body)
    return Bound(size, min((default_output if most is None else most) * choices, MOST))


def _asked(body: bytes) -> tuple[int | None, int]:
    """The greatest maximum that stands anywhere in the body, and the most choices."""
    if b"\\u00" in body:  # a name may be spelled in another way than the one that is looked for
        return _parsed(body)
    found = _MAXIMUM.findall(body) if b"oken" in body else ()
    several = b'"n"' in body or b'"best_of"' in body or b'"candidate' in body
    choices = _CHOICE.findall(body) if several else ()
    return max(map(_whole, found), default=None), max(1, *map(_whole, choices)) if choices else 1


def _whole(number: bytes) -> int:
    return min(int(number) if number.isdigit() else int(float(number)), MOST)


def _parsed(body: bytes) -> tuple[int | None, int]:
    try:
        waiting: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        return None, 1  # a provider will not be able to read it either
    maxima: list[int] = []
    choices = [1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            maxima += [n for name in _MAXIMA & value.keys() if (n := _count(value[name])) is not None]
            choices += [n for name in _CHOICES & value.keys() if (n := _count(value[name])) is not None]
    return max(maxima, default=None), max(choices)


def _count(value: Any) -> int | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return int(min(value, MOST)) if plain and value >= 0 else None
