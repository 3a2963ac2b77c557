"""Finished requests as lines of JSON: in the access log, and as events.

Most requests have all texts but their id in common with others: these are written and masked once for all of them, as a
template into which the numbers of each are put. That matters most where there are many secrets to look for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii
from math import isfinite
from operator import itemgetter
from typing import Any, NamedTuple

from llmproxy.base.attribution import as_shown
from llmproxy.base.memo import BoundedMemo
from llmproxy.base.timestamps import rfc3339
from llmproxy.model import RequestRecord
from llmproxy.observability import jsonl
from llmproxy.observability.log_output import as_json
from llmproxy.observability.redaction import Redactor

MAX_TEMPLATES = 1024
MAX_SEEN_ONCE = 4096
MAX_MADE_LINES = 1024  # of which the half that both lines of a request share is kept for the second
_BETWEEN_IDS = ","  # nothing that is looked for in ids begins or ends with it

_FIELDS = RequestRecord._fields[:-1]  # the last, its steps, differ by each request, and are for whoever looks at one
_BEFORE_BYTES = slice(_FIELDS.index("method"), _FIELDS.index("stream") + 1)
_BEFORE_TOKENS = slice(_FIELDS.index("upstream_status"), _FIELDS.index("basis") + 1)
_ATTRIBUTION = _FIELDS.index("attribution")
_AT_FIRST = ("request_id", "started_at", "duration")
_NUMBERS = (  # what differs by request, and is no text
    "duration",
    *_FIELDS[_BEFORE_BYTES.stop : _BEFORE_TOKENS.start],
    *_FIELDS[_BEFORE_TOKENS.stop : _ATTRIBUTION],
)
_ORDER = (  # of the fields in both lines: what differs by request comes last
    *("request_id", "started_at"),
    *_FIELDS[_BEFORE_BYTES],
    *_FIELDS[_BEFORE_TOKENS],
    *("attribution", *_NUMBERS),
)
if _FIELDS[: _BEFORE_BYTES.start] != _AT_FIRST or RequestRecord._fields[-2:] != ("attribution", "steps"):
    raise ImportError("The fields of a record are not in the order in which they are taken here.")
_OF_ACCESS_LOG = {"level": "info", "logger": "access", "msg": "request"}
_in_order = itemgetter(*map(_FIELDS.index, _ORDER))


class _Template(NamedTuple):
    """Lines of requests that have their texts in common, with places for the rest.

    @ivar line: The first half of one of the access log, from behind the time on; C{event}: that of an event.
    @ivar numbers: The second half of both; C{values} takes what it has places for out of a record.
    """

    line: str
    event: str
    numbers: str
    values: Callable[[RequestRecord], tuple[Any, ...]]


_Made = tuple[RequestRecord, _Template, str]  # with the second half of its lines


class RequestLines:
    """Writes records as JSON, secrets masked. For one thread.

    What has been seen only once gets no template: what clients make up anew each time costs nothing more.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._json = as_json()
        self._version = redactor.version
        self._templates: BoundedMemo[tuple[Any, ...], _Template] = BoundedMemo(MAX_TEMPLATES)
        self._seen_once: set[int] = set()
        self._made: dict[str, _Made] = {}

    def access_lines(self, records: Sequence[RequestRecord]) -> str:
        """Lines of the access log, each with its end; in ASCII."""
        made = self._make(records)
        return "".join(
            [
                self._redactor.redact(self._json(access_fields(record))) + "\n"
                if each is None
                else each[1].line % (rfc3339(record.started_at + record.duration), record.request_id) + each[2]
                for record, each in zip(records, made, strict=True)
            ]
        )

    def events(self, records: Sequence[RequestRecord]) -> bytes:
        """Events, each on a line with its end; in UTF-8."""
        made = self._make(records)
        return "".join(
            [
                self._redactor.redact(event_line(record).decode())
                if each is None
                else each[1].event % (record.request_id, record.started_at) + each[2]
                for record, each in zip(records, made, strict=True)
            ]
        ).encode()

    def _make(self, records: Sequence[RequestRecord]) -> list[_Made | None]:
        """Each record with its template and the second half of its lines; C{None} where they are to be made as a whole.

        Whoever comes for the second half first leaves it to the other.
        """
        if self._redactor.version != self._version:
            self._version = self._redactor.version
            self._templates.clear()
            self._made.clear()
        kept, templates, are_plain = self._made, self._templates, None
        all_made: list[_Made | None] = []
        for record in records:
            request_id, first_byte, upstream_time = record.request_id, record.first_byte, record.upstream_time
            cost, made = record.cost_usd, kept.pop(request_id, None)
            if made is None or made[0] is not record:
                made = None
                if are_plain is None:  # asked once for all of them
                    are_plain = self._is_plain(_BETWEEN_IDS.join([each.request_id for each in records]))
                missing = (first_byte is None, upstream_time is None, cost is None)
                key = (record[_BEFORE_BYTES], record[_BEFORE_TOKENS], record.attribution, missing)
                template = templates.get(key) or self._admit(key, record)
                if (
                    template is not None
                    and request_id
                    and (are_plain or self._is_plain(request_id))
                    and isfinite(
                        record.started_at
                        + record.duration
                        + (first_byte or 0.0)
                        + (upstream_time or 0.0)
                        + (cost or 0.0)
                    )
                ):
                    made = kept[request_id] = (record, template, template.numbers % template.values(record))
            all_made.append(made)
        if len(kept) > MAX_MADE_LINES:
            kept.clear()
        return all_made

    def _is_plain(self, text: str) -> bool:
        """Whether there is no secret in it, and it stands in JSON as it is."""
        return (
            self._redactor.redact(text) is text
            and len(encode_basestring_ascii(text)) == len(text) + 2
            and "\x7f" not in text
        )

    def _admit(self, key: tuple[Any, ...], record: RequestRecord) -> _Template | None:
        """A new template, where others like the record have come before."""
        seen = hash(key)
        if seen not in self._seen_once:
            if len(self._seen_once) >= MAX_SEEN_ONCE:
                self._seen_once.clear()
            self._seen_once.add(seen)
            return None
        numbers = [name for name in _NUMBERS if getattr(record, name) is not None]
        line, event = access_fields(record), event_fields(record)
        for name in ("ts", *_OF_ACCESS_LOG, "request_id", *numbers):
            line.pop(name, None)
            event.pop(name, None)
        del event["started_at"]
        texts = self._masked(self._json(line)), self._masked(jsonl.line(event).decode())
        template = self._templates[key] = _Template(
            f'{{"ts":"%s",{self._json(dict(_OF_ACCESS_LOG))[1:-1]},"request_id":"%s",{texts[0]},',
            f'{{"request_id":"%s","started_at":%r,{texts[1]},',
            ",".join(f'"{name}":%r' for name in numbers) + "}\n",
            itemgetter(*map(_FIELDS.index, numbers)),
        )
        return template

    def _masked(self, text: str) -> str:
        """The members of this object, as they stand in a template."""
        return self._redactor.redact(text)[1:-1].replace("%", "%%")


def access_fields(record: RequestRecord) -> dict[str, Any]:
    """The fields of a line of the access log: when the request ended, and all that is known of it; nothing empty."""
    shown: dict[str, Any] = {"ts": rfc3339(record.started_at + record.duration), **_OF_ACCESS_LOG}
    shown.update({name: value for name, value in event_fields(record).items() if value not in (None, "")})
    del shown["started_at"]
    return shown


def event_fields(record: RequestRecord) -> dict[str, Any]:
    """The fields of an event: all of the record, and the attribution where there is one."""
    fields = dict(zip(_ORDER, _in_order(record), strict=True))
    if record.attribution:
        fields["attribution"] = as_shown(record.attribution)
    else:
        del fields["attribution"]
    return fields


def event_line(record: RequestRecord) -> bytes:
    """An event as a line, with its end."""
    return jsonl.line(event_fields(record)) + b"\n"
