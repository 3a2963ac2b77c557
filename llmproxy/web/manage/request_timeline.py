"""One request's time, step by step, from what its record has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from llmproxy.base.request_steps import Step, decode
from llmproxy.model import RequestRecord
from llmproxy.web.manage.deferred_model import DeferredModel

LEAST_SECONDS = 0.000_000_5  # a step that took less has no place of its own


class TimelineStep(DeferredModel):
    """One stretch of a request's time."""

    step: Literal[
        "scheduler",
        "auth",
        "body",
        "cache",
        "limits",
        "turn",
        "admission",
        "connection",
        "attempt",
        "pause",
        "response",
    ] = Field(description="What it went into.")
    at: float = Field(description="When it began, in seconds from the request's arrival.")
    seconds: float
    upstream: int | None = Field(description="Of an attempt: the upstream's number; else null. Likewise the next two.")
    key: int | None = Field(description="The number of the provider's key.")
    result: str | None = Field(description="What came of it: a status, or a word such as connect.")


def timeline(record: RequestRecord) -> list[dict[str, Any]]:
    """L{TimelineStep} of each, in their order."""
    return [
        {
            "step": each.name,
            "at": round(each.at, 6),
            "seconds": round(each.seconds, 6),
            "upstream": each.upstream,
            "key": each.key,
            "result": each.result,
        }
        for each in _steps(record)
    ]


def _steps(record: RequestRecord) -> Iterator[Step]:
    steps = decode(record.steps)
    if not any(each.name == "attempt" for each in steps):
        steps += _usual(record, sum(each.seconds for each in steps))
    yield from steps
    first = record.first_byte
    if first is not None:
        yield Step("response", first, max(record.duration - first, 0.0))


def _usual(record: RequestRecord, at: float) -> Iterator[Step]:
    """What follows in a request that was sent once at most, and of which nothing else was written down."""
    first, upstream = record.first_byte, record.upstream_time
    if first is None:
        rest = record.duration - at
        if rest > LEAST_SECONDS:
            yield Step("cache" if record.cache in ("hit", "coalesced") else "auth" if not at else "response", at, rest)
        return
    sent = first if upstream is None else max(first - upstream, 0.0)
    if not at:
        yield Step("auth", 0.0, record.auth_time)
        at = record.auth_time
    if sent - at > LEAST_SECONDS:
        yield Step("turn" if record.queue_time else "admission", at, sent - at)
    if upstream is not None:
        status = None if record.upstream_status is None else str(record.upstream_status)
        yield Step("attempt", sent, first - sent, 0, 0, status)
