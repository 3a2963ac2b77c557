"""Finished requests as lines of JSON: in the access log, and as events.

Most requests have all texts but their id in common with others: these are written and masked once for all of them, and
stand between the id and the figures of each. That matters most where there are many secrets to look for.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec.json import Encoder

from llmproxy.base.attribution import as_shown
from llmproxy.base.memo import BoundedMemo
from llmproxy.base.timestamps import rfc3339, utc_second
from llmproxy.brief_record import MAX_KINDS, SHARED_FIELDS, BriefRecord, RecordFigures, RecordKind
from llmproxy.model import RequestRecord
from llmproxy.observability import jsonl
from llmproxy.observability.log_output import as_json
from llmproxy.observability.redaction import Redactor

_BETWEEN_IDS = ","  # nothing that is looked for in ids begins or ends with it

# The fields in both lines, in their order: what differs by request comes last. Its steps are for whoever looks at one.
_ORDER = ("request_id", "started_at", *SHARED_FIELDS, *RecordFigures.__struct_fields__)
_OF_ACCESS_LOG = {"level": "info", "logger": "access", "msg": "request"}
_in_order = itemgetter(*map(RequestRecord._fields.index, _ORDER))
_MILLIS = tuple(f"{number:03d}" for number in range(1000))
_EVENT, _STARTED = '{"request_id":"', '","started_at":'
_encode_lines = Encoder().encode_lines


class _Template(NamedTuple):
    """What lines of requests of one kind have in common: from behind the id, or the time, to the figures.

    @ivar line: Of those of the access log; C{event}: of events.
    """

    line: str
    event: str


class RequestLines:
    """Writes records as JSON, secrets masked. For one thread.

    A kind that is not kept gets no template: what clients make up anew each time costs nothing more.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._json = as_json()
        self._behind_time = f'Z",{self._json(dict(_OF_ACCESS_LOG))[1:-1]},"request_id":"'
        self._version = redactor.version
        self._templates: BoundedMemo[RecordKind, _Template] = BoundedMemo(MAX_KINDS)

    def access_lines(self, records: Sequence[BriefRecord]) -> str:
        """Lines of the access log, each with its end; in ASCII."""
        pieces: list[str] = []
        known, time, behind_time = -1, "", self._behind_time
        for record, template in zip(records, self._ready(records), strict=True):
            if template is None:
                pieces += (self._redactor.redact(self._json(access_fields(record.whole()))), "\n")
                continue
            ended = record.started_at + record.figures.duration
            second = int(ended)
            millis = int((ended - second) * 1_000_000 + 0.5) // 1000  # as L{rfc3339} has them, without its calls
            if millis == 1000:
                second, millis = second + 1, 0
            if second != known:
                known, time = second, f'{{"ts":"{utc_second(second)}.'
            pieces += (time, _MILLIS[millis], behind_time, record.request_id, template[0], record.text)
        return "".join(pieces)

    def events(self, records: Sequence[BriefRecord]) -> bytes:
        """Events, each on a line with its end; in UTF-8."""
        pieces: list[str] = []
        all_begun = _encode_lines([record.started_at for record in records]).decode().split("\n")
        for record, template, begun in zip(records, self._ready(records), all_begun, strict=False):
            if template is None:
                pieces.append(self._redactor.redact(event_line(record.whole()).decode()))
            else:
                pieces += (_EVENT, record.request_id, _STARTED, begun, template[1], record.text)
        return "".join(pieces).encode()

    def _ready(self, records: Sequence[BriefRecord]) -> list[_Template | None]:
        """The template of each, C{None} where its lines are to be made as a whole; its figures are text then."""
        if self._redactor.version != self._version:
            self._version = self._redactor.version
            self._templates.clear()
        new = [record for record in records if not record.text]
        if new:
            texts = _encode_lines([record.figures for record in new])[1:].decode().split("{")
            for record, text in zip(new, texts, strict=True):
                record.text = text
        find, make, is_plain = self._templates.get, self._template, self._is_plain
        ids = [record.request_id for record in records]
        if "" not in ids and is_plain(_BETWEEN_IDS.join(ids)):
            return [find(record.kind) or make(record.kind) for record in records]
        return [(find(record.kind) or make(record.kind)) if is_plain(record.request_id) else None for record in records]

    def _is_plain(self, text: str) -> bool:
        """Whether there is no secret in it, and it stands in JSON as it is."""
        return (
            text != ""
            and self._redactor.redact(text) is text
            and len(encode_basestring_ascii(text)) == len(text) + 2
            and "\x7f" not in text
        )

    def _template(self, kind: RecordKind) -> _Template | None:
        """A new template, where others of this kind are to come."""
        if not kind.is_kept:
            return None
        sample = kind.sample
        figures = [name for name in RecordFigures.__struct_fields__ if getattr(sample, name) is not None]
        line, event = access_fields(sample), event_fields(sample)
        for name in ("ts", *_OF_ACCESS_LOG, "request_id", *figures):
            line.pop(name, None)
            event.pop(name, None)
        del event["started_at"]
        texts = self._masked(self._json(line)), self._masked(jsonl.line(event).decode())
        template = self._templates[kind] = _Template(f'",{texts[0]},', f",{texts[1]},")
        return template

    def _masked(self, text: str) -> str:
        """The members of this object, as they stand in a template."""
        return self._redactor.redact(text)[1:-1]


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
