"""Facts about a request or an answer, found cheaply.

L{facts} are guesses, for records and timeouts, never for what is allowed: L{params} decides that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from llmproxy.http import fields

MAX_PREFIX = 64 * 1024
MAX_MODEL = 128

_MODEL = re.compile(rb'"model"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"((?:[^"\\\x00-\x1f]|\\.){0,256})"')
_STREAM = re.compile(rb'"stream"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}true\b')
_PATH_MODEL = re.compile(
    rb"/(?:models|tunedModels)/([^/]+):[A-Za-z]+/?$"  # Gemini, Vertex AI
    rb"|/deployments/([^/]+)/"  # Azure
    rb"|/model/([^/]+)/(?:invoke|converse)[a-z-]*/?$"  # Bedrock
)
_STREAM_PATH = re.compile(rb":stream[A-Za-z]+$|/(?:invoke-with-response-stream|converse-stream)$")
_STREAM_TYPES = (b"text/event-stream", b"application/vnd.amazon.eventstream", b"application/x-ndjson")


class Facts(NamedTuple):
    """What the beginning of a JSON body tells."""

    model: str = ""
    stream: bool = False


_NOTHING = Facts()


def facts(prefix: bytes) -> Facts:
    """What the first 64 KiB of a request's body tell: a model's name and whether a stream is asked for."""
    if prefix[:1] != b"{" and prefix[:64].lstrip()[:1] != b"{":
        return _NOTHING
    if len(prefix) > MAX_PREFIX:
        prefix = prefix[:MAX_PREFIX]
    model = _MODEL.search(prefix) if b'"model"' in prefix else None
    stream = b'"stream"' in prefix and _STREAM.search(prefix) is not None
    return Facts(_string(model[1]) if model else "", stream)


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


def is_stream_answer(lines: Iterable[bytes]) -> bool:
    """Whether an answer's content type is one of a stream."""
    kind = fields.value(lines, b"content-type")
    return kind is not None and kind.partition(b";")[0].strip().lower() in _STREAM_TYPES


def names_stream(path: bytes) -> bool:
    """Whether a path asks for a stream, as Gemini's and Bedrock's do."""
    return _STREAM_PATH.search(path) is not None


def expects_stream(query: bytes | None, lines: Iterable[bytes]) -> bool:
    """Whether a request whose path and body do not ask for a stream does so in its query or its C{Accept}."""
    if query and b"alt=sse" in query.split(b"&"):
        return True
    accept = fields.value(lines, b"accept")
    return accept is not None and b"text/event-stream" in accept.lower()


def _string(literal: bytes) -> str:
    text = literal.decode("utf-8", "replace")
    if "\\" not in text:
        return _shown(text)
    try:
        return _shown(str(json.loads(f'"{text}"')))
    except ValueError:
        return ""


def _shown(name: str) -> str:
    return name[:MAX_MODEL] if name.isprintable() else ""
