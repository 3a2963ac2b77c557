"""A direct response that the cache has, as bytes. What its head says each time is written once. Pure."""

from __future__ import annotations

from functools import lru_cache

from llmproxy.caching import CacheOutcome, LocalHit
from llmproxy.wire.body_framing import LAST_CHUNK

HIT_TIMING = b"Server-Timing: auth;dur=%.1f, proxy;dur=%.1f"  # in milliseconds
MAX_TEMPLATES = 512
MAX_TEMPLATE_HEAD_BYTES = 4096  # of a stored head; the template of a longer one is not kept


def hit_template(hit: LocalHit, own_lines: bytes, *, debug_headers: bool, persistent: bool) -> bytes:
    """All of a response with status 200, with places for its body and for what its head says each time.

    They are for its age, the request's id and the body; with debug headers, for its age, the request's id, its time to
    live, the milliseconds until it was let through, those from then on, and the body.

    @param own_lines: This proxy's own that are the same each time, each with its end.
    @param debug_headers: Whether it tells that it is a hit, and where the time went.
    @param persistent: Whether its connection is kept.
    """
    entry, reason = hit.entry, hit.reason if debug_headers else None
    made = _template if len(entry.head) <= MAX_TEMPLATE_HEAD_BYTES else _template.__wrapped__
    return made(entry.head, entry.phrase, own_lines, len(entry.body), entry.stream, reason, persistent)


@lru_cache(MAX_TEMPLATES)
def _template(
    head: bytes, phrase: bytes, own_lines: bytes, length: int, stream: bool, reason: str | None, persistent: bool
) -> bytes:
    """As L{hit_template} has it.

    @param length: Bytes of the body.
    @param reason: As in L{CacheOutcome}; C{None} without debug headers.
    """
    lines = [b"HTTP/1.1 200 " + phrase.replace(b"%", b"%%")]
    if head:
        lines.append(head.replace(b"%", b"%%"))
    lines += (b"Age: %d", own_lines.replace(b"%", b"%%") + b"X-Request-ID: %b")
    if stream:
        lines.append(b"X-Accel-Buffering: no")
    if reason is not None:
        *debugging, status = CacheOutcome("hit", reason).debug_headers()
        lines += (*debugging, status + b"; ttl=%d", HIT_TIMING)
    lines.append(b"Transfer-Encoding: chunked" if stream else b"Content-Length: %d" % length)
    if not persistent:
        lines.append(b"Connection: close")
    body = b"%b"
    if stream:
        body = (b"%x\r\n%%b\r\n" % length if length else b"%b") + LAST_CHUNK
    return b"\r\n".join([*lines, b"", body])
