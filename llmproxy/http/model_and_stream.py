"""Which model a usual request names, and whether it asks for a stream, without anything else of its body being made.

All of the body is checked all the same: what is not JSON, or names them in an unusual way, is read as
L{request_reader<llmproxy.http.request_reader>} does it.
"""

from __future__ import annotations

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

MAX_MODEL_CHARACTERS = 128  # characters of a model's name that are shown
_MAX_READ_CHARACTERS = 1024  # of a name that is read at all


def shown_model(name: str) -> str:
    """A model's name, as it may be shown; C{""} for what is none."""
    return name[:MAX_MODEL_CHARACTERS] if len(name) <= _MAX_READ_CHARACTERS and name.isprintable() else ""


def read_model_and_stream(body: bytes) -> tuple[str, bool] | None:
    """The model, and whether it asks for a stream, of a body without a content coding that is a JSON object; C{None}
    where that has to be read in another way."""
    if body[:1] != b"{":
        return None
    try:
        if not body.isascii():
            body.decode()  # strings that are passed over are not checked for that
        found = _decode(body)
    except (ValueError, MsgspecError, RecursionError):
        return None
    name = found.model
    return (name if len(name) <= MAX_MODEL_CHARACTERS and name.isprintable() else shown_model(name)), found.stream


class _Members(Struct, gc=False):
    model: str = ""
    stream: bool = False


_decode = Decoder(_Members).decode
