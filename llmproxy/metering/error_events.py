"""Tells a response of 200 that is an error, or ends in one, from a response, and names the provider's code for it.

The shapes: OpenAI and those like it C{{"error": {"message", "type", "code"}}} as a body or as an event's data (API
reference, "Error codes"; OpenRouter's "Errors and debugging" for one in mid-stream); OpenAI's responses
C{{"type": "error", "code", "message"}} and C{{"type": "response.failed", "response": {"error": {"code"}}}} (API
reference, "Streaming events"); Anthropic C{event: error} with C{{"type": "error", "error": {"type"}}} (Messages,
"Streaming", error events); Gemini C{{"error": {"code": 503, "status": "UNAVAILABLE"}}}, alone or in an array (AIP-193);
Mistral C{{"object": "error", "type", "code"}}; Ollama C{{"error": "text"}}.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import from_json

UNNAMED_ERROR_CODE = "upstream_error"  # the code of an error that has none of its own

MAX_LAST_EVENTS = 1000  # of a stream that are looked at for it
MAX_LAST_BYTES = 16 * 1024  # of a chunk of a stream that are looked through for the error that it ended in

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\n\r")
_LINE = re.compile(rb"\r\n|\n|\r")


def may_hold_error(piece: bytes) -> bool:
    """Whether it is worth a look: one search of the bytes where the word is not in them.

    Within a text that a model writes, the quotes around the word are escaped, so that it does not look like a member.
    """
    return b"error" in piece and (b'"error"' in piece or b"event: error" in piece or b"event:error" in piece)


def stream_error(pieces: Iterable[bytes]) -> str:
    """The code of the last error event in these chunks of a stream; C{""} where there is none."""
    left = MAX_LAST_EVENTS
    for piece in reversed(list(pieces)):
        events = _BLANK.split(piece[-MAX_LAST_BYTES:])
        for event in reversed(events[-left:] if len(events) > 1 else [piece]):
            if code := _event_error(event):
                return code
        left -= len(events)
        if left <= 0:
            break
    return ""


def body_error(said: Any) -> str:
    """The code of the error that a parsed JSON body is; C{""} where it is none."""
    if isinstance(said, list):
        return next((code for each in said if (code := body_error(each))), "")
    if not isinstance(said, dict):
        return ""
    if said.get("type") == "error" or said.get("event_type") == "error" or said.get("object") == "error":
        return _code(said.get("error")) or _code({**said, "type": _own_type(said)}) or UNNAMED_ERROR_CODE
    if said.get("type") == "response.failed":
        response = said.get("response")
        return (_code(response.get("error")) if isinstance(response, dict) else "") or "response_failed"
    return _code(said.get("error"))


def _event_error(event: bytes) -> str:
    if not may_hold_error(event):
        return ""
    lines = _LINE.split(event)
    named = any(line.startswith(b"event:") and line[6:].strip() == b"error" for line in lines)
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
    if not data:  # nobody is shown an event without data (HTML, section 9.2.6)
        return ""
    try:
        said = from_json(data)
    except ValueError:
        said = None
    code = body_error(said)
    if named and not code:
        code = (_code(said) if isinstance(said, dict) else "") or UNNAMED_ERROR_CODE
    return code


def _own_type(said: Mapping[str, Any]) -> Any:
    """OpenAI's and Anthropic's C{type} says only that it is an error; Mistral's says which."""
    return None if said.get("type") == "error" else said.get("type")


def _code(error: Any) -> str:
    """The most telling of its names; C{""} for what is no error, as an object is whose members are all null."""
    if isinstance(error, str):
        return error if _CODE.fullmatch(error) else UNNAMED_ERROR_CODE if error else ""
    if not isinstance(error, dict) or not any(error.get(name) for name in ("code", "status", "type", "message")):
        return ""
    names = [error.get("code"), error.get("status"), error.get("type")]
    words = [name for name in names if isinstance(name, str) and _CODE.fullmatch(name)]
    if words:
        return words[0]
    return str(names[0]) if names[0].__class__ is int and 0 < names[0] < 1000 else UNNAMED_ERROR_CODE
