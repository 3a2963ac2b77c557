"""Bodies: byte for byte, in the turn in which they come, and at the pace of whoever reads."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.proxy_case import CHAT, KEY, PROVIDER, STREAM, TOKEN, ProxyTestCase, chunk, request
from tests.support.responses import parse_response

MEGABYTES = 2 * 1024 * 1024
BOUND = 400 * 1024  # bytes of one body that the proxy may hold at a time, whoever waits for whom


class Plain(ProxyTestCase):
    def test_there_and_back(self) -> None:
        """Odd JSON arrives as it was sent, and so does the answer."""
        body = b'{"model":"gpt-4o","model":"b", "n": 9007199254740993,\r\n\t"x":"\xff\x00"}'
        client = self.ask("Content-Type: application/json", body=body)
        first, lines, sent = self.forwarded_request()
        self.assertEqual((first, sent), (f"POST {CHAT} HTTP/1.1", body))
        self.assertEqual(
            lines,
            [
                "Host: 203.0.113.5:8000",
                "Content-Type: application/json",
                f"Authorization: Bearer {KEY}",
                f"Content-Length: {len(body)}",
            ],
        )
        answer = b'{"a":1,"a":2}\xfe\r\n'
        self.provider.last.send(b"HTTP/1.1 200 Fine\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        got = parse_response(client.take())
        self.assertEqual((got.status, got.phrase, got.body, got.complete), (200, "Fine", answer, True))
        self.assert_recorded("complete", 200)
        record = self.record()
        self.assertEqual((record.bytes_in, record.bytes_out, record.stream), (len(body), len(answer), False))
        self.assertEqual((record.project_id, record.token_id), ("project-1", "token-1"))
        self.assertEqual((record.api, record.endpoint, record.model), ("openai", CHAT, "b"))
        self.assertEqual(self.tokens.counted, [TOKEN])

    def test_chunks_that_come_while_something_is_waited_for(self) -> None:
        """They leave as chunks, though all of them are there when the request is sent: its head has said so."""
        body = b"POST /v1/models/x HTTP/1.1\r\nHost: other\r\n\r\n"
        head = f"POST {CHAT} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        for what in ("a connection", "a key", "a token", "nothing"):
            with self.subTest(what):
                self.restart()
                key, keys, grant = Deferred[Any](), dict(self.projects.keys), self.tokens.grants[TOKEN]
                if what == "a connection":
                    self.network.servers[PROVIDER] = None
                elif what == "a key":
                    self.projects.keys["project-1"] = key
                elif what == "a token":
                    _, key = self.delayed_grant()
                client = self.client()
                client.send(head.encode() + b"2b\r\n" + body[:20])
                client.send(body[20:] + b"\r\n0\r\n\r\n")
                self.network.servers[PROVIDER], self.projects.keys = self.provider, keys
                if what == "a key":
                    key.callback(KEY)
                elif what == "a token":
                    key.callback(grant)
                    self.tokens.grants[TOKEN] = grant
                self.network.pass_time(1.0)
                sent = parse_response(b"HTTP/1.1 200 OK\r\n" + self.provider.last.take().partition(b"\r\n")[2])
                self.assertEqual((sent.body, sent.complete, sent.rest), (body, True, b""))
                self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                self.assertEqual(parse_response(client.take()).body, b"ok")

    def test_one_connection_serves_many(self) -> None:
        """Both the client's and the provider's connection are used again."""
        client = self.client()
        for _ in range(3):
            client.send(request())
            self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.assertEqual(parse_response(client.take()).body, b"ok")
        self.assertEqual((len(self.provider.peers), client.end), (1, ""))
        self.assertEqual(len(self.events.records), 3)

    def test_requests_in_one_packet(self) -> None:
        """Are answered one after the other, in order."""
        client = self.client()
        client.send(request(path="/v1/models/a") + request(path="/none") + request(path="/v1/models/b"))
        for name in ("a", "b"):
            self.assertTrue(self.forwarded_request()[0].startswith(f"POST /v1/models/{name} "))
            self.provider.last.send(b"HTTP/1.1 200 OK\r\nX-Name: %b\r\nContent-Length: 0\r\n\r\n" % name.encode())
        first = parse_response(client.take())
        second = parse_response(first.rest)
        third = parse_response(second.rest)
        self.assertEqual((first["X-Name"], second.status, third["X-Name"]), ("a", 403, "b"))

    def test_what_is_left_of_a_request(self) -> None:
        """Nothing but what keeps two connections, and the watch over silence, for the next: no timer of its own."""
        client = self.client()
        timers = []
        for _ in range(3):
            client.send(request())
            self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self.network.advance(0)
            timers.append(len(self.network.getDelayedCalls()))
        self.assertEqual(timers, [3, 3, 3])

    def test_requests_without_a_body(self) -> None:
        """Have none at the provider either."""
        self.ask(method="GET", path="/v1/models", body=None)
        first, lines, body = self.forwarded_request()
        self.assertEqual((first, body), ("GET /v1/models HTTP/1.1", b""))
        self.assertFalse([line for line in lines if line.lower().startswith(("content-length", "transfer-"))])

    def test_answers_without_a_body(self) -> None:
        for answer in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"):
            got = self.exchange(answer=answer)
            self.assertEqual((got.complete, got.body, got.all("Content-Length")), (True, b"", []))

    def test_an_answer_that_ends_with_its_connection(self) -> None:
        client = self.ask()
        self.provider.last.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        self.provider.last.close()
        got = parse_response(client.take())
        self.assertEqual((got.body, got.complete), (b"all of it", True))
        self.assert_recorded("complete", 200)

    def test_a_question_for_the_head_alone(self) -> None:
        """Is told the length of the body that it does not get."""
        self.restart(allowed_methods=["HEAD", "GET"])
        client = self.ask(method="HEAD", path="/v1/models", body=None)
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
        head, end, rest = client.take().partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Length: 1234", head)
        self.assertEqual((end, rest, self.provider.last.end), (b"\r\n\r\n", b"", ""))
        self.assert_recorded("complete", 200)

    def test_an_empty_answer(self) -> None:
        got = self.exchange(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((got["Content-Length"], got.complete), ("0", True))


class Streams(ProxyTestCase):
    def test_piece_by_piece(self) -> None:
        """Every piece is there before time moves at all, whatever it holds."""
        client = self.ask(body=b'{"stream": true, "model": "m"}')
        provider = self.provider.last
        provider.send(STREAM)
        got = parse_response(client.take())
        self.assertEqual((got.status, got["Content-Type"], got["X-Accel-Buffering"]), (200, "text/event-stream", "no"))
        for piece in (b"data: 1\n\n", b": comment\r\n\r\n", b"dat", b"a: \xff\n", b"event: odd\nid\n\n"):
            provider.send(chunk(piece))
            self.assertEqual(client.take(), chunk(piece))
        provider.send(b"0\r\n\r\n")
        self.assertEqual(client.take(), b"0\r\n\r\n")
        self.assertEqual(self.network.seconds(), 0)
        self.assert_recorded("complete", 200)
        self.assertEqual((self.record().stream, self.record().model), (True, "m"))

    def test_the_very_call_that_brings_a_piece_takes_it_on(self) -> None:
        """Nothing else has to happen in between."""
        client = self.ask()
        self.provider.last.send(STREAM)
        client.take()
        away = client.transport.other
        self.provider.last.transport.other.protocol.dataReceived(chunk(b"data: 1\n\n"))
        self.assertEqual(away.unsent, chunk(b"data: 1\n\n"))

    def test_a_client_of_http_1_0(self) -> None:
        """Gets a stream that ends with the connection."""
        client = self.client()
        client.send(request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        self.provider.last.send(STREAM + chunk(b"a") + chunk(b"b") + b"0\r\n\r\n")
        self.assertTrue(client.take().endswith(b"\r\n\r\nab"))
        self.assertEqual(client.end, "closed")

    def test_which_answers_count_as_streams(self) -> None:
        """By the answer's type, the body or C{Accept}; an error never does for the question's sake."""
        plain = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        error = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n"
        for stream, answer, body, lines in [
            (True, plain, b'{"stream":true}', []),
            (True, plain, b"{}", ["Accept: text/event-stream"]),
            (True, events, b"{}", []),
            (False, plain, b'{"stream":false}', []),
            (False, error, b'{"stream":true}', []),
        ]:
            got = self.exchange(*lines, body=body, answer=answer)
            self.assertEqual((self.events.records[-1].stream, bool(got.all("X-Accel-Buffering"))), (stream, stream))


class Backpressure(ProxyTestCase):
    """Bodies of some megabytes against buffers of some kilobytes."""

    def setUp(self) -> None:
        super().setUp()
        self.body = random.Random(1).randbytes(MEGABYTES)

    def test_a_reader_that_pauses(self) -> None:
        """Stops the provider; the proxy holds little of the answer, and all of it arrives in the end."""
        client = self.ask()
        provider = self.provider.last
        client.pause()
        provider.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MEGABYTES + self.body)
        self.assertGreater(provider.unsent, MEGABYTES - BOUND)
        client.resume()
        got = parse_response(client.take())
        self.assertEqual((got.body == self.body, got.complete), (True, True))
        self.assert_recorded("complete", 200)

    def test_a_reader_that_pauses_now_and_then(self) -> None:
        """Is never ahead of the provider by more than the bound, in a stream too."""
        client = self.ask()
        provider = self.provider.last
        provider.send(STREAM)
        client.take()
        client.pause()
        for at in range(0, MEGABYTES, 1024):
            provider.transport.write(chunk(self.body[at : at + 1024]))
        before = provider.unsent
        for _ in range(8):
            self.network.flow()
            client.transport.reading = True
            client.transport.step()
            client.pause()
        taken = before - provider.unsent - len(client.received)
        self.assertLess(taken, BOUND)
        provider.transport.write(b"0\r\n\r\n")
        client.resume()
        got = parse_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + client.take())
        self.assertEqual((got.body == self.body, got.complete), (True, True))

    def test_a_provider_that_does_not_read(self) -> None:
        """Stops the client that uploads, with a length and in chunks."""
        whole = b"%x\r\n%b\r\n0\r\n\r\n" % (MEGABYTES, self.body)
        for head, upload in [
            (b"Content-Length: %d" % MEGABYTES, self.body),
            (b"Transfer-Encoding: chunked", whole),
        ]:
            client = self.client()
            client.send(request(body=None)[:-2] + head + b"\r\n\r\n")
            provider = self.provider.last
            provider.pause()
            client.send(upload)
            self.assertGreater(client.unsent, MEGABYTES - BOUND)
            provider.resume()
            self.assertEqual(client.unsent, 0)
            sent = parse_response(b"HTTP/1.1 200 OK\r\n" + provider.take().partition(b"\r\n")[2])
            self.assertEqual((sent.body == self.body, sent.complete), (True, True))
            provider.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            provider.close()

    def test_an_upload_that_nobody_takes_yet(self) -> None:
        """While the token is being looked up, the client is held as well."""
        grant, waiting = self.delayed_grant()
        client = self.client()
        client.send(request(body=None)[:-2] + b"Content-Length: %d\r\n\r\n" % MEGABYTES + self.body)
        self.assertGreater(client.unsent, MEGABYTES - BOUND)
        self.tokens.grants[TOKEN] = grant
        waiting.callback(grant)
        self.network.flow()
        self.assertEqual((client.unsent, self.forwarded_request()[2] == self.body), (0, True))
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def test_the_first_half_of_an_upload(self) -> None:
        """Is at the provider before the second is sent."""
        client = self.client()
        client.send(request(body=None)[:-2] + b"Content-Length: 10\r\n\r\nfirst")
        self.assertTrue(self.provider.last.take().endswith(b"\r\n\r\nfirst"))
        client.send(b"later")
        self.assertEqual(self.provider.last.take(), b"later")
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(parse_response(client.take()).complete)

    def test_a_client_that_asks_first(self) -> None:
        """Is told to go on when somebody takes the body, and the provider is not asked in turn."""
        grant, waiting = self.delayed_grant()
        client = self.client()
        client.send(request("Expect: 100-continue", body=None)[:-2] + b"Content-Length: 4\r\n\r\n")
        self.assertEqual(client.take(), b"")
        self.tokens.grants[TOKEN] = grant
        waiting.callback(grant)
        self.network.flow()
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"body")
        _, lines, body = self.forwarded_request()
        self.assertEqual((body, [line for line in lines if line.startswith("Expect")]), (b"body", []))
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(parse_response(client.take()).status, 200)

    def test_an_answer_before_the_upload_is_over(self) -> None:
        """Reaches the client whole; then its connection ends, and so does the provider's."""
        client = self.client()
        client.send(request(body=None)[:-2] + b"Content-Length: 10\r\n\r\nfirst")
        self.provider.last.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
        got = parse_response(client.take())
        self.assertEqual((got.status, got.body, got["Connection"]), (400, b"no", "close"))
        self.assert_recorded("complete", 400)
