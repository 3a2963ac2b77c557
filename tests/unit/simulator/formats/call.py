"""A request as the formats see it, and reading their streams."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmproxy.simulator.dialect import Call, Reply


def call(
    path: str,
    body: Mapping[str, Any] | None = None,
    method: str = "POST",
    query: Mapping[str, str] | None = None,
    events: int = 2,
    counts: Mapping[str, int] | None = None,
    style: str = "",
    tier: str | None = None,
    **fields: str,
) -> Call:
    """A call whose two words of answer are always the same."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    steered = {"counts": counts or {}, "style": style, "tier": tier}
    return Call(method, path, query or {}, named, body or {}, "00" * 32, 0, events, **steered)  # type: ignore[arg-type]


def dollars(reply: Reply) -> float:
    """What it is billed."""
    assert reply.bill is not None and reply.bill.pico is not None
    return reply.bill.pico / 1e12


def spoken(reply: Reply) -> Any:
    """The JSON of a whole answer."""
    assert reply.body is not None
    return json.loads(reply.body)


def events(reply: Reply) -> list[Any]:
    """The JSON of each event; C{[DONE]} as a string."""
    found = []
    for piece in reply.pieces:
        value = piece.rpartition(b"data: ")[2].decode()
        found.append("[DONE]" if value.strip() == "[DONE]" else json.loads(value))
    return found
