"""What is told later: which answers announce it, which requests fetch it, and what it used."""

from __future__ import annotations

import gzip
import json
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.metering.catalog import Meters
from llmproxy.metering.deferred import Announcement, Collection, ResultOutcome, fetched_id
from llmproxy.metering.deferred_bodies import MAX_STORED_BYTES
from llmproxy.metering.dialects import anthropic, google, openai, registry
from llmproxy.model import Usage
from llmproxy.wire.buffers import Buffers

AT = 1_764_000_000.0
JSON = [b"Content-Type: application/json"]
STREAM = [b"Content-Type: text/event-stream"]
USED = {
    "input_tokens": 2000,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 400,
    "output_tokens_details": {"reasoning_tokens": 100},
    "total_tokens": 2400,
}
O3 = (2000 * 2 + 400 * 8) / 1e6  # dollars
RESPONSE = {"id": "resp_1", "object": "response", "background": True, "model": "o3", "status": "queued", "usage": None}
BATCH = {"id": "batch_1", "object": "batch", "status": "validating"}


def event(data: Any) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def _deferred(answer: Any) -> str:
    """As any of the providers says it."""
    return (
        openai.deferred_result_id(answer) or anthropic.deferred_result_id(answer) or google.deferred_result_id(answer)
    )


def result_id(answer: Any, lines: list[bytes] = JSON) -> str:
    announcement = Announcement(lines, _deferred)
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    for at in range(0, len(raw), 50):
        announcement.feed(raw[at : at + 50])
    return announcement.result_id()


class AnnouncementTests(SynchronousTestCase):
    def test_announced(self) -> None:
        """By all kinds of answers, encoded or not."""
        self.assertEqual(result_id(RESPONSE), "resp_1")
        self.assertEqual(result_id({**RESPONSE, "status": "in_progress"}), "resp_1")
        self.assertEqual(result_id(BATCH), "batch_1")
        self.assertEqual(result_id({"id": "job", "object": "batch", "status": "QUEUED", "model": "m"}), "job")
        self.assertEqual(
            result_id({"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}), "msgbatch_1"
        )
        self.assertEqual(result_id({"name": "batches/abc", "metadata": {"state": "BATCH_STATE_PENDING"}}), "abc")
        encoded = gzip.compress(json.dumps(RESPONSE).encode())
        self.assertEqual(result_id(encoded, [*JSON, b"Content-Encoding: gzip"]), "resp_1")

    def test_said_before_it_is_passed_on(self) -> None:
        """The bytes that announce it are looked at as they come, some few times."""
        told: list[str] = []
        announcement = Announcement(JSON, openai.deferred_result_id, told.append)
        raw = json.dumps(RESPONSE).encode()
        announcement.feed(raw[:-1])
        self.assertEqual(told, [])
        announcement.feed(raw[-1:])
        announcement.feed(b"\n")
        self.assertEqual((told, announcement.result_id()), (["resp_1"], "resp_1"))
        announcement = Announcement(STREAM, openai.deferred_result_id, told.append)
        announcement.feed(event({"type": "response.created", "response": RESPONSE}))
        self.assertEqual(told, ["resp_1", "resp_1"])

    def test_what_is_kept_is_counted(self) -> None:
        held = Buffers(10**9)
        announcement = Announcement(JSON, openai.deferred_result_id, holding=held)
        announcement.feed(json.dumps(RESPONSE).encode())
        self.assertEqual(held.held, len(json.dumps(RESPONSE)))
        self.assertEqual(announcement.result_id(), "resp_1")
        announcement.close()
        self.assertEqual((held.held, announcement.result_id()), (0, "resp_1"))
        announcement.feed(b"  ")
        self.assertEqual(held.held, 0)
        for path, text in ((b"/v1/responses/resp_1", b"{"), (b"/v1/files/f/content", b'{"custom_id":1}\n{"custom')):
            collection = Collection(path, JSON, lambda path: None, AT, held)
            collection.feed(text)
            self.assertEqual(held.held, len(text.rpartition(b"\n")[2]))
            collection.feed(b"x" * (MAX_STORED_BYTES + 1))
            self.assertEqual(held.held, 0, "what is too long is not kept")
            collection.close()
            self.assertEqual(held.held, 0)

    def test_streamed(self) -> None:
        """A stream that runs in the background says so in its first event."""
        first = event({"type": "response.created", "response": RESPONSE})
        self.assertEqual(
            result_id(first + event({"type": "response.output_text.delta", "delta": "x"}), STREAM), "resp_1"
        )
        plain = event({"type": "response.created", "response": {**RESPONSE, "background": False}})
        self.assertEqual(result_id(plain + event({"type": "x", "t": '"background": true'}), STREAM), "")

    def test_not_announced(self) -> None:
        """The answer itself is all."""
        for answer in (
            {**RESPONSE, "status": "completed"},
            {**RESPONSE, "background": None},
            {"id": "x", "object": "chat.completion", "text": '"background": true'},
            {**RESPONSE, "id": 7},
            {**RESPONSE, "id": "x" * 999},
            [],
            b"\x00",
        ):
            self.assertEqual(result_id(answer), "", answer)

    @given(st.binary())
    def test_anything(self, raw: bytes) -> None:
        for lines in (JSON, STREAM, [], [b"Content-Encoding: gzip"], [b"Content-Encoding: br"]):
            self.assertEqual(result_id(raw, lines), "")

    def test_paths(self) -> None:
        """Which requests are looked at, and which of them fetch what."""
        for provider, path in (
            ("openai", b"/v1/responses"),
            ("openai", b"/v1/batches"),
            ("anthropic", b"/v1/messages/batches"),
            ("mistral", b"/v1/batch/jobs"),
            ("google", b"/v1beta/models/gemini-2.5-flash:batchGenerateContent"),
        ):
            self.assertIsNotNone(registry.operation(provider, path).deferred, path)
        self.assertIsNone(registry.operation("openai", b"/v1/chat/completions").deferred)
        for method, path, name in (
            (b"GET", b"/v1/responses/resp_1", "resp_1"),
            (b"POST", b"/v1/responses/resp_1/cancel", "resp_1"),
            (b"GET", b"/v1/batches/batch_1", "batch_1"),
            (b"GET", b"/v1/messages/batches/m1/results", "m1"),
            (b"GET", b"/v1/messages/batches/m1", "m1"),
            (b"GET", b"/v1beta/batches/abc", "abc"),
            (b"GET", b"/v1/batch/jobs/j1", "j1"),
            (b"GET", b"/v1/files/file-1/content", "file-1"),
            (b"DELETE", b"/v1/responses/resp_1", ""),
            (b"POST", b"/v1/responses/resp_1", ""),
            (b"GET", b"/v1/responses/resp_1/input_items", ""),
            (b"GET", b"/v1/files/file-1", ""),
            (b"GET", b"/v1/batches", ""),
        ):
            self.assertEqual(fetched_id(method, path), name, path)


class CollectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        apis = {name: Api(provider=name, base_url="http://x", allowed_endpoints=["/**"]) for name in
                ("openai", "anthropic", "google", "mistral")}  # fmt: skip
        self.meters = Meters(Settings(apis=apis, default_api="openai"))

    def outcome(
        self, api: str, path: bytes, answer: Any, lines: list[bytes] = JSON, complete: bool = True, model: str = ""
    ) -> ResultOutcome | None:
        collection = Collection(path, lines, partial(self.meters.dialect, b"POST", api), AT)
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        for at in range(0, len(raw), 70):
            collection.feed(raw[at : at + 70])
        return collection.outcome(model, AT, complete=complete)

    def used(self, *arguments: Any, **more: Any) -> Usage:
        outcome = self.outcome(*arguments, **more)
        assert outcome is not None and outcome.usage is not None, outcome
        return outcome.usage

    def assert_used(self, usage: Usage, given: int, made: int, cost: float | None) -> None:
        self.assertEqual((usage.input_tokens, usage.output_tokens, usage.basis), (given, made, "exact"))
        if cost is None:
            self.assertIsNone(usage.cost_usd)
        else:
            self.assertAlmostEqual(usage.cost_usd or 0.0, cost, 12)

    def test_a_response(self) -> None:
        """Final by its status; what has no model in it costs as what was asked for."""
        path = b"/v1/responses/resp_1"
        for status in ("queued", "in_progress"):
            self.assertIsNone(self.outcome("openai", path, {**RESPONSE, "status": status}))
        done = {**RESPONSE, "status": "completed", "usage": USED}
        self.assert_used(self.used("openai", path, done), 2000, 400, O3)
        self.assert_used(self.used("openai", path, {**done, "status": "incomplete", "model": None}, model="o3"),
                         2000, 400, O3)  # fmt: skip
        self.assert_used(self.used("openai", path, {**RESPONSE, "status": "failed"}), 0, 0, 0.0)
        self.assertEqual(self.outcome("openai", path, {**RESPONSE, "status": "cancelled"}), ResultOutcome())
        self.assertIsNone(self.outcome("openai", path, {"error": {"code": "not_found"}}))

    def test_a_response_as_a_stream(self) -> None:
        """It is final with its last event."""
        path = b"/v1/responses/resp_1"
        first = event({"type": "response.created", "response": RESPONSE})
        last = event({"type": "response.completed", "response": {**RESPONSE, "status": "completed", "usage": USED}})
        self.assertIsNone(self.outcome("openai", path, first, STREAM))
        self.assert_used(self.used("openai", path, first + last, STREAM), 2000, 400, O3)

    def test_a_batch(self) -> None:
        """OpenAI's: half the price; where it does not tell its usage, its file does."""
        path = b"/v1/batches/batch_1"
        self.assertIsNone(self.outcome("openai", path, BATCH))
        done = {**BATCH, "status": "completed", "model": "o3", "output_file_id": "file-9"}
        self.assert_used(self.used("openai", path, {**done, "usage": USED}), 2000, 400, O3 / 2)
        self.assertEqual(self.outcome("openai", path, done), ResultOutcome(None, "file-9"))
        failed = {**BATCH, "status": "failed", "request_counts": {"completed": 0}}
        self.assert_used(self.used("openai", path, failed), 0, 0, 0.0)

    def test_a_file_of_results(self) -> None:
        """Each line tells what it used; what is no batch's output is none, and half of one is not all."""
        used = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
        body = {"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [{"x": "y" * 99}], "usage": used}
        line = json.dumps({"custom_id": "1", "response": {"status_code": 200, "body": body}, "error": None}) + "\n"
        bad = json.dumps({"custom_id": "2", "response": None, "error": {"code": "batch_expired"}}) + "\n"
        path = b"/v1/files/file-9/content"
        whole = (line + bad + line).encode()
        cost = 2 * (1000 * 2.5 + 100 * 10) / 1e6 / 2
        self.assert_used(self.used("openai", path, whole, []), 2000, 200, cost)
        self.assert_used(self.used("openai", path, whole[:-1], []), 2000, 200, cost)
        self.assertIsNone(self.outcome("openai", path, whole, [], complete=False))
        for other in (b"", b'{"messages": []}\n', b"PDF\n" * 100, b"[]\n", b'{"custom_id": "1"'):
            self.assertIsNone(self.outcome("openai", path, other, []), other)

    def test_messages(self) -> None:
        """Anthropic's results: the models of a batch differ."""

        def line(model: str, made: int) -> str:
            usage = {"input_tokens": 1000, "output_tokens": made, "service_tier": "batch"}
            message = {"type": "message", "model": model, "content": [], "usage": usage}
            return json.dumps({"custom_id": "c", "result": {"type": "succeeded", "message": message}}) + "\n"

        lines = [line("claude-sonnet-4-5", 100), line("claude-opus-4-5", 100)]
        lines.append(json.dumps({"custom_id": "e", "result": {"type": "errored", "error": {}}}))
        path = b"/v1/messages/batches/m1/results"
        usage = self.used("anthropic", path, "".join(lines).encode(), [b"Content-Type: application/x-jsonl"])
        cost = ((1000 * 3 + 100 * 15) + (1000 * 5 + 100 * 25)) / 1e6 / 2
        self.assert_used(usage, 2000, 200, cost)
        self.assertEqual(usage.model, "")
        counts = {"type": "message_batch", "processing_status": "ended", "request_counts": {"succeeded": 0}}
        self.assert_used(self.used("anthropic", path[:-8], counts), 0, 0, 0.0)
        self.assertIsNone(self.outcome("anthropic", path[:-8], {**counts, "request_counts": {"succeeded": 3}}))

    def test_gemini(self) -> None:
        """Answers that stand in the batch are counted; those in a file nobody can tell here."""
        path, answer = b"/v1beta/batches/abc", {"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 50}}
        inlined = {
            "inlinedResponses": {"inlinedResponses": [{"response": answer}, {"response": answer}, {"error": {}}]}
        }
        batch = {"name": "batches/abc", "metadata": {"model": "models/gemini-2.5-flash"}}
        self.assertIsNone(self.outcome("google", path, batch))
        usage = self.used("google", path, {**batch, "done": True, "response": inlined})
        self.assert_used(usage, 200, 100, (200 * 0.3 + 100 * 2.5) / 1e6 / 2)
        self.assertEqual(self.outcome("google", path, {**batch, "done": True, "response": {"responsesFile": "f"}}),
                         ResultOutcome())  # fmt: skip

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.sampled_from(["completed", "batch", "response"]),
                        lambda v: st.lists(v) | st.dictionaries(st.sampled_from(
                            ["object", "status", "usage", "response", "name", "done", "result", "message", "custom_id",
                             "body", "inlinedResponses", "request_counts", "type"]), v)))  # fmt: skip
    def test_anything(self, said: Any) -> None:
        """No shape breaks it."""
        raw = json.dumps(said).encode()
        for path in (b"/v1/responses/r", b"/v1/batches/b", b"/v1/files/f/content", b"/v1/messages/batches/m/results"):
            self.outcome("openai", path, raw)
            self.outcome("openai", path, b"data: " + raw + b"\n\n", STREAM)
