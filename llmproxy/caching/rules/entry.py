"""An answer that is kept: what is served of it, and what says for how long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

FORMAT = (
    b"llmproxy-cache-1\n"  # what an entry in a store outside this process begins with; another number, another format
)

Gaps = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer that is kept. Times are seconds, C{born} since the epoch.

    @ivar head: Its field lines, joined by CRLF, without those that must not be kept and those that frame a message.
    @ivar born: When it was made, as far as its C{Age} and C{Date} tell: its age is what has passed since then.
    @ivar lifetime: For how long it is fresh.
    @ivar always_ask: It must be revalidated before every use (C{no-cache}).
    @ivar never_stale: It must not be used once it is stale (C{must-revalidate} and the like).
    @ivar while_revalidating: How long after that it may still be given while a fresh one is fetched; likewise
        C{if_error}, where none can be had (RFC 5861).
    @ivar etag: Its entity tag, quotes and all; C{modified}: its C{Last-Modified}; C{b""} if it has none.
    @ivar vary: The request fields by which it was chosen, in lower case.
    @ivar gaps: For a stream, which bytes came how long after the ones before: (length, seconds).
    """

    code: int
    phrase: bytes
    head: bytes
    body: bytes
    born: float
    lifetime: float
    always_ask: bool = False
    never_stale: bool = False
    while_revalidating: float = 0.0
    if_error: float = 0.0
    etag: bytes = b""
    modified: bytes = b""
    vary: tuple[bytes, ...] = ()
    stream: bool = False
    gaps: Gaps = ()

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n") if self.head else []

    def age(self, now: float) -> float:
        """Its current age (RFC 9111, section 4.2.3)."""
        return max(0.0, now - self.born)

    def with_lines(self, lines: Sequence[bytes]) -> Entry:
        return replace(self, head=b"\r\n".join(lines))


@dataclass(frozen=True, slots=True)
class Variants:
    """What stands under a key whose answers are chosen by request fields: the names of these, in lower case.

    @ivar generation: Part of the keys of the variants, so that what is forgotten here does not come back.
    """

    names: tuple[bytes, ...]
    generation: str


def encoded(kept: Entry | Variants) -> bytes:
    """As bytes, for a store outside this process."""
    if isinstance(kept, Variants):
        return FORMAT + _json({"vary": _texts(kept.names), "generation": kept.generation}) + b"\n"
    told = {
        "code": kept.code,
        "phrase": kept.phrase.decode("latin-1"),
        "head": kept.head.decode("latin-1"),
        "born": kept.born,
        "lifetime": kept.lifetime,
        "always_ask": kept.always_ask,
        "never_stale": kept.never_stale,
        "while_revalidating": kept.while_revalidating,
        "if_error": kept.if_error,
        "etag": kept.etag.decode("latin-1"),
        "modified": kept.modified.decode("latin-1"),
        "vary": _texts(kept.vary),
        "stream": kept.stream,
        "gaps": kept.gaps,
        "length": len(kept.body),
    }
    return b"%b%b\n%b" % (FORMAT, _json(told), kept.body)


def decoded(data: bytes) -> Entry | Variants | None:
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

    code, gaps = found["code"], found["gaps"]
    if not isinstance(code, int) or not isinstance(gaps, list) or not 200 <= code <= 599:
        raise TypeError("code or gaps")
    return Entry(
        code=code,
        phrase=text("phrase"),
        head=text("head"),
        body=body,
        born=number("born"),
        lifetime=number("lifetime"),
        always_ask=found["always_ask"] is True,
        never_stale=found["never_stale"] is True,
        while_revalidating=number("while_revalidating"),
        if_error=number("if_error"),
        etag=text("etag"),
        modified=text("modified"),
        vary=_names(found["vary"]),
        stream=found["stream"] is True,
        gaps=tuple((int(length), float(seconds)) for length, seconds in gaps),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _texts(names: Sequence[bytes]) -> list[str]:
    return [name.decode("latin-1") for name in names]


def _names(given: object) -> tuple[bytes, ...]:
    if not isinstance(given, list):
        raise TypeError("vary")
    return tuple(name.encode("latin-1") for name in given)
