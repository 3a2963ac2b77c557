"""Reads a body that is there as a whole: the usual one by a few calls in C, within some milliseconds; any other as
L{request_reader<llmproxy.http.request_reader>} does it. Both say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import from_json

from llmproxy.http.content_measure import (
    CLOSELY,
    ROUGHLY,
    SAMPLE_BYTES,
    ContentMeasure,
    Effort,
    measure_short_text,
    possible_media,
)
from llmproxy.http.json_members import MAX_VALUE_BYTES, read_value
from llmproxy.http.request_reader import NO_CONTENT, RequestContent, RequestReader, content_codings
from llmproxy.http.strict_json import is_flat, members_once
from llmproxy.http.written_members import written_members

MAX_WHOLE_BYTES = 2 * 1024 * 1024  # of a body that is read so
MAX_CHECKED_BYTES = 1024 * 1024  # likewise, where it must be understood for certain, or is measured
MAX_EXACT_BYTES = 256 * 1024  # of a body of which all is measured; of a longer one, as much as the effort says
MAX_WHOLE_MEDIA = 400  # in a body that is measured
MAX_WHOLE_ESCAPES = 30_000  # in what is measured of it
MAX_WHOLE_QUOTES = 200_000  # in a body that is measured, each of which is looked at for media
MAX_SHORT_BYTES = 16 * 1024  # of a body that is read by small steps in one turn

_Wanted = Callable[[str], bool]
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes
_NO: frozenset[str] = frozenset()
_NOTHING: Mapping[str, Any] = {}
_UNMEASURED = NO_CONTENT.text


def read_at_once(body: bytes, lines: Iterable[bytes], wanted: _Wanted) -> RequestContent:
    """What a body says, for records: of a name that is there twice, nobody is told."""
    return read_usual(body, lines, wanted, strictly=False) or _read(body, lines, wanted)


def read_strictly_at_once(
    body: bytes, lines: Iterable[bytes], wanted: _Wanted, *, measured: bool = True
) -> RequestContent:
    """All that a short body says.

    @param measured: Whether somebody needs to know what its text is made of.
    """
    return read_usual(body, lines, wanted, strictly=True, measured=measured) or _read(body, lines, wanted)


def longest_whole(*, checked: bool) -> int:
    """Bytes of a body that L{read_usual} reads.

    @param checked: Whether it must be understood for certain, or is measured.
    """
    return MAX_CHECKED_BYTES if checked else MAX_WHOLE_BYTES


def read_usual(
    body: bytes, lines: Iterable[bytes], wanted: _Wanted, *, strictly: bool, measured: bool = False
) -> RequestContent | None:
    """What a body says that is a plain JSON object and not too long; C{None} for any other, and where it could take
    long.

    @param strictly: Whether it is to be understood for certain; else it is for records alone.
    @param measured: Whether it is to be measured, too.
    """
    return None if content_codings(lines) else read_uncoded(body, wanted, strictly=strictly, measured=measured)


def read_uncoded(body: bytes, wanted: _Wanted, *, strictly: bool, measured: bool = False) -> RequestContent | None:
    """As L{read_usual}, of a body without a content coding."""
    size = len(body)
    if body[:1] != b"{" or size > longest_whole(checked=strictly or measured):
        return None
    if size > MAX_SHORT_BYTES and not is_flat(body):
        return None
    content = None
    if size <= MAX_VALUE_BYTES:  # so that no member is longer than the reader keeps
        try:
            values = from_json(body, allow_inf_nan=False)
        except (ValueError, RecursionError):
            return None  # what is wrong with it, the reader says
        members = {name: value for name, value in values.items() if wanted(name)}
        if not strictly or members_once(body, members):
            content = _new(RequestContent, ("json", members, True, "", _NO, _NO, size, _UNMEASURED, (), 0))
    content = content or _written_content(body, wanted, strictly=strictly)
    if content is None or not measured:
        return content
    short = measure_short_text(body)
    if short is not None:
        return content._replace(text=short[0], media=[], unseen_media=short[1])
    measure = _measure(body, CLOSELY)
    return None if measure is None else _with_measure(content, measure)


def _written_content(body: bytes, wanted: _Wanted, *, strictly: bool) -> RequestContent | None:
    """What a plain JSON object says whose members are each there once, as L{JsonMembers} has it."""
    written = written_members(body, of_any_depth=not strictly)
    if written is None:
        return None
    members, repeated, oversize = {}, set(), set()
    for name, raw in written.items():
        if not wanted(name):
            continue
        try:
            if len(raw) > MAX_VALUE_BYTES:
                raise ValueError("It is too long.")
            members[name], twice = read_value(raw)
        except (ValueError, RecursionError):
            oversize.add(name)
            continue
        if twice:
            repeated.add(name)
    names = (frozenset(repeated), frozenset(oversize))
    return RequestContent("json", members, True, "", *names, len(body), _UNMEASURED, (), 0)


def _measure(body: bytes, effort: Effort) -> ContentMeasure | None:
    """What a plain JSON object is made of; C{None} where that could take long.

    @param effort: With which a long one is measured.
    """
    size = len(body)
    if size <= MAX_EXACT_BYTES:
        effort = Effort(size, 0)
    elif body.count(b'"') > MAX_WHOLE_QUOTES:
        return None
    media, exact = possible_media(body), effort.exact_bytes
    if media > MAX_WHOLE_MEDIA:
        return None
    if size > MAX_WHOLE_ESCAPES:
        escapes = body.count(b"\\", 0, exact)
        if size > exact:
            escapes += body.count(b"\\", exact) * SAMPLE_BYTES // effort.part_bytes
        if escapes > MAX_WHOLE_ESCAPES:
            return None
    measure = ContentMeasure(effort)
    measure.feed_whole(body, media)
    return measure


def _with_measure(content: RequestContent, measure: ContentMeasure) -> RequestContent:
    unseen = measure.remote + measure.more_media
    return content._replace(text=measure.text, media=measure.media, unseen_media=unseen)


def measure_body(body: bytes, lines: Iterable[bytes]) -> RequestContent:
    """A body with its measure, and without members. One that is long and would take long to be measured goes by its
    size, as one that cannot be read."""
    if read_usual(body, lines, _nothing, strictly=False) is not None:
        return measure_usual_body(body, lines)
    return _by_size(body) if len(body) > MAX_SHORT_BYTES else _read(body, lines, _nothing)


def measure_usual_body(body: bytes, lines: Iterable[bytes]) -> RequestContent:
    """As L{measure_body}, of one that L{read_usual} has read."""
    measure = _measure(body, ROUGHLY)
    if measure is None:
        return _by_size(body) if len(body) > MAX_SHORT_BYTES else _read(body, lines, _nothing)
    return _with_measure(RequestContent("json", _NOTHING, True, "", _NO, _NO, len(body)), measure)


def _by_size(body: bytes) -> RequestContent:
    return RequestContent("unknown", _NOTHING, False, "", _NO, _NO, len(body))


def _nothing(_: str) -> bool:
    return False


def _read(body: bytes, lines: Iterable[bytes], wanted: _Wanted) -> RequestContent:
    reader = RequestReader(lines, wanted)
    reader.feed(body)
    while reader.pending:
        reader.work()
    reader.end()
    return reader.content()
