"""A direct response that the cache has, as bytes. What its head says each time is written once. Pure."""

from __future__ import annotations

from functools import lru_cache

from llmproxy.caching import CacheOutcome, LocalHit
from llmproxy.wire.body_framing import LAST_CHUNK

HIT_TIMING = b"Server-Timing: auth;dur=%.1f, proxy;dur=%.1f"  # in milliseconds
MAX_TEMPLATES = 512
MAX_TEMPLATE_HEAD_BYTES = 4096  # of a stored head; the template of a longer one is not kept


def hit_response(
    hit: LocalHit, request_id: str, auth: float, proxy: float, *, debug_headers: bool, persistent: bool
) -> bytes:
    """All of a response with status 200.

    @param auth: Milliseconds until it was let through; C{proxy}: from then on.
    @param debug_headers: Whether it tells that it is a hit, and where the time went.
    @param persistent: Whether its connection is kept.
    """
    entry, age, reason, ttl = hit
    head, body = entry.head, entry.body
    made = _template if len(head) <= MAX_TEMPLATE_HEAD_BYTES else _template.__wrapped__
    template = made(head, entry.phrase, len(body), entry.stream, reason if debug_headers else None, persistent)
    own_id = request_id.encode()
    return template % ((age, own_id, ttl, auth, proxy, body) if debug_headers else (age, own_id, body))


@lru_cache(MAX_TEMPLATES)
def _template(head: bytes, phrase: bytes, length: int, stream: bool, reason: str | None, persistent: bool) -> bytes:
    """A response with places for its age and the request's id, for its time to live and the times, where it tells them,
    and for its body.

    @param length: Bytes of the body.
    @param reason: As in L{CacheOutcome}; C{None} where it tells nothing of the cache.
    """
    lines = [b"HTTP/1.1 200 " + phrase.replace(b"%", b"%%")]
    if head:
        lines.append(head.replace(b"%", b"%%"))
    lines += (b"Age: %d", b"X-Request-ID: %b")
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
