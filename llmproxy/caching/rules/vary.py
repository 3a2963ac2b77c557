"""What tells the variants of a response apart: the request fields that its C{Vary} names (RFC 9111, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmproxy.caching.rules.directives import members
from llmproxy.http.field_lines import FieldLines

_CASELESS = frozenset((b"accept-language", b"accept-encoding", b"accept-charset"))


def selecting_fields(lines: Iterable[bytes], names: Sequence[bytes]) -> list[bytes | None]:
    """What a request has of these fields, C{None} for one that is not there.

    Lines of one name are joined, and blanks around commas left out: that changes no field's meaning. Languages,
    encodings and character sets are compared without regard to case.
    """
    lines = FieldLines.of(lines)
    return [_normal(name, lines.values(name)) for name in names]


def _normal(name: bytes, values: list[bytes]) -> bytes | None:
    if not values:
        return None
    value = b",".join(members(values))
    return value.lower() if name in _CASELESS else value
