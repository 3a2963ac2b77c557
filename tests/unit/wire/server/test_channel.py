"""A client's connection: what it may send, how long it may take, and how it ends."""

from __future__ import annotations

import sys
from typing import Any

from twisted.web.resource import Resource

from llmproxy import errors
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.server.channel_state import ChannelState
from llmproxy.wire.server.server_limits import ServerLimits
from tests.unit.wire.serving import GET, Client, Consumer, Producer, Serving, failure_of, post


class Heads(Serving):
    def test_malformed_heads_are_refused_in_json(self) -> None:
        for sent, status, code in (
            (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
            (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
            (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_target"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\n\r\n", 400, "bad_request"),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
            (b"GET /" + b"a" * 20000, 414, "uri_too_long"),
            (b"GET / HTTP/1.1\r\nExpect: x\r\nHost: a\r\n\r\n", 417, "expectation_failed"),
            (b"GET / HTTP/1.1\r\nA: " + b"b" * 70000, 431, "request_header_fields_too_large"),
            (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "not_implemented"),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "http_version_not_supported"),
            (b"GET /\r\n", 400, "bad_request"),  # HTTP/0.9: nothing is waited for
            (b"\r\nGET /\r\n", 400, "bad_request"),
        ):
            with self.subTest(sent[:30]):
                self.refused.clear()
                self.assertRefused(self.client(sent, half=True), status, code)

    def test_a_method_that_is_not_allowed_is_told_which_are(self) -> None:
        head, _ = self.client(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").answer
        self.assertIn(b"Allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT", head)

    def test_nothing_after_a_refusal_is_looked_at(self) -> None:
        client = self.client(b"x\r\n\r\n" + GET % b"echo", half=True)
        client.send(GET % b"echo")
        self.assertEqual(client.received.count(b"HTTP/1.1 "), 1)
        client.leave()
        self.assertEqual(self.site.connections, 0)

    def test_what_still_comes_after_a_refusal_is_not_answered_with_a_reset(self) -> None:
        client = self.client(b"x\r\n\r\n", half=True)
        client.send(b"a" * 500_000)
        self.assertIsNone(client.peer.lost)

    def test_a_client_that_does_not_end_after_a_refusal_is_cut_off(self) -> None:
        client = self.client(b"x\r\n\r\n", half=True)
        self.clock.advance(11)
        self.assertTrue(client.link.near.aborted)

    def test_a_head_in_single_bytes(self) -> None:
        client = self.client()
        for byte in GET % b"echo":
            client.send(bytes([byte]))
        self.assertEqual(client.answer[1], b"got /echo")

    def test_a_byte_every_two_seconds_does_not_hold_a_connection(self) -> None:
        client = self.client(half=True)
        for byte in b"GET / HTTP":
            client.send(bytes([byte]))
            self.clock.advance(1.01)
        self.assertRefused(client, 408, "request_timeout")

    def test_the_head_of_a_later_request_has_its_time_too(self) -> None:
        client = self.client(GET % b"echo", half=True)
        self.clock.advance(60)
        client.send(b"GET")
        self.clock.advance(9)
        self.assertFalse(self.refused)
        self.clock.advance(1)
        self.assertEqual(self.refused, [(408, "request_timeout", "192.0.2.1")])

    def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(self) -> None:
        client = self.client()
        self.clock.advance(10)
        self.assertEqual((client.ended, client.received), (True, b""))

    def test_a_connection_that_waits_too_long_for_its_next_request_is_closed(self) -> None:
        client = self.client(GET % b"echo")
        self.clock.advance(74)
        self.assertFalse(client.ended)
        self.clock.advance(1)
        self.assertTrue(client.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_options_of_the_server_itself(self) -> None:
        client = self.client(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        head, body = client.answer
        self.assertEqual((head[0], body), (b"HTTP/1.1 204 No Content", b""))
        self.assertFalse(client.ended)


class Requests(Serving):
    def test_one_after_the_other(self) -> None:
        client = self.client(GET % b"echo")
        client.send(GET % b"echo/2")
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 2)

    def test_an_object_with_few_attributes(self) -> None:
        """With thirty, CPython gives it a table of its own for their names: 1.7 KB more for each idle connection."""
        for _ in range(3):
            channel = self.client(GET % b"echo").channel
            channel.expected = ()  # as on the fast path
        self.assertLess(sys.getsizeof(vars(channel)), 600)

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        client = self.client(GET % b"wait/1" + post(b"x", b"wait/2") + GET % b"wait/3")
        for n in (1, 2, 3):
            self.assertEqual([r.path for r in self.waiting.requests], [b"/wait/%d" % i for i in range(1, n + 1)])
            self.request.write(b"answer %d" % n)
            self.request.finish()
        self.assertLess(client.received.index(b"answer 1"), client.received.index(b"answer 2"))
        self.assertLess(client.received.index(b"answer 2"), client.received.index(b"answer 3"))

    def test_thousands_of_pipelined_requests(self) -> None:
        client = self.client(GET % b"echo" * 5000)
        self.assertEqual(client.received.count(b"got /echo"), 5000)

    def test_a_client_that_sends_requests_and_reads_no_answers_is_made_to_wait(self) -> None:
        client = self.client()
        client.link.far.pauseProducing()
        client.send(GET % b"echo" * 20_000)
        self.assertLess(len(client.link.near.unsent), 300_000)
        self.assertFalse(client.link.near.reading)
        client.link.far.resumeProducing()
        self.assertEqual(client.received.count(b"got /echo"), 20_000)

    def test_a_client_that_never_reads_is_closed_in_the_end(self) -> None:
        client = self.client()
        client.link.far.pauseProducing()
        client.send(GET % b"echo" * 20_000)
        self.clock.advance(75)
        self.clock.advance(60)
        self.assertTrue(client.link.near.aborted)

    def test_what_comes_while_an_answer_is_prepared_is_held_within_bounds(self) -> None:
        client = self.client(GET % b"wait")
        client.send(GET % b"echo" * 20_000)
        self.assertFalse(client.link.near.reading)
        self.request.finish()
        self.assertEqual(client.received.count(b"got /echo"), 20_000)

    def test_connection_close_among_others(self) -> None:
        client = self.client(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n")
        self.assertIn(b"Connection: close", client.answer[0])
        self.assertTrue(client.ended)

    def test_http_1_0(self) -> None:
        client = self.client(b"GET /echo HTTP/1.0\r\n\r\n")
        self.assertIn(b"Connection: close", client.answer[0])
        self.assertTrue(client.ended)

    def test_http_1_0_that_asks_to_go_on(self) -> None:
        client = self.client(b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertIn(b"Connection: keep-alive", client.answer[0])
        self.assertFalse(client.ended)

    def test_http_1_0_without_a_length_ends_with_the_connection(self) -> None:
        client = self.client(b"GET /wait HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.request.begin(200, b"OK", [], None)
        self.request.write(b"all of it")
        self.request.finish()
        head, body = client.answer
        self.assertEqual((body, client.ended), (b"all of it", True))
        self.assertEqual(head, [b"HTTP/1.1 200 OK", b"Connection: close"])


class Bodies(Serving):
    def test_a_resource_that_starts_on_the_head_has_it_before_the_body(self) -> None:
        self.client(post(b"", b"wait", length=5))
        self.assertEqual((self.request.upload.length, self.request.upload.received), (5, None))

    def test_an_ordinary_resource_starts_once_it_has_the_body(self) -> None:
        client = self.client(post(b"he", b"echo", length=5))
        self.assertEqual(client.received, b"")
        client.send(b"llo")
        self.assertEqual(client.answer[1], b"got hello")

    def test_a_chunked_body_for_an_ordinary_resource(self) -> None:
        sent = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        client = self.client(sent + GET % b"echo")
        self.assertIn(b"got hello", client.received)
        self.assertIn(b"got /echo", client.received)

    def test_a_body_too_large_for_an_ordinary_resource(self) -> None:
        self.assertRefused(self.client(post(b"", b"echo", length=2_000_000), half=True), 413, "request_too_large")

    def test_a_chunked_body_too_large_for_an_ordinary_resource(self) -> None:
        client = self.client(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", half=True)
        for _ in range(17):
            client.send(b"10000\r\n" + b"a" * 65536 + b"\r\n")
        self.assertRefused(client, 413, "request_too_large")

    def test_malformed_chunks_for_an_ordinary_resource(self) -> None:
        sent = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"
        self.assertRefused(self.client(sent, half=True), 400, "invalid_body")

    def test_malformed_chunks_end_the_upload_and_the_connection(self) -> None:
        client = self.client(b"POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", half=True)
        reading = self.request.upload.startProducing(Consumer())
        client.send(b"x\r\n" + GET % b"echo")
        self.assertIs(failure_of(reading), errors.BodyUnreadable)
        self.request.begin(400, b"Bad Request", [], 0)
        self.request.finish()
        self.assertEqual(client.answer[0], [b"HTTP/1.1 400 Bad Request", b"Content-Length: 0", b"Connection: close"])
        self.assertTrue(client.ended)

    def test_an_upload_that_stands_still(self) -> None:
        self.client(post(b"he", b"wait", length=5))
        reading = self.request.upload.read_all(100)
        self.clock.advance(29)
        self.assertNoResult(reading)
        self.clock.advance(1)
        self.assertIs(failure_of(reading), errors.BodyTimeout)

    def test_an_upload_of_a_byte_now_and_then(self) -> None:
        client = self.client(post(b"", b"wait", length=5000))
        reading = self.request.upload.read_all(10_000)
        for _ in range(3):
            client.send(b"a")
            self.clock.advance(10)
        self.assertIs(failure_of(reading), errors.BodyTimeout)

    def test_an_upload_that_goes_on(self) -> None:
        client = self.client(post(b"", b"wait", length=20_000))
        reading = self.request.upload.read_all(20_000)
        for _ in range(10):
            client.send(b"a" * 5000)
            self.clock.advance(20)
        self.assertEqual(len(self.successResultOf(reading)), 20_000)

    def test_an_upload_that_stands_still_for_an_ordinary_resource(self) -> None:
        client = self.client(post(b"he", b"echo", length=5), half=True)
        self.clock.advance(30)
        self.assertRefused(client, 408, "request_timeout")

    def test_an_upload_that_stands_still_in_the_middle_of_an_answer(self) -> None:
        client = self.client(post(b"he", b"wait", length=5))
        self.request.begin(200, b"OK", [], None)
        self.clock.advance(30)
        self.assertTrue(client.ended)
        self.assertTrue(self.request.gone)

    def test_an_upload_may_stand_still_where_we_make_it(self) -> None:
        client = self.client(post(b"", b"wait", length=500_000))
        self.request.upload.startProducing(Consumer()).addErrback(lambda _: None)
        self.request.upload.pauseProducing()
        client.send(b"a" * 500_000)
        self.assertFalse(client.link.near.reading)
        self.clock.pump([1] * 100)
        self.assertFalse(self.request.gone)
        self.request.upload.resumeProducing()
        client.link.pump()
        self.assertTrue(self.request.upload.done)

    def test_an_early_answer_ends_the_connection_cleanly(self) -> None:
        client = self.client(post(b"he", b"wait", length=500_000), half=True)
        self.request.begin(401, b"Unauthorized", [], 2)
        self.request.write(b"no")
        self.request.finish()
        self.assertIn(b"Connection: close", client.answer[0])
        self.assertTrue(client.ended)
        client.send(b"a" * 400_000)
        self.assertIsNone(client.peer.lost)
        client.leave()
        self.assertEqual(self.site.connections, 0)

    def test_an_answer_to_a_body_that_is_all_there_but_unread_keeps_the_connection(self) -> None:
        client = self.client(post(b"hello", b"wait"))
        self.request.begin(401, b"Unauthorized", [], 0)
        self.request.finish()
        client.send(GET % b"echo")
        self.assertIn(b"got /echo", client.received)


class Continue(Serving):
    SENT = post(b"", b"wait", b"Expect: 100-continue", length=5)

    def test_it_is_sent_when_somebody_wants_the_body(self) -> None:
        client = self.client(self.SENT)
        self.assertEqual(client.received, b"")
        reading = self.request.upload.read_all(10)
        self.assertEqual(client.received, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hello")
        self.assertEqual(self.successResultOf(reading), b"hello")

    def test_it_is_not_sent_where_the_answer_is_no(self) -> None:
        client = self.client(self.SENT)
        self.request.begin(403, b"Forbidden", [], 0)
        self.request.finish()
        self.assertTrue(client.received.startswith(b"HTTP/1.1 403 Forbidden\r\n"))

    def test_it_is_not_sent_for_a_body_that_is_too_long(self) -> None:
        client = self.client(self.SENT)
        self.assertIs(failure_of(self.request.upload.read_all(4)), errors.RequestTooLarge)
        self.assertEqual(client.received, b"")

    def test_it_is_not_sent_to_a_client_that_did_not_wait(self) -> None:
        client = self.client(self.SENT + b"he")
        self.request.upload.startProducing(Consumer()).addErrback(lambda _: None)
        self.assertEqual(client.received, b"")

    def test_a_client_that_waits_is_not_late(self) -> None:
        self.client(self.SENT)
        self.clock.advance(40)
        self.assertNoResult(self.request.upload.read_all(10).addErrback(lambda _: None))

    def test_an_ordinary_resource(self) -> None:
        client = self.client(post(b"", b"echo", b"Expect: 100-continue", length=5))
        client.send(b"hello")
        self.assertTrue(client.received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"))


class Leaving(Serving):
    """In every phase it is noticed when it happens."""

    def assertGone(self, request: Any) -> None:
        self.assertTrue(request.gone)
        self.assertEqual(len(self.waiting.ends), 1)
        self.assertEqual(self.site.connections, 0)

    def test_in_the_middle_of_its_head(self) -> None:
        self.client(b"GET /wait HT").leave()
        self.assertEqual((self.site.connections, self.clock.getDelayedCalls()), (0, []))

    def test_in_the_middle_of_its_body(self) -> None:
        client = self.client(post(b"he", b"wait", length=5))
        reading = self.request.upload.read_all(10)
        client.leave()
        self.assertIs(failure_of(reading), errors.ClientGone)
        self.assertGone(self.request)

    def test_while_its_body_is_made_to_wait(self) -> None:
        client = self.client(post(b"", b"wait", length=500_000))
        client.send(b"a" * 90_000)
        self.assertFalse(client.link.near.reading)
        client.leave()
        self.clock.advance(0.1)
        client.link.pump()
        self.clock.advance(0.02)  # for the reset that follows what is written to a client that has left
        self.assertGone(self.request)

    def test_while_its_answer_is_prepared(self) -> None:
        for way in ("leave", "reset"):
            with self.subTest(way):
                self.waiting.ends.clear()
                client = self.client(post(b"hello", b"wait"))
                getattr(client, way)()
                self.clock.advance(0.02)
                self.assertGone(self.request)

    def test_while_a_later_request_of_it_waits_too(self) -> None:
        client = self.client(GET % b"wait" + GET % b"wait")
        client.leave()
        self.clock.advance(0.02)
        self.assertGone(self.request)
        self.assertEqual(len(self.waiting.requests), 1)

    def test_in_the_middle_of_its_answer(self) -> None:
        client = self.client(GET % b"wait")
        producer = Producer()
        self.request.begin(200, b"OK", [], None)
        self.request.registerProducer(producer, True)
        self.request.write(b"a")
        client.link.pump()
        client.leave()
        self.clock.advance(0.02)
        self.assertGone(self.request)
        self.assertEqual(producer.told, ["stop"])

    def test_in_the_middle_of_an_answer_with_a_length(self) -> None:
        client = self.client(GET % b"wait")
        self.request.begin(200, b"OK", [], 10)
        client.link.pump()
        client.leave()
        self.assertGone(self.request)

    def test_while_it_does_not_read(self) -> None:
        client = self.client(GET % b"wait")
        client.link.far.pauseProducing()
        self.request.begin(200, b"OK", [], None)
        self.request.write(b"a" * 500_000)
        client.link.pump()
        client.reset()
        self.assertGone(self.request)


class HalfClosed(Serving):
    """A client that says that it will send no more, and listens."""

    def test_gets_its_answer(self) -> None:
        client = self.client(GET % b"wait", half=True)
        client.stop_sending()
        self.clock.pump([0.1] * 50)
        self.assertFalse(self.request.gone)
        self.request.begin(200, b"OK", [], 2)
        self.request.write(b"hi")
        self.request.finish()
        self.assertTrue(client.received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"))
        self.assertTrue(client.received.endswith(b"hi"))
        self.assertTrue(client.ended)
        self.assertEqual(self.site.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gets_the_rest_of_its_stream(self) -> None:
        client = self.client(GET % b"wait", half=True)
        self.request.begin(200, b"OK", [], None)
        self.request.write(b"one")
        client.stop_sending()
        self.clock.advance(1)
        self.request.write(b"two")
        self.request.finish()
        self.assertTrue(client.received.endswith(b"\r\n\r\n3\r\none\r\n03\r\ntwo\r\n0\r\n\r\n"))

    def test_gets_the_answers_to_all_that_it_sent(self) -> None:
        client = self.client(GET % b"wait" + GET % b"wait" + GET % b"echo", half=True)
        client.stop_sending()
        for _ in range(2):
            self.request.finish()
        self.assertIn(b"got /echo", client.received)
        self.assertTrue(client.ended)

    def test_gets_the_responses_to_more_than_is_read_ahead(self) -> None:
        padded = GET[:-2] + b"X: " + b"a" * 1000 + b"\r\n\r\n"
        client = self.client(GET % b"wait" + padded % b"echo" * 200, half=True)
        self.assertFalse(client.link.near.reading)
        client.stop_sending()
        self.clock.pump([0.1] * 10)
        self.assertFalse(self.request.gone)
        self.request.finish()
        self.assertEqual(client.received.count(b"got /echo"), 200)
        self.assertTrue(client.ended)

    def test_gets_the_responses_that_wait_for_it_to_read(self) -> None:
        client = self.client(GET % b"wait", half=True)
        client.link.far.pauseProducing()
        client.send(GET % b"wait" * 3)
        client.stop_sending()
        self.request.write(b"a" * 500_000)
        self.request.finish()
        client.link.pump()
        self.clock.pump([0.1] * 10)
        self.assertEqual(len(self.waiting.requests), 1)
        client.link.far.resumeProducing()
        client.link.pump()
        while not self.request.finished:
            self.request.write(b"a" * 500_000)
            self.request.finish()
            client.link.pump()
        self.assertEqual(client.received.count(b"HTTP/1.1 200"), 4)
        self.assertTrue(client.ended)

    def test_gets_the_response_to_an_upload_that_was_made_to_wait(self) -> None:
        client = self.client(post(b"", b"wait", length=200_000), half=True)
        client.send(b"a" * 200_000)
        self.assertFalse(client.link.near.reading)
        client.stop_sending()
        self.clock.pump([0.1] * 10)
        self.assertFalse(self.request.gone)
        reading = self.request.upload.read_all(200_000)
        client.link.pump()
        self.assertEqual(len(self.successResultOf(reading)), 200_000)
        self.request.finish()
        self.assertIn(b"HTTP/1.1 200", client.received)

    def test_and_then_leaves_before_it_was_read(self) -> None:
        client = self.client(post(b"", b"wait", length=200_000), half=True)
        client.send(b"a" * 200_000)
        client.stop_sending()
        self.clock.pump([0.1] * 10)
        client.reset()
        self.clock.advance(0.1)
        self.assertTrue(self.request.gone)

    def test_in_the_middle_of_its_body_is_gone(self) -> None:
        client = self.client(post(b"he", b"wait", length=5), half=True)
        client.stop_sending()
        self.assertTrue(self.request.gone)


class Backpressure(Serving):
    def test_a_client_that_does_not_read_stops_the_producer(self) -> None:
        client = self.client(GET % b"wait")
        client.link.far.pauseProducing()
        producer = Producer()
        self.request.begin(200, b"OK", [], None)
        self.request.registerProducer(producer, True)
        sent = 0
        while not producer.told and sent < 10_000_000:
            self.request.write(b"a" * 10_000)
            sent += 10_000
            client.link.pump()
        self.assertEqual(producer.told, ["pause"])
        self.assertLess(sent, 300_000)
        client.link.far.resumeProducing()
        client.link.pump()
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_a_producer_that_comes_when_nobody_reads_is_stopped_at_once(self) -> None:
        client = self.client(GET % b"wait")
        client.link.far.pauseProducing()
        self.request.begin(200, b"OK", [], None)
        self.request.write(b"a" * 500_000)
        client.link.pump()
        producer = Producer()
        self.request.registerProducer(producer, True)
        self.assertEqual(producer.told, ["pause"])

    def test_an_upload_that_nobody_takes_is_held_within_bounds(self) -> None:
        client = self.client(post(b"", b"wait", length=10_000_000))
        client.send(b"a" * 10_000_000)
        self.assertLess(self.request.upload.count, 200_000)
        consumer = Consumer()
        reading = self.request.upload.startProducing(consumer)
        client.link.pump()
        self.successResultOf(reading)
        self.assertEqual(len(consumer.taken), 10_000_000)

    def test_a_consumer_that_pauses_makes_the_client_wait(self) -> None:
        client = self.client(post(b"", b"wait", length=10_000_000))
        consumer = Consumer()
        reading = self.request.upload.startProducing(consumer)
        client.send(b"a" * 100_000)
        self.assertEqual(len(consumer.taken), 100_000)
        self.request.upload.pauseProducing()
        client.send(b"a" * 9_900_000)
        self.assertEqual(len(consumer.taken), 100_000)
        self.assertLess(self.request.upload.count, 400_000)
        self.request.upload.resumeProducing()
        client.link.pump()
        self.successResultOf(reading)
        self.assertEqual(len(consumer.taken), 10_000_000)


class SlowReaders(Serving):
    """Whatever the resource: it need not know of any of this."""

    def blocked(self, size: int = 500_000, line: bytes = b"", **settings: Any) -> Any:
        """A client that does not read, and an answer that is too large for all buffers."""

        class Large(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                return b"a" * size

        self.site = self.serve(Large(), **settings)
        client = self.client()
        client.link.far.pauseProducing()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n")
        return client

    def sip(self, client: Any, size: int) -> None:
        del client.link.far.inbox[:size]
        client.link.pump()

    def test_one_that_takes_nothing(self) -> None:
        client = self.blocked()
        self.clock.advance(59)
        self.assertFalse(client.link.near.aborted)
        self.clock.advance(1)
        self.assertTrue(client.link.near.aborted)
        self.assertEqual((self.site.connections, self.clock.getDelayedCalls()), (0, []))

    def test_one_that_takes_a_little(self) -> None:
        client = self.blocked(limits=ServerLimits(send_timeout=20.0, min_send_rate=1000))
        for _ in range(3):
            self.sip(client, 3000)
            self.clock.advance(5)
        self.assertFalse(client.link.near.aborted)
        self.clock.advance(5)
        self.assertTrue(client.link.near.aborted)

    def test_one_that_takes_enough(self) -> None:
        """The rest of its answer is sent, however long that takes, and then the connection is closed as it should."""
        for line in (b"", b"Connection: close\r\n"):
            with self.subTest(line=line):
                client = self.blocked(line=line)
                for _ in range(99):
                    self.sip(client, 5000)
                    self.clock.advance(4)
                    self.assertFalse(client.link.near.aborted)
                client.link.far.resumeProducing()
                client.link.pump()
                self.clock.advance(80)
                self.assertTrue(client.ended)
                self.assertFalse(client.link.near.aborted)

    def test_one_that_stops_while_it_is_closed(self) -> None:
        client = self.blocked(line=b"Connection: close\r\n")
        self.sip(client, 70_000)
        self.clock.advance(60)
        self.assertFalse(client.link.near.aborted)
        self.clock.advance(60)
        self.assertTrue(client.link.near.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_limit(self) -> None:
        self.site = self.serve(limits=ServerLimits(send_timeout=0.0))
        client = self.client()
        client.link.far.pauseProducing()
        client.send(GET % b"wait")
        self.request.begin(200, b"OK", [], None)
        self.request.write(b"a" * 500_000)
        self.clock.pump([60] * 100)
        self.assertFalse(client.link.near.aborted)


class Sites(Serving):
    def test_one_connection_too_many(self) -> None:
        self.site = self.serve(limits=ServerLimits(max_connections=2))
        kept = [self.client(), self.client()]
        late = self.client()
        self.assertTrue(late.ended)
        self.assertEqual(self.refused, [(503, "too_many_connections", "192.0.2.1")])
        kept[0].leave()
        self.assertEqual(self.client(GET % b"echo").answer[1], b"got /echo")

    def test_one_connection_too_many_from_one_address(self) -> None:
        self.site = self.serve(limits=ServerLimits(max_connections_per_address=1))
        first = self.client()
        self.assertTrue(self.client().ended)
        self.assertFalse(self.client(address="192.0.2.2").ended)
        first.leave()
        last = self.client()
        self.assertFalse(last.ended)
        last.leave()
        self.assertEqual(self.site._connections.by_address, {"192.0.2.2": 1})

    def test_connections_of_a_proxy_of_ours_are_not_one_clients(self) -> None:
        self.site = self.serve(limits=ServerLimits(max_connections_per_address=1), is_shared="192.0.2.2".__eq__)
        self.assertEqual([self.client(address="192.0.2.2").ended for _ in range(3)], [False] * 3)
        self.assertEqual([self.client(address="192.0.2.3").ended for _ in range(2)], [False, True])

    def test_many_connections_from_one_address(self) -> None:
        clients = [self.client() for _ in range(100)]
        self.assertEqual(self.site.connections, 100)
        for client in clients:
            client.leave()
        self.assertEqual(self.site.connections, 0)

    def test_limits_are_arguments(self) -> None:
        self.site = self.serve(limits=ServerLimits(messages=MessageLimits(target=50), head_timeout=1))
        self.assertRefused(self.client(b"GET /" + b"a" * 100, half=True), 414, "uri_too_long")

    def test_draining_closes_idle_connections_and_lets_busy_ones_finish(self) -> None:
        idle, busy, waiting = self.client(GET % b"echo"), self.client(GET % b"wait"), self.client()
        drained = self.site.drain()
        self.assertTrue(idle.ended)
        self.assertFalse(busy.ended)
        waiting.send(GET % b"echo")
        self.assertIn(b"Connection: close", waiting.answer[0])
        self.assertTrue(waiting.ended)
        self.assertNoResult(drained)
        self.request.begin(200, b"OK", [], 0)
        self.request.finish()
        self.assertIn(b"Connection: close", busy.answer[0])
        self.assertTrue(busy.ended)
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_draining_with_patience(self) -> None:
        """Idle clients may ask once more, for they cannot know; those that do not are let go in the end."""
        asking, silent = self.client(GET % b"echo"), self.client(GET % b"echo")
        drained = self.site.drain(5.0)
        self.assertEqual((asking.ended, silent.ended), (False, False))
        asking.send(GET % b"echo")
        self.assertIn(b"Connection: close", asking.received)
        self.assertTrue(asking.ended)
        self.clock.advance(4.9)
        self.assertNoResult(drained)
        self.clock.advance(0.2)
        self.assertTrue(silent.ended)
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_draining_without_connections(self) -> None:
        self.successResultOf(self.site.drain())

    def test_aborting(self) -> None:
        clients = [self.client(GET % b"echo"), self.client(GET % b"wait")]
        self.site.abort()
        self.assertTrue(all(client.ended for client in clients))
        self.assertTrue(self.request.gone)

    def test_a_resource_that_cannot_be_found_without_an_error(self) -> None:
        class Broken(Resource):
            def getChild(self, path: bytes, request: Any) -> Resource:
                raise ValueError("secret")

        self.site = self.serve(Broken())
        head, body = self.client(GET % b"x").answer
        self.assertEqual(head[0], b"HTTP/1.1 500 Internal Server Error")
        self.assertNotIn(b"secret", body)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class Transitions(Serving):
    """Every row of the table in L{Channel}."""

    def reading(self) -> Client:
        client = self.client(half=True)
        self.assertStates(client, "READING")
        return client

    def idle(self) -> Client:
        client = self.client(GET % b"echo", half=True)
        self.assertStates(client, "IDLE")
        return client

    def responding(self, sent: bytes = GET % b"wait") -> Client:
        client = self.client(sent, half=True)
        self.assertStates(client, "RESPONDING")
        return client

    def lingering(self) -> Client:
        client = self.client(b"x\r\n\r\n", half=True)
        self.assertStates(client, "LINGERING")
        return client

    def assertStates(self, client: Client, state: str) -> None:
        self.assertIs(client.channel.state, ChannelState[state])

    def after(self, state: str, client: Client, sent: bytes = b"") -> None:
        client.send(sent)
        self.assertStates(client, state)

    def flushed(self, channel: Any, act: Any) -> list[ChannelState]:
        """The states that a step ends in, before the connection is closed for good."""
        states: list[ChannelState] = []
        lose = channel.transport.loseConnection
        channel.transport.loseConnection = lambda: (states.append(channel.state), lose())
        act()
        return states

    def test_from_reading(self) -> None:
        self.after("RESPONDING", self.reading(), GET % b"wait")
        self.after("LINGERING", self.reading(), b"x\r\n\r\n")
        late = self.reading()
        self.after("READING", late, b"GET ")
        self.clock.advance(11)
        self.assertStates(late, "LINGERING")
        silent = self.reading()
        self.assertEqual(self.flushed(silent.channel, lambda: self.clock.advance(11)), [ChannelState.FLUSHING])
        ended = self.reading()
        self.assertEqual(self.flushed(ended.channel, ended.stop_sending), [ChannelState.FLUSHING])

    def test_from_idle(self) -> None:
        self.after("READING", self.idle(), b"GET ")
        self.after("RESPONDING", self.idle(), GET % b"wait")
        self.after("LINGERING", self.idle(), b"x\r\n\r\n")
        silent = self.idle()
        self.assertEqual(self.flushed(silent.channel, lambda: self.clock.advance(76)), [ChannelState.FLUSHING])
        for act in ("drain", "close_idle"):
            channel = self.idle().channel
            self.assertEqual(self.flushed(channel, getattr(channel, act)), [ChannelState.FLUSHING])

    def test_from_responding(self) -> None:
        kept = self.responding()
        self.request.finish()
        self.assertStates(kept, "IDLE")
        early = self.responding(post(b"he", b"wait", length=5))
        self.request.finish()
        self.assertStates(early, "LINGERING")
        last = self.responding(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"wait")
        self.assertEqual(self.flushed(last.channel, self.request.finish), [ChannelState.FLUSHING])
        aborted = self.responding()
        self.request.write(b"half")
        self.assertEqual(self.flushed(aborted.channel, self.request.abort), [ChannelState.FLUSHING])

    def test_from_lingering(self) -> None:
        client = self.lingering()
        self.assertEqual(self.flushed(client.channel, client.stop_sending), [ChannelState.FLUSHING])
        channel = self.lingering().channel
        self.assertEqual(self.flushed(channel, channel.drain), [ChannelState.FLUSHING])

    def test_to_closed_from_all(self) -> None:
        for make in (self.reading, self.idle, self.responding, self.lingering):
            client = make()
            client.reset()
            self.assertStates(client, "CLOSED")
        client = self.lingering()
        self.clock.advance(11)
        client.link.pump()
        self.assertStates(client, "CLOSED")
