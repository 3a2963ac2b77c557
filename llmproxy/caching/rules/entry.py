"""A stored response: what is served of it, and what says for how long."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

FORMAT = (
    b"llmproxy-cache-1\n"  # what an entry in a store outside this process begins with; another number, another format
)

MAX_SECONDS = 1e12  # of a time in an entry; no date that HTTP can write is as late
# What such a store holds is sent to clients and providers, so it must be what a parser would have let in.
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_LINE = (
    rb"(?!(?i:content-length|transfer-encoding|connection):)"  # these frame a message
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:" + _VALUE.pattern
)
_HEAD = re.compile(rb"(?:" + _LINE + rb"(?:\r\n" + _LINE + rb")*)?")
_GENERATION = re.compile(r"[\x21-\x7e]{1,64}")

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
    """The other way; C{None} for whatever is not one in this format: cut short, or what no response can be."""
    if not data.startswith(FORMAT):
        return None
    told, end, body = data[len(FORMAT) :].partition(b"\n")
    if not end:
        return None
    try:
        found = json.loads(told)
        if "generation" in found:
            return Variants(_names(found["vary"]), _generation(found["generation"]))
        return _entry(found, body) if found["length"] == len(body) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _entry(found: dict[str, object], body: bytes) -> Entry:
    code = found["code"]
    if type(code) is not int or not 200 <= code <= 599 or code in (206, 304) or (code == 204 and body):
        raise ValueError("code")
    return Entry(
        code=code,
        phrase=_text(found["phrase"]),
        head=_text(found["head"], _HEAD),
        body=body,
        generated_at=_seconds(found["born"], -MAX_SECONDS),
        lifetime=_seconds(found["lifetime"]),
        no_cache=found["always_ask"] is True,
        must_revalidate=found["never_stale"] is True,
        stale_while_revalidate=_seconds(found["while_revalidating"]),
        stale_if_error=_seconds(found["if_error"]),
        etag=_text(found["etag"]),
        last_modified=_text(found["modified"]),
        vary=_names(found["vary"]),
        stream=found["stream"] is True,
        chunk_timings=_chunk_timings(found["gaps"], len(body)),
    )


def _text(value: object, pattern: re.Pattern[bytes] = _VALUE) -> bytes:
    text = value.encode("latin-1") if isinstance(value, str) else None
    if text is None or not pattern.fullmatch(text):
        raise ValueError("text")
    return text


def _seconds(value: object, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= MAX_SECONDS:
        raise ValueError("seconds")
    return float(value)


def _chunk_timings(value: object, size: int) -> ChunkTimings:
    if not isinstance(value, list):
        raise ValueError("gaps")
    timings = tuple((length, _seconds(seconds)) for length, seconds in value)
    if any(type(length) is not int or length < 0 for length, _ in timings) or sum(n for n, _ in timings) > size:
        raise ValueError("gaps")
    return timings


def _generation(value: object) -> str:
    if not isinstance(value, str) or not _GENERATION.fullmatch(value):
        raise ValueError("generation")
    return value


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _texts(names: Sequence[bytes]) -> list[str]:
    return [name.decode("latin-1") for name in names]


def _names(given: object) -> tuple[bytes, ...]:
    if not isinstance(given, list):
        raise TypeError("vary")
    return tuple(_text(name) for name in given)
