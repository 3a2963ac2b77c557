"""Times as the management API writes and reads them: RFC 3339, UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from llmproxy.config.units import duration

LONGEST = 3650 * 86400.0


def rfc3339(at: float | None) -> str | None:
    """C{2026-11-23T10:00:00.000Z} for seconds since the epoch; C{None} for C{None}."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(text: str) -> float:
    """Seconds in C{24h}, C{30d}, C{1h30m}; L{ValueError} for none, nothing, or more than 10 years."""
    seconds = duration(text)
    if not 0 < seconds <= LONGEST:
        raise ValueError("must be longer than nothing and at most 10 years (try 24h, 30d)")
    return seconds
