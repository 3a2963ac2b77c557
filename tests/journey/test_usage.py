"""What a request used is known when it is over, however it ended."""

from __future__ import annotations

import gzip
import json
from typing import Any

from llmproxy.metering.estimating import estimate_prompt
from llmproxy.model import RequestRecord
from tests.support.proxy_case import KEY, STREAM, ProxyTestCase, chunk, request
from tests.support.reading import read
from tests.support.responses import parse_response
from tests.unit.metering.samples import CHAT_USAGE, events, gemini
from tests.unit.metering.samples import chunk as told

BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAMED = json.dumps({"model": "gpt-4o", "stream": True, "messages": []}).encode()
LIKELY = estimate_prompt(read(BODY), len(BODY), "openai", "gpt-4o").likely
USAGE = {**told(), "choices": [], "usage": CHAT_USAGE}


def answer(body: bytes, *lines: str) -> bytes:
    head = ["HTTP/1.1 200 OK", "Content-Type: application/json", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


class Used(ProxyTestCase):
    def assert_used(self, basis: str, given: int, made: int, outcome: str = "complete") -> None:
        record = self.record()
        used = (record.outcome, record.basis, record.input_tokens, record.output_tokens)
        self.assertEqual(used, (outcome, basis, given, made))

    def test_an_answer(self) -> None:
        """Its tokens, what they cost, and the model that answered besides the one that was asked for."""
        self.exchange(
            body=BODY, answer=answer(json.dumps({"model": "gpt-4o-2024-08-06", "usage": CHAT_USAGE}).encode())
        )
        self.assert_used("exact", 100, 20)
        record = self.record()
        self.assertEqual((record.model, record.answered, record.cached_tokens), ("gpt-4o", "gpt-4o-2024-08-06", 10))
        self.assertAlmostEqual(record.cost_usd or 0.0, (90 * 2.5 + 10 * 1.25 + 20 * 10) / 1e6, 12)

    def test_an_encoded_answer(self) -> None:
        """It is decoded on a copy: the client gets the very bytes."""
        body = gzip.compress(json.dumps({"model": "gpt-4o", "usage": CHAT_USAGE}).encode())
        got = self.exchange("Accept-Encoding: gzip", body=BODY, answer=answer(body, "Content-Encoding: gzip"))
        self.assertEqual(got.body, body)
        self.assert_used("exact", 100, 20)

    def test_an_error_of_the_providers(self) -> None:
        """It used nothing."""
        body = json.dumps({"error": {"message": "no"}, "usage": CHAT_USAGE}).encode()
        self.exchange(body=BODY, answer=answer(body).replace(b"200 OK", b"400 Bad Request"))
        self.assert_used("none", 0, 0)

    def test_fetched_again(self) -> None:
        """A stored answer that is fetched uses nothing a second time."""
        body = json.dumps({"model": "gpt-4o", "usage": CHAT_USAGE}).encode()
        self.exchange(method="GET", path="/v1/models/m", body=None, answer=answer(body))
        self.assert_used("none", 0, 0)

    def test_not_measured(self) -> None:
        """An API whose answers are not to be looked at."""
        self.restart(metering={"enabled": False})
        self.exchange(body=BODY, answer=answer(json.dumps({"usage": CHAT_USAGE}).encode()))
        self.assert_used("none", 0, 0)

    def test_left_before_the_answer(self) -> None:
        """The provider may have begun: the input is an estimate."""
        client = self.ask(body=BODY)
        client.reset()
        self.assert_used("estimated", LIKELY, 0, "cancelled")

    def test_never_reached(self) -> None:
        """Nothing was used where nobody was there."""
        self.network.servers.clear()
        self.ask(body=BODY)
        self.assert_used("none", 0, 0, "failed")

    def test_cut_stream(self) -> None:
        """What came of it is an estimate."""
        client = self.ask(body=STREAMED)
        self.provider.last.send(STREAM + chunk(events(told(), told())))
        self.provider.last.reset()
        self.assertFalse(parse_response(client.take()).complete)
        record = self.record()
        self.assertEqual((record.outcome, record.basis), ("truncated", "estimated"))
        self.assertGreater(record.output_tokens, 10)


class Failing(ProxyTestCase):
    """A 200 that is an error, or ends in one, is no success, whoever says so first."""

    ERROR = events({"error": {"message": "overloaded", "type": "server_error", "code": None}})

    def test_an_error_event(self) -> None:
        """The line says that the provider failed, and how; what came until then is counted; the bytes pass."""
        client = self.ask(body=STREAMED)
        first = events(told(), told())
        self.provider.last.send(STREAM + chunk(first) + chunk(self.ERROR) + chunk(b""))
        self.assertEqual(parse_response(client.take()).body, first + self.ERROR)
        self.assert_recorded("failed", 200, "server_error")
        self.assertGreater(self.record().output_tokens, 10)

    def test_the_client_leaves_upon_it(self) -> None:
        """As SDKs do: it left because of the error."""
        client = self.ask(body=STREAMED)
        self.provider.last.send(STREAM + chunk(self.ERROR))
        client.reset()
        self.assert_recorded("failed", 200, "server_error")

    def test_a_text_about_errors(self) -> None:
        """What a model writes is no error."""
        client = self.ask(body=STREAMED)
        said = {**told(), "choices": [{"index": 0, "delta": {"content": '{"error": {"code": "x"}} event: error'}}]}
        self.provider.last.send(STREAM + chunk(events(said)) + chunk(events(USAGE, done=True)) + chunk(b""))
        self.assertTrue(parse_response(client.take()).complete)
        self.assert_used("exact", 100, 20)

    def assert_used(self, basis: str, given: int, made: int) -> None:
        record = self.record()
        self.assertEqual((record.outcome, record.error, record.basis), ("complete", "", basis))
        self.assertEqual((record.input_tokens, record.output_tokens), (given, made))

    def test_a_body(self) -> None:
        """JSON of 200 in the shape of an error."""
        self.exchange(body=BODY, answer=answer(b'{"error": {"message": "no", "code": "model_overloaded"}}'))
        self.assert_recorded("failed", 200, "model_overloaded")


class Gemini(ProxyTestCase):
    api = {"provider": "google", "allowed_endpoints": ["/**"]}  # noqa: RUF012
    prices = [{"api": "*", "model": "*", "input": 1, "output": 1, "units": {"web_searches": 0.5}}]  # noqa: RUF012
    path = "/v1beta/models/gemini-3-pro-preview:streamGenerateContent"

    def each_way(self, answers: list[bytes]) -> list[list[RequestRecord]]:
        """What is recorded of responses on one connection, the last of which is cut: on the fast path, and without."""
        found = []
        for fast_path in (True, False):
            self.server = {"fast_path": fast_path}
            self.restart()
            client = self.client()
            for each in answers:
                client.send(request(path=self.path, body=b'{"contents": []}'))
                self.provider.last.send(each)
            self.provider.last.reset()
            found.append(self.events.records)
        return found

    def test_an_array_that_is_cut(self) -> None:
        """As Google writes it; what its elements reported before holds."""
        use = {"promptTokenCount": 150_000, "cachedContentTokenCount": 100_000, "candidatesTokenCount": 80}
        elements = [json.dumps(gemini("word " * 9, use), indent=2).encode() for _ in range(3)]
        begun = STREAM.replace(b"text/event-stream", b"application/json") + chunk(b"[" + b"\n,\r\n".join(elements))
        for records in self.each_way([begun + chunk(b"\n]") + chunk(b"")] * 3 + [begun]):
            used = [(each.outcome, each.basis, each.input_tokens, each.cached_tokens) for each in records]
            self.assertEqual(used[:3], [("complete", "exact", 150_000, 100_000)] * 3)
            self.assertEqual(used[3:], [("truncated", "estimated", 150_000, 100_000)])

    def test_the_searches_of_a_long_response(self) -> None:
        """They are billed as those of a short one are."""
        queries = {"groundingMetadata": {"webSearchQueries": ["a", "b", "c"]}, "finishReason": "STOP"}
        said = {
            **gemini("", {"promptTokenCount": 9, "candidatesTokenCount": 5}, **queries),
            "modelVersion": "gemini-3-pro",
        }
        answers = []
        for size in (10, 300_000, 300_000, 300_000):
            candidate = {"content": {"parts": [{"inlineData": {"data": "A" * size}}]}, **queries}
            answers.append(answer(json.dumps({**said, "candidates": [candidate]}).encode()))
        for records in self.each_way(answers):
            used = {(each.outcome, each.basis, each.input_tokens, each.cost_usd) for each in records}
            self.assertEqual(len(used), 1, used)
            self.assertAlmostEqual(records[0].cost_usd or 0, 3 * 0.5 + (9 + 5) / 1e6, 9)


class Draining(ProxyTestCase):
    api = {"on_client_abort": "drain", "timeouts": {"drain": "20s"}}  # noqa: RUF012

    def test_heard_out(self) -> None:
        """The client left in the middle, and the provider's own counts are known all the same."""
        client = self.ask(body=STREAMED)
        self.provider.last.send(STREAM + chunk(events(told())))
        client.reset()
        self.assertEqual((self.events.records, self.provider.last.end), ([], ""))
        self.provider.last.send(chunk(events(USAGE)) + chunk(b""))
        record = self.record()
        self.assertEqual((record.outcome, record.basis, record.output_tokens), ("cancelled", "exact", 20))

    def test_not_for_ever(self) -> None:
        """After the time that was given, the provider is stopped."""
        client = self.ask(body=STREAMED)
        self.provider.last.send(STREAM + chunk(events(told())))
        client.close()
        self.network.pass_time(19)
        self.assertEqual(self.events.records, [])
        self.network.pass_time(1)
        self.assertEqual(self.provider.last.end, "reset")
        self.assertEqual((self.record().outcome, self.record().basis), ("cancelled", "estimated"))

    def test_not_before_it_has_begun(self) -> None:
        """Who leaves before the answer has begun stops the provider."""
        client = self.ask(body=STREAMED)
        client.reset()
        self.assertEqual((self.provider.last.end, self.record().outcome), ("reset", "cancelled"))


class Injecting(ProxyTestCase):
    api = {"metering": {"include_usage": "inject"}}  # noqa: RUF012

    def asked(self) -> tuple[list[str], Any]:
        _, lines, body = self.forwarded_request()
        return lines, json.loads(body)

    def test_asked_in_its_place(self) -> None:
        """The provider is asked, the tokens are exact, and the client sees nothing of it."""
        client = self.ask("Accept-Encoding: gzip", body=STREAMED)
        lines, body = self.asked()
        self.assertEqual(body, {**json.loads(STREAMED), "stream_options": {"include_usage": True}})
        self.assertEqual([line for line in lines if line.startswith("Accept-Encoding")], ["Accept-Encoding: identity"])
        first, last = events(told(usage=None)), events(USAGE, done=True)
        self.provider.last.send(STREAM + chunk(first) + chunk(last) + chunk(b""))
        got = parse_response(client.take())
        self.assertEqual((got.body, got.complete), (first + b"data: [DONE]\n\n", True))
        record = self.record()
        self.assertEqual((record.basis, record.output_tokens), ("exact", 20))
        self.assertEqual(record.bytes_out, len(got.body))

    def test_an_answer_with_a_length(self) -> None:
        """What is taken out is not in the length either."""
        body = events(told(), USAGE, done=True)
        whole = answer(body).replace(b"application/json", b"text/event-stream")
        got = self.exchange(body=STREAMED, answer=whole)
        self.assertEqual((got.body, got.complete), (events(told(), done=True), True))

    def test_a_key_in_a_coding(self) -> None:
        """A provider that codes its response all the same, and echoes its key, is cut where that comes."""
        coded = gzip.compress(b'{"error":"not %b"}' % KEY.encode(), mtime=0)
        client = self.ask(body=STREAMED)
        self.provider.last.send(STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n")
        for at in range(0, len(coded), 7):
            if not self.provider.last.end:
                self.provider.last.send(chunk(coded[at : at + 7]))
        self.assertEqual((client.end, self.record().outcome), ("closed", "truncated"))
        self.assertFalse(parse_response(client.take()).complete)

    def test_a_client_that_asked(self) -> None:
        """It gets what it asked for, and its request passes as it is."""
        body = STREAMED[:-1] + b',"stream_options": {"include_usage": true}}'
        client = self.ask("Accept-Encoding: gzip", body=body)
        self.assertTrue(self.provider.last.take().endswith(body))
        self.provider.last.send(STREAM + chunk(events(USAGE)) + chunk(b""))
        self.assertEqual(parse_response(client.take()).body, events(USAGE))

    def test_other_requests(self) -> None:
        """What is no stream passes as it is, and so does its answer."""
        got = self.exchange(body=BODY, answer=answer(json.dumps({"choices": [], "usage": CHAT_USAGE}).encode()))
        self.assertEqual(got.json["usage"], CHAT_USAGE)

    def test_an_upload_that_comes_in_pieces(self) -> None:
        """It is read whole first."""
        client = self.client()
        sent = request(body=STREAMED)
        client.send(sent[:-20])
        self.assertEqual(self.provider.peers, [])
        client.send(sent[-20:])
        self.assertIn("stream_options", self.asked()[1])
