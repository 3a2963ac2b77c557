"""Putting answers on the wire, right and wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.simulator.client import OPENAI, Client, dechunked

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**CHAT, "stream": True}
PATH = "/v1/chat/completions"


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def test_the_head_and_each_event_are_a_write_and_a_turn_of_their_own(self) -> None:
        self.client.start("POST", PATH, OPENAI, "X-Sim-Events: 3", body=json.dumps(STREAM).encode())
        self.client.clock.advance(0)
        self.assertEqual(len(self.client.transport.writes), 2)
        self.client.clock.advance(0)
        self.assertEqual(len(self.client.transport.writes), 3)
        self.client.turn()
        head, *events, last = self.client.transport.writes
        self.assertTrue(head.endswith(b"\r\n\r\n"))
        self.assertEqual(last, b"0\r\n\r\n")
        self.assertEqual(len(events), 6)  # role, three words, finish reason, [DONE]
        self.assertTrue(all(event.count(b"data: ") == 1 for event in events))

    def test_delays_come_before_the_first_byte_and_between_events(self) -> None:
        self.client.start("POST", PATH, OPENAI, "X-Sim-Delay: 5,2", body=json.dumps(STREAM).encode())
        self.client.clock.advance(4.9)
        self.assertEqual(self.client.transport.writes, [])
        self.client.clock.advance(0.2)
        self.assertEqual(len(self.client.transport.writes), 2)
        self.client.clock.advance(1.5)
        self.assertEqual(len(self.client.transport.writes), 2)
        self.client.clock.advance(1)
        self.assertEqual(len(self.client.transport.writes), 3)

    def test_a_reader_that_stops_reading_stops_the_events(self) -> None:
        self.client.start("GET", "/-/bytes?size=10000000")
        self.client.turn(3)
        self.client.channel.pauseProducing()
        self.client.turn(10)
        before = len(self.client.transport.writes)
        self.client.turn(10)
        self.assertEqual(len(self.client.transport.writes), before)
        self.client.channel.resumeProducing()
        self.client.turn(10)
        self.assertGreater(len(self.client.transport.writes), before)

    def test_a_client_leaving_stops_the_events(self) -> None:
        self.client.start("POST", PATH, OPENAI, "X-Sim-Delay: 0,1", body=json.dumps(STREAM).encode())
        self.client.turn(3, 1)
        self.client.leave()
        before = len(self.client.transport.writes)
        self.client.turn(10, 1)
        self.assertEqual(len(self.client.transport.writes), before)
        recorded = self.client.recorded()[0]
        self.assertEqual((recorded["events_sent"], recorded["left_at"]), (3, 3.0))
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_a_client_leaving_while_it_does_not_read_ends_the_answer(self) -> None:
        self.client.start("GET", "/-/bytes?size=10000000")
        self.client.turn(3)
        self.client.channel.pauseProducing()
        self.client.turn(3)
        self.client.leave()
        self.assertIsNotNone(self.client.recorded()[0]["left_at"])

    def test_http_1_0_is_answered_without_chunks(self) -> None:
        self.client.start("POST", PATH, OPENAI, body=json.dumps(STREAM).encode(), version="HTTP/1.0")
        self.client.turn()
        _, lines, body = self.client.answer()
        self.assertNotIn(b"Transfer-Encoding: chunked", lines)
        self.assertTrue(body.endswith(b"data: [DONE]\n\n"))
        self.assertTrue(self.client.transport.disconnecting)

    def test_head_has_a_length_and_no_body(self) -> None:
        _, lines, body = self.client.ask("HEAD", "/v1/models", OPENAI)
        self.assertEqual(body, b"")
        self.assertTrue(any(line.startswith(b"Content-Length: ") for line in lines))


class SteeredTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def test_a_status_comes_with_its_reason_and_the_providers_error(self) -> None:
        _, _, body = self.client.ask("POST", PATH, OPENAI, "X-Sim-Status: 529 Site is overloaded", body=CHAT)
        self.assertTrue(self.client.transport.value().startswith(b"HTTP/1.1 529 Site is overloaded\r\n"))
        self.assertEqual(json.loads(body)["error"]["type"], "server_error")

    def test_a_status_without_a_body_has_none(self) -> None:
        status, lines, body = self.client.ask("POST", PATH, OPENAI, "X-Sim-Status: 204", body=CHAT)
        self.assertEqual((status, body), (204, b""))
        self.assertFalse(any(line.startswith((b"Content-", b"Transfer-")) for line in lines))

    def test_added_lines_stand_as_they_were_given(self) -> None:
        added = ("X-Sim-Header: x-odd:1", "X-Sim-Header: X-Odd: 2", "X-Sim-Cookie: s=1; Path=/")
        _, lines, _ = self.client.ask("POST", PATH, OPENAI, *added, body=CHAT)
        self.assertEqual([line for line in lines if b"dd" in line], [b"x-odd:1", b"X-Odd: 2"])
        self.assertIn(b"Set-Cookie: s=1; Path=/", lines)

    def test_gzip_carries_the_same_answer(self) -> None:
        _, _, plain = self.client.ask("POST", PATH, OPENAI, body=CHAT)
        _, lines, packed = self.client.ask("POST", PATH, OPENAI, "X-Sim-Gzip: 1", body=CHAT)
        self.assertIn(b"Content-Encoding: gzip", lines)
        self.assertEqual(gzip.decompress(packed), plain)

    def test_a_gzip_stream_can_be_read_event_by_event(self) -> None:
        self.client.ask("POST", PATH, OPENAI, "X-Sim-Gzip: 1", body=STREAM)
        reader = zlib.decompressobj(31)
        first = self.client.transport.writes[1].partition(b"\r\n")[2]
        self.assertTrue(reader.decompress(first).endswith(b"\n\n"))
        _, _, body = self.client.answer()
        self.assertTrue(gzip.decompress(dechunked(body)).endswith(b"data: [DONE]\n\n"))

    def test_echo_gives_the_body_back(self) -> None:
        sent = bytes(range(256)) * 5
        lines = ("X-Sim-Echo: 1", "Content-Type: x/y", "Content-Encoding: br")
        _, answered, body = self.client.ask("POST", PATH, OPENAI, *lines, body=sent)
        self.assertEqual(body, sent)
        self.assertIn(b"Content-Type: x/y", answered)
        self.assertIn(b"Content-Encoding: br", answered)
        self.assertIn(b"Content-Length: 1280", answered)

    def test_echo_can_come_in_events(self) -> None:
        _, _, body = self.client.ask("POST", PATH, OPENAI, "X-Sim-Echo: 1", "X-Sim-Events: 4", body=b"12345678")
        self.assertEqual(body, b"2\r\n12\r\n2\r\n34\r\n2\r\n56\r\n2\r\n78\r\n0\r\n\r\n")

    def test_a_redirect_names_its_place(self) -> None:
        status, lines, body = self.client.ask("POST", PATH, OPENAI, "X-Sim-Redirect: https://x.example/y", body=CHAT)
        self.assertEqual((status, body), (307, b""))
        self.assertIn(b"Location: https://x.example/y", lines)

    def test_a_size_is_the_size_of_the_text(self) -> None:
        _, _, body = self.client.ask("POST", PATH, OPENAI, "X-Sim-Size: 12345", body=CHAT)
        self.assertEqual(len(json.loads(body)["choices"][0]["message"]["content"]), 12345)

    def test_a_field_that_says_nothing_sensible_is_refused(self) -> None:
        status, _, body = self.client.ask("POST", PATH, OPENAI, "X-Sim-Fault: earthquake", body=CHAT)
        self.assertEqual(status, 400)
        self.assertIn("X-Sim-Fault", json.loads(body)["error"]["message"])


class FaultTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(self)

    def ask(self, fault: str, body: object = STREAM) -> bytes:
        return self.client.exchange("POST", PATH, OPENAI, f"X-Sim-Fault: {fault}", "X-Sim-Events: 4", body=body)

    def events(self) -> int:
        sent: int = self.client.recorded()[-1]["events_sent"]
        return sent

    def test_reset_head_resets_before_any_byte(self) -> None:
        self.assertEqual(self.ask("reset-head"), b"")
        self.assertTrue(self.client.transport.disconnected)

    def test_stall_head_says_nothing_until_the_client_leaves(self) -> None:
        self.assertEqual(self.ask("stall-head"), b"")
        self.assertFalse(self.client.transport.disconnected or self.client.transport.disconnecting)
        self.client.leave()
        self.assertIsNotNone(self.client.recorded()[0]["left_at"])

    def test_garbage_is_not_http(self) -> None:
        self.assertFalse(self.ask("garbage").startswith(b"HTTP/"))
        self.assertTrue(self.client.transport.disconnecting)

    def test_reset_resets_after_half_of_the_events(self) -> None:
        self.assertNotIn(b"[DONE]", self.ask("reset"))
        self.assertEqual(self.events(), 2)
        self.assertTrue(self.client.transport.disconnected)

    def test_truncate_closes_after_half_of_the_events(self) -> None:
        self.assertFalse(self.ask("truncate").endswith(b"0\r\n\r\n"))
        self.assertEqual(self.events(), 2)
        self.assertTrue(self.client.transport.disconnecting)

    def test_truncate_cuts_a_plain_answer_too(self) -> None:
        self.ask("truncate", CHAT)
        _, lines, body = self.client.answer()
        length = next(int(line.split(b" ")[1]) for line in lines if line.startswith(b"Content-Length"))
        self.assertTrue(0 < len(body) < length)

    def test_our_own_cut_is_not_the_client_leaving(self) -> None:
        self.ask("truncate")
        self.client.leave()
        self.assertIsNone(self.client.recorded()[0]["left_at"])

    def test_stall_is_silent_after_half_of_the_events(self) -> None:
        self.ask("stall")
        self.assertEqual(self.events(), 2)
        self.assertFalse(self.client.transport.disconnected or self.client.transport.disconnecting)

    def test_stall_after_none_sends_the_head_alone(self) -> None:
        self.assertTrue(self.ask("stall; after=0").endswith(b"\r\n\r\n"))
        self.assertEqual((self.events(), len(self.client.transport.writes)), (0, 1))

    def test_error_event_ends_the_stream_in_the_providers_way(self) -> None:
        _, _, body = self.client.ask("POST", PATH, OPENAI, "X-Sim-Fault: error-event", body=STREAM)
        last = dechunked(body).rstrip().rpartition(b"data: ")[2]
        self.assertEqual(json.loads(last)["error"]["code"], "server_error")

    def test_bad_length_is_negative(self) -> None:
        self.assertIn(b"\r\nContent-Length: -1\r\n", self.ask("bad-length"))

    def test_double_length_contradicts_itself(self) -> None:
        self.assertEqual(self.ask("double-length", CHAT).count(b"Content-Length: "), 2)

    def test_no_terminal_chunk_lacks_only_that(self) -> None:
        answer = self.ask("no-terminal-chunk")
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n\r\n"))
        self.assertTrue(self.client.transport.disconnecting)

    def test_slow_head_comes_line_by_line(self) -> None:
        self.client.start("POST", PATH, OPENAI, "X-Sim-Fault: slow-head", body=json.dumps(CHAT).encode())
        self.client.turn(3, 0.1)
        self.assertEqual([write.count(b"\r\n") for write in self.client.transport.writes], [1, 1, 1])
        self.client.turn(60, 0.1)
        self.assertEqual(self.client.answer()[0], 200)

    def test_close_idle_closes_after_a_complete_answer_unannounced(self) -> None:
        self.assertNotIn(b"Connection: close", self.ask("close-idle"))
        self.assertTrue(self.client.transport.value().endswith(b"0\r\n\r\n"))
        self.assertTrue(self.client.transport.disconnecting)

    def test_close_next_closes_when_the_next_request_begins(self) -> None:
        self.assertTrue(self.ask("close-next").endswith(b"0\r\n\r\n"))
        self.assertFalse(self.client.transport.disconnecting)
        self.client.start("GET", "/v1/models", OPENAI)
        self.assertTrue(self.client.transport.disconnecting)
        self.assertEqual(len(self.client.recorded()), 1)


class BytesTests(SynchronousTestCase):
    def test_the_same_seed_gives_the_same_bytes(self) -> None:
        client = Client(self)
        first = client.ask("GET", "/-/bytes?size=200000&seed=a")[2]
        self.assertEqual(len(first), 200000)
        self.assertEqual(client.ask("GET", "/-/bytes?size=200000&seed=a")[2], first)
        self.assertNotEqual(client.ask("GET", "/-/bytes?size=200000&seed=b")[2], first)

    def test_the_length_can_be_hidden(self) -> None:
        client = Client(self)
        plain = client.ask("GET", "/-/bytes?size=1000")[2]
        _, lines, chunked = client.ask("GET", "/-/bytes?size=1000&chunked=1")
        self.assertIn(b"Transfer-Encoding: chunked", lines)
        self.assertEqual(dechunked(chunked), plain)

    def test_an_upload_is_counted_and_hashed(self) -> None:
        client = Client(self)
        sent = b"\x00\r\n--boundary" * 1000
        _, _, body = client.ask("POST", "/v1/files", OPENAI, "Content-Type: multipart/form-data; boundary=x", body=sent)
        answer = json.loads(body)
        self.assertEqual((answer["bytes"], answer["sha256"]), (len(sent), hashlib.sha256(sent).hexdigest()))
