"""Lines of requests are the same JSON whether they are made of a template or as a whole, and hold no secret."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.attribution import CLAIMED, encode
from llmproxy.brief_record import RecordKinds, parts_of
from llmproxy.model import RequestRecord
from llmproxy.observability.redaction import Redactor
from llmproxy.observability.request_lines import RequestLines, access_fields, event_fields

texts = st.text(max_size=12) | st.sampled_from(
    ["gpt-4o", "100%", "%s", '"\\', "\x7f\u2028", "\ud800", "Bearer " + "x" * 20]
)
numbers = st.integers(0, 2**40)
seconds = st.floats(0, 1e9) | st.sampled_from([0.0, 0.1, 1e-7])


def record(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": "r1",
        "started_at": 1700000000.0,
        "duration": 0.25,
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "complete",
    }
    return RequestRecord(**values | changes)


records = st.builds(
    RequestRecord,
    request_id=st.uuids().map(str) | texts,
    started_at=st.floats(0, 4e9),
    duration=seconds,
    method=texts,
    path=texts,
    status=st.integers(100, 599),
    outcome=texts,
    api=texts,
    model=texts,
    stream=st.booleans(),
    bytes_in=numbers,
    bytes_out=numbers,
    first_byte=st.none() | seconds,
    upstream_time=st.none() | seconds,
    auth_time=seconds,
    queue_time=seconds,
    upstream_status=st.none() | st.integers(100, 599),
    user_agent=texts,
    sdk_retry=numbers,
    answered=texts,
    input_tokens=numbers,
    cached_tokens=numbers,
    cache_write_tokens=numbers,
    output_tokens=numbers,
    reasoning_tokens=numbers,
    cost_usd=st.none() | st.floats(0, 1e6) | st.sampled_from([float("inf"), 1.5e-05]),
    attribution=st.just("") | texts.map(lambda text: encode([("user", (text, CLAIMED))])),
)


def members(line: str | bytes) -> Any:
    """What is in a line, in its order."""
    return json.loads(line, object_pairs_hook=list)


class Written:
    """What becomes of a record that has come so often, in both forms."""

    def __init__(self, lines: RequestLines, record: RequestRecord, times: int, events_first: bool = False) -> None:
        kinds = RecordKinds()
        for number in range(times):
            each = kinds.parts_of(record if number == times - 1 else record._replace(request_id=f"earlier-{number}"))
            if events_first:
                self.event = lines.events([each])
            self.access = lines.access_lines([each])
            if not events_first:
                self.event = lines.events([each])


class RequestLinesTests(SynchronousTestCase):
    def test_fields(self) -> None:
        """The line says when the request ended and all that is known of it, but nothing that is empty."""
        shown = access_fields(record(api="openai", first_byte=0.123457, stream=True))
        self.assertEqual(
            shown,
            {
                "ts": "2023-11-14T22:13:20.250Z",
                "level": "info",
                "logger": "access",
                "msg": "request",
                "request_id": "r1",
                "duration": 0.25,
                "method": "POST",
                "path": "/v1/chat/completions",
                "status": 200,
                "outcome": "complete",
                "api": "openai",
                "stream": True,
                "bytes_in": 0,
                "bytes_out": 0,
                "first_byte": 0.123457,
                "auth_time": 0.0,
                "queue_time": 0.0,
                "cache": "disabled",
                "sdk_retry": 0,
                "attempts": 0,
                "input_tokens": 0,
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "output_tokens": 0,
                "reasoning_tokens": 0,
            },
        )

    def test_every_field(self) -> None:
        """Nothing of a record is left out where it has a value, but its steps."""
        full = RequestRecord(
            **{name: 1.0 if name in ("started_at", "duration") else "x" for name in RequestRecord._fields}
        )
        self.assertEqual(set(RequestRecord._fields) - set(access_fields(full)), {"started_at", "steps"})
        self.assertEqual(set(RequestRecord._fields) - set(event_fields(full)), {"steps"})

    @given(records, st.booleans())
    def test_the_same_of_a_template(self, made: RequestRecord, events_first: bool) -> None:
        """A record that is like others has the lines that it would have if it were like none."""
        once, often = (Written(RequestLines(Redactor()), made, times, events_first) for times in (1, 3))
        self.assertEqual(members(often.access), members(once.access))
        self.assertEqual(json.loads(often.event), json.loads(once.event))
        for written in (once, often):
            self.assertEqual((written.access.count("\n"), written.event.count(b"\n")), (1, 1))
            self.assertTrue(written.access.isascii() and written.access[:-1].isprintable())

    @given(st.lists(records, max_size=8))
    def test_together(self, made: list[RequestRecord]) -> None:
        """Lines that are made together are those that are made alone, whatever is in the ids of the others."""
        lines, alone = RequestLines(Redactor(["hunter2"])), RequestLines(Redactor(["hunter2"]))
        made = [*made, record(request_id="ends with hunter"), record(request_id="2 begins this"), record()] * 3
        kinds, each_alone = RecordKinds(), [parts_of(each) for each in made]
        together = [kinds.parts_of(each) for each in made]
        access, events = lines.access_lines(together).splitlines(), lines.events(together).splitlines()
        self.assertEqual(list(map(members, access)), [members(alone.access_lines([each])) for each in each_alone])
        self.assertEqual(list(map(json.loads, events)), [json.loads(alone.events([each])) for each in each_alone])

    def test_secret_in_one_of_many(self) -> None:
        """It is masked, and takes no other request's id with it."""
        lines, kinds = RequestLines(Redactor(["hunter2"])), RecordKinds()
        for _ in range(3):
            made = [kinds.parts_of(record(request_id=each)) for each in ("a", "x-hunter2-y", "b")]
            ids = [json.loads(line)["request_id"] for line in lines.access_lines(made).splitlines()]
            self.assertEqual(ids, ["a", "x-[redacted]-y", "b"])

    @given(st.lists(records, max_size=8), st.data())
    def test_one_after_the_other(self, made: list[RequestRecord], data: st.DataObject) -> None:
        """In whatever order both lines of requests are made, also of some that have an id in common."""
        lines, kinds = RequestLines(Redactor()), RecordKinds()
        waiting = [(each, form) for each in made * 2 for form in (lines.access_lines, lines.events)]
        for each, form in data.draw(st.permutations(waiting)):
            alone, parts = RequestLines(Redactor()), kinds.parts_of(each)
            if form == lines.access_lines:
                self.assertEqual(members(form([parts])), members(alone.access_lines([parts_of(each)])))
            else:
                self.assertEqual(json.loads(form([parts])), json.loads(alone.events([parts_of(each)])))

    def test_a_template_is_used(self) -> None:
        """Nothing is made that others of a kind have had before."""
        lines, kinds = RequestLines(Redactor()), RecordKinds()
        for number in range(5):
            lines.events([kinds.parts_of(record(request_id=str(number), bytes_in=number))])
        self.assertEqual(len(lines._templates), 1)
        for number in range(5):
            lines.events([kinds.parts_of(record(request_id=str(number), path=f"/{number}"))])
        self.assertEqual(len(lines._templates), 1)

    def test_secrets(self) -> None:
        """None is in a line, wherever it stands and whenever it became known."""
        redactor = Redactor(["own-secret-1"])
        lines = RequestLines(redactor)
        first = record(user_agent="x own-secret-1", path="/later-secret", request_id="id")
        for _ in range(3):
            written = Written(lines, first, 2)
            self.assertNotIn("own-secret-1", written.access + written.event.decode())
            self.assertIn("later-secret", written.access)
        kinds = RecordKinds()
        waiting = [kinds.parts_of(first) for _ in range(3)]
        lines.events(waiting)  # and their access lines are still to be made
        redactor.add("later-secret")
        redactor.add("secret-id-7")
        for request_id in ("id", "secret-id-7", "id", "secret-id-7"):
            written = Written(lines, first._replace(request_id=request_id), 3)
            both = written.access + written.event.decode() + lines.access_lines(waiting)
            self.assertNotRegex(both, "later-secret|own-secret|secret-id")
            self.assertEqual(json.loads(written.event)["path"], "/[redacted]")
            self.assertEqual(json.loads(written.access)["path"], "/[redacted]")
