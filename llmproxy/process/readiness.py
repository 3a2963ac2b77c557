"""What several workers say of how they are, as one: each check with the places of those that it fails for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from llmproxy.base.peers import PeerAnswer

MAX_STATE_CHARACTERS = 600


class Checks(NamedTuple):
    """States by their names, each C{ok} or what is wrong.

    @ivar required: Those without which no request is to be sent here; C{lesser}: those that are only mentioned.
    """

    required: Mapping[str, str]
    lesser: Mapping[str, str]


def of_workers(answers: Iterable[PeerAnswer], problem: str = "") -> Checks:
    """The checks of all places together.

    @param responses: C{[required, lesser]} of each place.
    @param problem: What the supervisor has to say.
    """
    required: dict[str, dict[int, str]] = {}
    lesser: dict[str, dict[int, str]] = {}
    missing: dict[int, str] = {}
    for worker, answer, why in answers:
        if why:
            missing[worker] = why
            continue
        for found, states in ((required, answer[0]), (lesser, answer[1])):
            for name, state in states.items():
                found.setdefault(name, {})[worker] = state
    workers = {"workers": "; ".join(f"worker {worker}: {why}" for worker, why in missing.items()) or "ok"}
    return Checks(
        {name: _together(states) for name, states in required.items()} | workers,
        {name: _together(states) for name, states in lesser.items()} | {"roll": problem or "ok"},
    )


def _together(states: Mapping[int, str]) -> str:
    """What all say alike is said once."""
    if len(set(states.values())) == 1:
        return next(iter(states.values()))
    wrong = "; ".join(f"worker {worker}: {state}" for worker, state in sorted(states.items()) if state != "ok")
    return wrong[:MAX_STATE_CHARACTERS]
