"""Keys, refusals and the looking glass."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.simulator.client import OPENAI, Client

PATH = "/v1/chat/completions"


class AuthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def status(self, target: str, *lines: str) -> int:
        return self.client.ask("POST", target, *lines, "X-Sim-Echo: 1", body=b"{}")[0]

    def test_each_provider_takes_its_key_in_its_own_place(self) -> None:
        self.assertEqual(self.status("/openai/v1/x", "Authorization: Bearer sk-sim-openai"), 200)
        self.assertEqual(self.status("/mistral/v1/x", "authorization: bearer sk-sim-mistral"), 200)
        self.assertEqual(self.status("/anthropic/v1/x", "x-api-key: sk-sim-anthropic"), 200)
        self.assertEqual(self.status("/anthropic/v1/x", "Authorization: Bearer sk-sim-anthropic"), 200)
        self.assertEqual(self.status("/google/v1/x", "x-goog-api-key: sk-sim-google"), 200)
        self.assertEqual(self.status("/google/v1/x?key=sk-sim-google"), 200)
        self.assertEqual(self.status("/azure/openai/x", "api-key: sk-sim-azure"), 200)

    def test_a_key_in_another_place_does_not_count(self) -> None:
        self.assertEqual(self.status("/openai/v1/x", "x-api-key: sk-sim-openai"), 401)
        self.assertEqual(self.status("/openai/v1/x?key=sk-sim-openai"), 401)
        self.assertEqual(self.status("/google/v1/x", "Authorization: Bearer sk-sim-google"), 401)
        self.assertEqual(self.status("/azure/openai/x", "Authorization: Bearer sk-sim-azure"), 401)

    def test_another_providers_key_does_not_count(self) -> None:
        self.assertEqual(self.status("/openai/v1/x", "Authorization: Bearer sk-sim-anthropic"), 401)

    def test_a_refused_key_is_shown_masked(self) -> None:
        _, _, body = self.client.ask("GET", "/v1/models", "Authorization: Bearer sk-lp-0123456789abcdef")
        self.assertNotIn(b"0123456789", body)


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def test_bodies_that_are_no_json_object_are_refused(self) -> None:
        for body in (b"", b"[1", b"[]", b"\xff", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"):
            with self.subTest(body[:10]):
                self.assertEqual(self.client.ask("POST", PATH, OPENAI, body=body)[0], 400)

    def test_values_of_the_wrong_kind_are_refused(self) -> None:
        body = {"model": "m", "input": "x", "dimensions": "many"}
        self.assertEqual(self.client.ask("POST", "/v1/embeddings", OPENAI, body=body)[0], 400)

    def test_unknown_paths_are_not_found(self) -> None:
        for target in ("/", "/v1", "/v1/nowhere", "/nowhere", "/-/nowhere"):
            with self.subTest(target):
                self.assertEqual(self.client.ask("GET", target, OPENAI)[0], 404)

    def test_a_bad_size_is_refused(self) -> None:
        self.assertEqual(self.client.ask("GET", "/-/bytes?size=many")[0], 400)


class InvoiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def invoice(self) -> Any:
        return json.loads(self.client.ask("GET", "/-/invoice")[2])

    def test_what_was_answered_is_billed_and_what_was_refused_is_not(self) -> None:
        """The line says whose request it was; a look at the invoice is none."""
        asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a b"}]}
        ours = (OPENAI, "X-Request-ID: one", "X-Sim-Use: cached=100, output=10")
        self.assertEqual(self.client.ask("POST", PATH, *ours, body=asked)[0], 200)
        self.client.ask("POST", PATH, OPENAI, "X-Sim-Status: 500", body=asked)
        self.client.ask("GET", "/v1/models", OPENAI)
        (line,) = self.invoice()["lines"]
        self.assertEqual((line["request_id"], line["units"]), ("one", {"input": 2, "cached": 100, "output": 10}))
        self.assertEqual(self.invoice()["nano_usd"], 2 * 2500 + 100 * 1250 + 10 * 10_000)

    def test_a_form_is_read(self) -> None:
        parts = [(b'name="model"', b"whisper-1"), (b'name="file"; filename="a.mp3"', b"\x00\xff\r\n--")]
        body = b"".join(b"--xyz\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % part for part in parts)
        kind = "Content-Type: multipart/form-data; boundary=xyz"
        status, _, answer = self.client.ask(
            "POST", "/v1/audio/transcriptions", OPENAI, kind, body=body + b"--xyz--\r\n"
        )
        self.assertEqual((status, json.loads(answer)["usage"]["seconds"]), (200, 9))

    def test_a_unit_that_there_is_not(self) -> None:
        for line in ("X-Sim-Use: gold=1", "X-Sim-Use: input=-1", "X-Sim-Style: nobody"):
            self.assertEqual(self.client.ask("POST", PATH, OPENAI, line, body={})[0], 400)


class LookingGlassTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def test_requests_can_be_read_and_forgotten(self) -> None:
        self.client.ask("GET", "/v1/models", OPENAI)
        _, _, body = self.client.ask("GET", "/-/requests")
        shown = json.loads(body)
        self.assertEqual([entry["target"] for entry in shown["requests"]], ["/v1/models"])
        self.assertEqual(shown["requests"][0]["status"], 200)
        self.assertEqual(json.loads(self.client.ask("GET", "/-/requests?since=1")[2])["requests"], [])
        self.assertEqual(self.client.ask("DELETE", "/-/requests")[0], 204)
        self.assertEqual(json.loads(self.client.ask("GET", "/-/requests")[2])["requests"], [])

    def test_figures_can_be_read(self) -> None:
        self.client.ask("GET", "/v1/models", OPENAI)
        stats = json.loads(self.client.ask("GET", "/-/stats")[2])
        self.assertEqual((stats["requests"], stats["connections"]), (1, 1))
