"""What becomes of a provider's response, or of its failure: one decision, made from values alone."""

from __future__ import annotations

from dataclasses import dataclass

from llmproxy.caching.rules import reuse, storing
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.request import CacheRequest
from llmproxy.caching.rules.storing import NotStored, ReceivedHead
from llmproxy.http import body_hints
from llmproxy.http.content_coding import can_decode
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.masking import content_coding


@dataclass(frozen=True, slots=True)
class StoreResponse:
    """The response may be shared with those who wait, and is stored once its body is complete.

    @ivar entry: What is stored, without the body.
    """

    entry: Entry


@dataclass(frozen=True, slots=True)
class PassThrough:
    """The response is for the one request alone.

    @ivar reason: Why it is not stored.
    @ivar invalidates: Whether what is stored is not what the provider says now.
    """

    reason: NotStored
    invalidates: bool = False


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What is stored has been validated, and is served (RFC 9111, section 4.3.4).

    @ivar entry: With the fields of the 304.
    @ivar store: Whether it replaces what was stored; otherwise the provider forbids that, and it has to go.
    """

    entry: Entry
    store: bool = True


@dataclass(frozen=True, slots=True)
class ServeStale:
    """The provider fails, and what is stored will do (C{stale-if-error}, RFC 5861, section 4)."""

    entry: Entry


Decision = StoreResponse | PassThrough | Refreshed | ServeStale


def on_response(request: CacheRequest, stored: Entry | None, head: ReceivedHead, now: float) -> Decision:
    """What becomes of a response to C{request}.

    @param stored: What was stored for it and had to be validated; C{None} where nothing was.
    @param now: By the clock that ages are counted by.
    """
    if stored is not None and head.code == 304 and reuse.validatable(stored):
        entry = reuse.freshened(stored, head, request.policy.rules, request.directives)
        return Refreshed(entry) if isinstance(entry, Entry) else Refreshed(stored, store=False)
    if head.code in reuse.STALE_IF_ERROR_STATUSES and (stale := on_failure(request, stored, now)) is not None:
        return stale
    entry = _storable(request, head)
    if isinstance(entry, Entry):
        return StoreResponse(entry)
    return PassThrough(entry, invalidates=stored is not None and (head.code < 400 or head.code in (404, 410)))


def on_failure(request: CacheRequest, stored: Entry | None, now: float) -> ServeStale | None:
    """What is served where the provider could not be reached or has failed; C{None}: the failure."""
    if stored is None or not reuse.may_serve_stale(stored, request.directives, now):
        return None
    return ServeStale(stored)


def _storable(request: CacheRequest, head: ReceivedHead) -> Entry | NotStored:
    if request.method == b"HEAD":
        return NotStored("head")
    policy = request.policy
    entry = storing.storable(head, policy.rules, request.directives, request.explicit_ttl)
    if isinstance(entry, NotStored):
        return entry
    if body_hints.is_stream_response(head.lines) and not (entry.stream and policy.streams):
        return NotStored("stream")
    if head.length is None:
        if not _ends_visibly(head.lines):
            return NotStored("no-visible-end")
    elif head.length > policy.max_object_bytes:
        return NotStored("too-large")
    coding = content_coding(head.lines)
    if coding and head.code >= 400:
        return NotStored("coded-error")  # the provider's key may have to be masked within
    if coding and not can_decode(coding):
        return NotStored("unknown-coding")  # nobody could see whether the provider's key is within
    return entry


def _ends_visibly(lines: list[bytes]) -> bool:
    """Whether a body of unknown length tells that it is complete: one that ends with its connection does not."""
    return b"chunked" in b",".join(FieldLines.of(lines).values(b"transfer-encoding")).lower()
