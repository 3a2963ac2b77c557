"""The values between the simulator's HTTP side and the providers' formats, and what a format has to offer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from llmproxy.simulator.billing import Bill
from llmproxy.simulator.text import Text
from llmproxy.simulator.use import Use

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
CREATED = 1_764_000_000
"""The C{created} of every response: the same request gets the same response."""


class Refused(Exception):
    """A request that the provider would answer with an error: put into its own shape by its format."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Call:
    """One request, as far as a format needs to know it.

    @ivar path: What follows the version: C{chat/completions}, C{models/gemini:generateContent}; decoded.
    @ivar fields: The first value of each header field, by lower-case name.
    @ivar body: The JSON object that was sent; empty where none was.
    @ivar digest: SHA-256 of the request body, in hex: where ids and texts come from.
    @ivar counts: What the response is to have consumed, by the names of L{Use}; the rest is words.
    @ivar tier: The kind of work that it is to be answered with, or C{None}: as the request says.
    @ivar style: Whose way of reporting usage; C{""} for the format's own.
    """

    method: str
    path: str
    query: Mapping[str, str]
    fields: Mapping[str, str]
    body: Mapping[str, Any]
    digest: str
    length: int
    events: int = 8
    size: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    tier: str | None = None
    style: str = ""

    def use(self, prompt: int, completion: int = 0) -> Use:
        """What was consumed: so many tokens of text, but for what was steered otherwise."""
        return Use(input=prompt, output=completion).but(self.counts)

    @cached_property
    def text(self) -> Text:
        return Text(self.digest, self.events, self.size)

    def need(self, *names: str) -> None:
        """Refuse a body that lacks one of these."""
        for name in names:
            if self.body.get(name) in (None, "", []):
                raise Refused(400, f"Missing required parameter: '{name}'.", "missing_required_parameter")


@dataclass(frozen=True)
class Reply:
    """One response: complete in C{body}, or made piece by piece, each of which is one event and one write.

    @ivar length: Bytes of all pieces together, or C{None} where that is not known before.
    @ivar bill: What it costs; C{None} for what providers give away.
    """

    status: int = 200
    content_type: str = JSON
    body: bytes | None = None
    pieces: Iterable[bytes] = ()
    length: int | None = None
    phrase: bytes | None = None
    lines: tuple[bytes, ...] = ()
    bill: Bill | None = None

    def charged(self, bill: Bill) -> Reply:
        return replace(self, bill=bill)


class Dialect(Protocol):
    """What a module in L{llmproxy.simulator.formats} offers."""

    NAME: str

    def credential(self, call: Call) -> str | None:
        """The key, if it stands where this provider looks for it."""

    def reply(self, call: Call) -> Reply:
        """Answer, or raise L{Refused}."""

    def error(self, status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
        """The error body of this provider."""

    def error_event(self) -> bytes:
        """What a stream says when the provider fails in the middle of it."""

    def lines(self, request_id: str) -> list[bytes]:
        """The header lines that this provider adds to every response."""


def encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def whole(value: Any, status: int = 200) -> Reply:
    """A JSON response."""
    return Reply(status, JSON, encode(value))


def stream(pieces: Iterable[bytes], content_type: str = SSE) -> Reply:
    return Reply(200, content_type, pieces=pieces)


def event(value: Any, name: str = "", end: str = "\n") -> bytes:
    """One server-sent event with C{value} as JSON."""
    head = f"event: {name}{end}" if name else ""
    return f"{head}data: ".encode() + encode(value) + (end * 2).encode()


def bearer(call: Call) -> str | None:
    scheme, _, key = call.fields.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None
