"""A stored response: what is served of it, and what says for how long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

FORMAT = (
    b"llmproxy-cache-1\n"  # what an entry in a store outside this process begins with; another number, another format
)

ChunkTimings = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Entry:
    """A stored response. Times are seconds, C{generated_at} since the epoch.

    @ivar head: Its field lines, joined by CRLF, without those that must not be stored and those that frame a message.
    @ivar generated_at: When it was made, as far as its C{Age} and C{Date} tell: its age is what has passed since then.
    @ivar lifetime: For how long it is fresh.
    @ivar no_cache: It must be revalidated before every use (C{no-cache}).
    @ivar must_revalidate: It must not be used once it is stale (C{must-revalidate} and the like).
    @ivar stale_while_revalidate: How long after that it may still be served while a fresh one is fetched; likewise
        C{stale_if_error}, where none can be had (RFC 5861).
    @ivar etag: Its entity tag, quotes and all; C{last_modified}: its C{Last-Modified}; C{b""} if it has none, or if no
        condition may be made of it, as for a C{POST}.
    @ivar vary: The request fields by which it was selected, in lower case.
    @ivar chunk_timings: For a stream, which bytes came how long after the ones before: (length, seconds).
    """

    code: int
    phrase: bytes
    head: bytes
    body: bytes
    generated_at: float
    lifetime: float
    no_cache: bool = False
    must_revalidate: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    etag: bytes = b""
    last_modified: bytes = b""
    vary: tuple[bytes, ...] = ()
    stream: bool = False
    chunk_timings: ChunkTimings = ()

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n") if self.head else []

    def age(self, now: float) -> float:
        """Its current age (RFC 9111, section 4.2.3)."""
        return max(0.0, now - self.generated_at)


@dataclass(frozen=True, slots=True)
class Variants:
    """What stands under a key whose responses are selected by request fields: the names of these, in lower case.

    @ivar generation: Part of the keys of the variants, so that what is forgotten here does not come back.
    """

    names: tuple[bytes, ...]
    generation: str


def encode(kept: Entry | Variants) -> bytes:
    """As bytes, for a store outside this process."""
    if isinstance(kept, Variants):
        return FORMAT + _json({"vary": _texts(kept.names), "generation": kept.generation}) + b"\n"
    told = {
        "code": kept.code,
        "phrase": kept.phrase.decode("latin-1"),
        "head": kept.head.decode("latin-1"),
        "born": kept.generated_at,
        "lifetime": kept.lifetime,
        "always_ask": kept.no_cache,
        "never_stale": kept.must_revalidate,
        "while_revalidating": kept.stale_while_revalidate,
        "if_error": kept.stale_if_error,
        "etag": kept.etag.decode("latin-1"),
        "modified": kept.last_modified.decode("latin-1"),
        "vary": _texts(kept.vary),
        "stream": kept.stream,
        "gaps": kept.chunk_timings,
        "length": len(kept.body),
    }
    return b"%b%b\n%b" % (FORMAT, _json(told), kept.body)


def decode(data: bytes) -> Entry | Variants | None:
    """The other way; C{None} for whatever is not one in this format, be it cut short."""
    if not data.startswith(FORMAT):
        return None
    told, end, body = data[len(FORMAT) :].partition(b"\n")
    if not end:
        return None
    try:
        found = json.loads(told)
        if "generation" in found:
            return Variants(_names(found["vary"]), str(found["generation"]))
        return _entry(found, body) if found["length"] == len(body) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _entry(found: dict[str, object], body: bytes) -> Entry:
    def text(name: str) -> bytes:
        value = found[name]
        if not isinstance(value, str):
            raise TypeError(name)
        return value.encode("latin-1")

    def number(name: str) -> float:
        value = found[name]
        if not isinstance(value, int | float):
            raise TypeError(name)
        return float(value)

    code, chunk_timings = found["code"], found["gaps"]
    if not isinstance(code, int) or not isinstance(chunk_timings, list) or not 200 <= code <= 599:
        raise TypeError("code or gaps")
    return Entry(
        code=code,
        phrase=text("phrase"),
        head=text("head"),
        body=body,
        generated_at=number("born"),
        lifetime=number("lifetime"),
        no_cache=found["always_ask"] is True,
        must_revalidate=found["never_stale"] is True,
        stale_while_revalidate=number("while_revalidating"),
        stale_if_error=number("if_error"),
        etag=text("etag"),
        last_modified=text("modified"),
        vary=_names(found["vary"]),
        stream=found["stream"] is True,
        chunk_timings=tuple((int(length), float(seconds)) for length, seconds in chunk_timings),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _texts(names: Sequence[bytes]) -> list[str]:
    return [name.decode("latin-1") for name in names]


def _names(given: object) -> tuple[bytes, ...]:
    if not isinstance(given, list):
        raise TypeError("vary")
    return tuple(name.encode("latin-1") for name in given)
