"""The request target, taken apart once, so that what is decided on is what is sent.

Everything is refused that two readers of one path might read differently: a provider may decode, normalise or split
where this proxy does not, and an allow-list that looked at something else than the provider would be none.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from llmproxy.errors import BadTarget

# Not visible ASCII, or "#", ";", "\", or "%" without two hex digits.
_BAD = re.compile(rb"[^!-~]|[#;\\]|%(?![0-9A-Fa-f]{2})")
# The same in a query, where ";" has no meaning of its own.
_BAD_QUERY = re.compile(rb"[^!-~]|[#\\]|%(?![0-9A-Fa-f]{2})")
# Encoded: controls, and what would mean something else once decoded: # % . ; ? \ DEL
_DECEPTIVE = re.compile(rb"%(?:[01][0-9A-Fa-f]|2[35eE]|3[bBfF]|5[cC]|7[fF])")
_ENCODED_SLASH = re.compile(rb"%2[fF]")
_ENCODED_HIGH = re.compile(rb"%[89A-Fa-f]")


class RequestTarget(NamedTuple):
    """A request target in origin-form (RFC 9112, section 3.2.1), every part as it was sent.

    @ivar query: Without the C{?}; C{None} where there was none, which is not the same as an empty one.
    @ivar segments: What stands between the slashes of the path; the last is empty where the path ends in a slash.
    """

    path: bytes
    query: bytes | None
    segments: tuple[bytes, ...]


def parse(uri: bytes) -> RequestTarget:
    """Take C{uri} apart; L{BadTarget} where it is not plain origin-form.

    An encoded slash inside a segment passes here: whether it may stand there is for L{endpoints} to say.
    """
    path, mark, query = uri.partition(b"?")
    _check_path(path)
    if not mark:
        return RequestTarget(path, None, tuple(path.split(b"/")[1:]))
    check_query(query)
    return RequestTarget(path, query, tuple(path.split(b"/")[1:]))


def check_query(query: bytes) -> None:
    """L{BadTarget} where C{query} holds what may not stand in a target."""
    if _BAD_QUERY.search(query):
        raise BadTarget("The query holds a character that must be percent-encoded, or a broken percent-encoding.")


def has_encoded_slash(path: bytes) -> bool:
    """Whether a C{%2F} stands in C{path}."""
    return _ENCODED_SLASH.search(path) is not None


def _check_path(path: bytes) -> None:
    if not path.startswith(b"/"):
        raise BadTarget("The request target must begin with a slash.")
    if _BAD.search(path):
        raise BadTarget("The path holds a character that may not stand in it, or a broken percent-encoding.")
    if b"%" in path:
        _check_encoded(path)
    _check_segments(_ENCODED_SLASH.sub(b"/", path).split(b"/"))


def _check_encoded(path: bytes) -> None:
    if _DECEPTIVE.search(path):
        raise BadTarget("The path holds a percent-encoded character that must not be encoded there.")
    if path[-3:].lower() == b"%2f":
        raise BadTarget("The path ends in an encoded slash.")
    if _ENCODED_HIGH.search(path):
        try:
            unquote_to_bytes(path).decode("utf-8")  # strict: refuses overlong forms of "." and "/" too
        except UnicodeDecodeError as e:
            raise BadTarget("The path is not UTF-8 once decoded.") from e


def _check_segments(segments: list[bytes]) -> None:
    """C{segments} as a reader sees them who decodes slashes; the first stands before the leading slash."""
    if b"" in segments[1:-1]:
        raise BadTarget("The path holds an empty segment.")
    if b"." in segments or b".." in segments:
        raise BadTarget("The path holds a dot segment.")
