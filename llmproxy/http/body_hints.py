"""Facts about a request or a response, out of its head."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from llmproxy.http import fields

_PATH_MODEL = re.compile(
    rb"/(?:models|tunedModels)/([^/]+):[A-Za-z]+/?$"  # Gemini, Vertex AI
    rb"|/deployments/([^/]+)/"  # Azure
    rb"|/model/([^/]+)/(?:invoke|converse)[a-z-]*/?$"  # Bedrock
)
_STREAM_PATH = re.compile(rb":stream[A-Za-z]+$|/(?:invoke-with-response-stream|converse-stream)$")
MAX_KNOWN_LINE_BYTES = 128  # of a line that is remembered
EVENT_STREAM = b"text/event-stream"
STREAM_TYPES = (EVENT_STREAM, b"application/vnd.amazon.eventstream", b"application/x-ndjson")


def model_in_path(path: bytes) -> str:
    """The model that Gemini's, Azure's and Bedrock's paths name; C{""} in any other.

    Whole and decoded as the provider would, so that it may be held against a list of allowed models; what cannot be
    shown is replaced. C{path} is one that L{target.parse} let pass.
    """
    if b"%" in path:  # a provider decodes a verb too, but an encoded slash ends no segment
        path = unquote_to_bytes(path.replace(b"%2F", b"%252F").replace(b"%2f", b"%252F"))
    found = _PATH_MODEL.search(path)
    if found is None:
        return ""
    name = unquote_to_bytes(found[found.lastindex or 1]).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def media_type(lines: Iterable[bytes]) -> bytes:
    """The media type of a message, in lower case and without parameters; C{b""} where it does not say."""
    return _type_in(fields.value(lines, b"content-type") or b"")


def media_type_of(line: bytes) -> bytes:
    """The same of a message with this one line of C{Content-Type}."""
    return _known_type(line) if len(line) <= MAX_KNOWN_LINE_BYTES else _type_in(line.partition(b":")[2])


@lru_cache(256)  # servers say the same again and again
def _known_type(line: bytes) -> bytes:
    return _type_in(line.partition(b":")[2])


def _type_in(value: bytes) -> bytes:
    return value.partition(b";")[0].strip().lower()


def is_event_stream(lines: Iterable[bytes]) -> bool:
    """Whether a body is server-sent events (HTML Standard, section 9.2)."""
    return media_type(lines) == EVENT_STREAM


def is_stream_response(lines: Iterable[bytes]) -> bool:
    """Whether a response's content type is one of a stream: events, Bedrock's frames, lines of JSON."""
    return media_type(lines) in STREAM_TYPES


def names_stream(path: bytes) -> bool:
    """Whether a path asks for a stream, as Gemini's and Bedrock's do."""
    return _STREAM_PATH.search(path) is not None


def expects_stream(query: bytes | None, lines: Iterable[bytes]) -> bool:
    """Whether a request whose path and body do not ask for a stream does so in its query or its C{Accept}."""
    if query and b"alt=sse" in query.split(b"&"):
        return True
    accept = fields.value(lines, b"accept")
    return accept is not None and EVENT_STREAM in accept.lower()
