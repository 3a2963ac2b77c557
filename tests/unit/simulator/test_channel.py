"""Seeing requests exactly, and clients as they come and go."""

from __future__ import annotations

import base64
import hashlib

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.simulator.client import OPENAI, Client

HEAD = (
    b"\r\nPOST /v1/files?x=%2F HTTP/1.1\r\nhOST: sim\r\nX-A:1\r\nx-a:   2  \r\n"
    b"authorization: Bearer sk-sim-openai\r\ncontent-LENGTH: 10\r\n\r\n"
)


class ChannelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def test_header_lines_are_recorded_raw(self) -> None:
        """Case, order, white space and duplicates are those that were sent."""
        self.client.send(HEAD)
        recorded = self.client.recorded()[0]
        self.assertEqual(recorded["target"], "/v1/files?x=%2F")
        self.assertEqual(
            recorded["headers"],
            ["hOST: sim", "X-A:1", "x-a:   2  ", "authorization: Bearer sk-sim-openai", "content-LENGTH: 10"],
        )

    def test_a_request_is_recorded_while_its_body_arrives(self) -> None:
        self.client.send(HEAD + b"12345")
        recorded = self.client.recorded()[0]
        self.assertEqual((recorded["body_length"], recorded["received_at"]), (5, None))
        self.client.send(b"67890")
        recorded = self.client.recorded()[0]
        self.assertEqual(recorded["body_sha256"], hashlib.sha256(b"1234567890").hexdigest())
        self.assertIsNotNone(recorded["received_at"])

    def test_a_chunked_body_is_recorded_without_its_framing(self) -> None:
        self.client.start("POST", "/v1/files", OPENAI, "Transfer-Encoding: chunked")
        self.client.send(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
        self.assertEqual(base64.b64decode(self.client.recorded()[0]["body"]), b"abcde")

    def test_a_client_leaving_before_its_body_is_complete_is_noted(self) -> None:
        self.client.send(HEAD + b"12345")
        self.client.clock.advance(3)
        self.client.leave()
        self.assertEqual(self.client.recorded()[0]["left_at"], 3.0)

    def test_a_client_leaving_before_the_head_of_its_answer_is_noted(self) -> None:
        self.client.start("GET", "/v1/models", OPENAI, "X-Sim-Delay: 60")
        self.client.clock.advance(1)
        self.client.leave()
        recorded = self.client.recorded()[0]
        self.assertEqual((recorded["left_at"], recorded["bytes_sent"], recorded["status"]), (1.0, 0, None))
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_a_client_leaving_after_its_answer_has_not_left(self) -> None:
        self.client.ask("GET", "/v1/models", OPENAI)
        self.client.leave()
        recorded = self.client.recorded()[0]
        self.assertIsNone(recorded["left_at"])
        self.assertIsNotNone(recorded["finished_at"])

    def test_connections_are_numbered_and_reused(self) -> None:
        self.client.ask("GET", "/v1/models", OPENAI)
        self.client.ask("GET", "/v1/models", OPENAI)
        self.client.connect()
        self.client.ask("GET", "/v1/models", OPENAI)
        self.assertEqual([entry["connection"] for entry in self.client.recorded()], [1, 1, 2])
        self.assertEqual(self.client.site.journal.stats()["connections"], 2)

    def test_a_long_head_is_not_refused(self) -> None:
        status, _, _ = self.client.ask("GET", "/v1/models", OPENAI, "X-Long: " + "a" * 15_000)
        self.assertEqual(status, 200)

    def test_looking_at_the_journal_is_not_recorded(self) -> None:
        self.client.ask("GET", "/-/requests?since=0")
        self.client.ask("GET", "/-/stats")
        self.assertEqual(self.client.recorded(), [])

    def test_early_answers_while_the_upload_is_on_its_way(self) -> None:
        """The answer is complete, and the connection is not reset under it."""
        self.client.start("POST", "/v1/files", OPENAI, "Content-Length: 1000000", "X-Sim-Fault: early")
        self.client.send(b"a" * 1000)
        self.client.turn()
        status, lines, _ = self.client.answer()
        self.assertEqual(status, 413)
        self.assertIn(b"Connection: close", lines)
        self.client.send(b"a" * 1000)
        self.assertTrue(self.client.transport.half_closed)
        self.assertFalse(self.client.transport.disconnecting)
        self.assertIsNone(self.client.recorded()[0]["received_at"])
        self.client.clock.advance(5)
        self.assertTrue(self.client.transport.disconnecting)

    def test_stall_upload_stops_reading(self) -> None:
        self.client.start("POST", "/v1/files", OPENAI, "Content-Length: 1000000", "X-Sim-Fault: stall-upload")
        self.client.turn()
        self.assertEqual(self.client.transport.producerState, "paused")
        self.assertEqual(self.client.transport.value(), b"")
