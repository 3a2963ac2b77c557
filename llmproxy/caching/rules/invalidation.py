"""What a request that may change something makes doubtful (RFC 9111, section 4.4)."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

from llmproxy.http.field_lines import FieldLines

SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"QUERY", b"PROPFIND", b"REPORT", b"SEARCH"))


def invalidated_targets(target: bytes, host: bytes, code: int, lines: Iterable[bytes]) -> list[bytes]:
    """The targets, path and query, whose kept responses may no longer be true after this response to an unsafe method.

    @param host: The provider's, as it stands in C{Host}: C{Location} and C{Content-Location} of others say nothing.
    """
    if not 200 <= code < 400:
        return []
    lines = FieldLines.of(lines)
    found = [target]
    for name in (b"location", b"content-location"):
        if name in lines.names:
            other = _target(target, host, lines.value(name) or b"")
            if other and other not in found:
                found.append(other)
    return found


def _target(base: bytes, host: bytes, reference: bytes) -> bytes:
    """The target that C{reference} names on the same origin; C{b""} where it names none there."""
    try:
        text = reference.decode("ascii")
        whole = urlsplit(urljoin(f"http://{host.decode('ascii')}{base.decode('ascii')}", text))
        if whole.netloc.lower().encode("ascii") != host.lower() or whole.scheme not in ("http", "https"):
            return b""
    except ValueError:
        return b""
    target = whole.path.encode("ascii") or b"/"
    return target + b"?" + whole.query.encode("ascii") if whole.query else target
