"""Holds what a request asks for against the most output that it may ask for. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmproxy.errors import ParamNotAllowed
from llmproxy.metering.cost_ceiling import UNKNOWN_CHOICES, UNKNOWN_MAXIMA, UNKNOWN_MEMBERS
from llmproxy.metering.dialects.operation import UNKNOWN_OPERATION, Members, Path, ProviderOperation, member

MAX_DIGITS = 15  # of a number that is written as a text
ENDLESS = 2**63  # tokens: more than is ever meant


def output_members(operation: ProviderOperation) -> frozenset[str]:
    """The top-level members by which a request says how much output it asks for."""
    if operation is UNKNOWN_OPERATION or operation.requests is not None:
        return UNKNOWN_MEMBERS
    return frozenset(path[0] for path in (*operation.maxima, *operation.choices))


def check_output(operation: ProviderOperation, members: Members, maximum: int, whose: str) -> None:
    """Refuse a request that asks for more tokens of output, all its choices together; L{ParamNotAllowed} names the
    member and the maximum.

    One that says nothing of it asks for nothing that could be held against the maximum. Of a batch each request is
    checked, and one whose requests stand elsewhere is refused.

    @param whose: What has the maximum: C{API}, C{project} or C{token}.
    """
    if operation.requests is None:
        known = operation is not UNKNOWN_OPERATION
        maxima, choices = (operation.maxima, operation.choices) if known else (UNKNOWN_MAXIMA, UNKNOWN_CHOICES)
        _check(members, maxima, choices, maximum, whose)
        return
    requests = operation.requests(members)
    if not requests:
        raise ParamNotAllowed(
            f"This {whose} allows at most {maximum} output tokens, and the batch does not tell what its requests ask "
            "for."
        )
    for _, request in requests:
        _check(request, UNKNOWN_MAXIMA, UNKNOWN_CHOICES, maximum, whose)


def _check(members: Members, maxima: Sequence[Path], choices: Sequence[Path], maximum: int, whose: str) -> None:
    _check_spelling(members, (*maxima, *choices))
    times = max(1, *(_number(members, path, maximum, whose) or 1 for path in choices)) if choices else 1
    for path in maxima:
        wanted = _number(members, path, maximum, whose)
        if wanted is not None and wanted * times > maximum:
            each = f" for each of {times} choices" if times > 1 else ""
            raise ParamNotAllowed(
                f'The parameter "{".".join(path)}" asks for {_shown(wanted)} output tokens{each}. This {whose} allows '
                f"at most {maximum}."
            )


def _number(members: Members, path: Path, maximum: int, whose: str) -> int | None:
    """The number at a path; C{None} where nothing is there. L{ParamNotAllowed} for what a server may read as any."""
    value = member(members, path)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return ENDLESS if value >= ENDLESS else math.ceil(value)
    raise ParamNotAllowed(
        f'The parameter "{".".join(path)}" is no number that can be held against the {maximum} output tokens that this '
        f"{whose} allows."
    )


def _check_spelling(members: Members, paths: Sequence[Path]) -> None:
    """Refuse C{Max_Tokens} beside or for C{max_tokens}, at any depth: some servers' JSON readers take either."""
    exact: dict[Path, set[str]] = {}
    for path in paths:
        for depth, name in enumerate(path):
            exact.setdefault(path[:depth], set()).add(name)
    for parent, names in exact.items():
        within = member(members, parent) if parent else members
        if isinstance(within, Mapping):
            folded = {name.casefold() for name in names}
            if any(_is_misspelled(key, names, folded) for key in within):
                raise ParamNotAllowed("What bounds the output must be spelled exactly as documented, case included.")


def _is_misspelled(key: Any, names: set[str], folded: set[str]) -> bool:
    return key not in names and key.casefold() in folded


def _shown(count: int) -> str:
    return str(count) if count < ENDLESS else "endless"
