"""Which model a usual request names, and how it asks for its response, without anything else of its body being made.

All of the body is checked all the same: what is not JSON, or names them in an unusual way, is read as
L{request_reader<llmproxy.http.request_reader>} does it.
"""

from __future__ import annotations

from msgspec import UNSET, MsgspecError, Struct, UnsetType
from msgspec.json import Decoder

MAX_MODEL_CHARACTERS = 128  # characters of a model's name that are shown
_MAX_READ_CHARACTERS = 1024  # of a name that is read at all


def shown_model(name: str) -> str:
    """A model's name, as it may be shown; C{""} for what is none."""
    return name[:MAX_MODEL_CHARACTERS] if len(name) <= _MAX_READ_CHARACTERS and name.isprintable() else ""


def read_model_and_stream(body: bytes) -> tuple[str, bool, bool] | None:
    """The model, whether it asks for a stream, and whether it says anything of C{background} (which may still be
    C{false}), of a body without a content coding that is a JSON object; C{None} where that has to be read in another
    way."""
    if body[:1] != b"{":
        return None
    try:
        if not body.isascii():
            body.decode()  # strings that are passed over are not checked for that
        found = _decode(body)
    except (ValueError, MsgspecError, RecursionError):
        return None
    name = found.model
    if len(name) > MAX_MODEL_CHARACTERS or not name.isprintable():
        name = shown_model(name)
    return name, found.stream, found.background is not UNSET


class _Members(Struct, gc=False):
    model: str = ""
    stream: bool = False
    background: bool | UnsetType = UNSET


_decode = Decoder(_Members).decode
