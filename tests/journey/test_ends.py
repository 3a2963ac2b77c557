"""The provider breaks off, is silent, cannot be reached, or is too slow: the client is told, or can tell."""

from __future__ import annotations

from twisted.python.failure import Failure

from tests.support.proxy_case import PROVIDER, STREAM, TOKEN, ProxyTestCase, chunk, request
from tests.support.responses import parse_response

TIMEOUTS = {"connect": 7.0, "response_header": 11.0, "idle": 13.0, "request": 40.0}
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


class BrokenOff(ProxyTestCase):
    def test_in_the_middle(self) -> None:
        """The client's answer has no end either, however the provider broke off and however the body was framed."""
        for answer in (STREAM + chunk(b"half"), STREAM + b"ff\r\nhalf", LENGTH + b"half"):
            for how in ("close", "reset"):
                self.restart()
                client = self.ask()
                self.provider.last.send(answer)
                getattr(self.provider.last, how)()
                got = parse_response(client.take())
                self.assertEqual((got.status, got.body, got.complete), (200, b"half", False))
                self.assertTrue(client.end)
                self.assert_recorded("truncated", 200, "upstream_truncated")

    def test_where_only_a_reset_shows_it(self) -> None:
        """An answer to HTTP/1.0 ends with its connection, so that one is reset."""
        client = self.client()
        client.send(request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        self.provider.last.send(STREAM + chunk(b"half"))
        self.provider.last.close()
        self.assertEqual(client.end, "reset")
        self.assert_recorded("truncated", 200, "upstream_truncated")

    def test_a_malformed_chunk(self) -> None:
        client = self.ask()
        self.provider.last.send(STREAM + chunk(b"good"))
        self.provider.last.send(b"what?\r\n")
        got = parse_response(client.take())
        self.assertEqual((got.body, got.complete), (b"good", False))
        self.assertEqual((bool(client.end), self.provider.last.end), (True, "reset"))
        self.assert_recorded("truncated", 200, "upstream_truncated")

    def test_before_the_head_is_over(self) -> None:
        client = self.ask()
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-")
        self.provider.last.close()
        self.assert_rejected(parse_response(client.take()), 502, "upstream_protocol_error")

    def test_before_the_head_begins(self) -> None:
        client = self.ask()
        self.provider.last.reset()
        self.assert_rejected(parse_response(client.take()), 502, "upstream_unreachable")

    def test_no_http_at_all(self) -> None:
        client = self.ask()
        self.provider.last.send(b"SSH-2.0-OpenSSH_9.9\r\n")
        self.assert_rejected(parse_response(client.take()), 502, "upstream_protocol_error")
        self.assertEqual(self.provider.last.end, "reset")


class Silence(ProxyTestCase):
    api = {"timeouts": TIMEOUTS}  # noqa: RUF012

    def test_before_the_head(self) -> None:
        """504, at the very moment, and the provider's connection is torn down.

        Nobody asks again: neither this proxy nor an SDK, since each time would be billed.
        """
        for body, seconds in ((b'{"stream":true}', 11.0), (b"{}", 40.0)):
            with self.subTest(body=body):
                self.restart(timeouts=TIMEOUTS)
                dialled = self.network.dialled
                client = self.ask(body=body)
                self.network.pass_time(seconds - 0.1)
                self.assertEqual((client.take(), self.provider.last.end), (b"", ""))
                self.network.pass_time(0.1)
                got = parse_response(client.take())
                self.assert_rejected(got, 504, "upstream_timeout")
                self.assertEqual(got.all("X-Should-Retry"), ["false"])
                self.assertEqual((self.provider.last.end, self.record().duration), ("reset", seconds))
                self.assertEqual(self.network.dialled, dialled + 1)

    def test_a_provider_that_says_504(self) -> None:
        """Is believed, however often it may be tried to connect."""
        self.restart(timeouts=TIMEOUTS, retries={"attempts": 3})
        got = self.exchange(answer=b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((got.status, self.network.dialled, self.tokens.counted), (504, 1, [TOKEN]))

    def test_a_slow_upload_is_no_silence(self) -> None:
        """The wait for the head begins anew as long as the body goes on, within the limits for the whole."""
        client = self.client()
        client.send(request("Accept: text/event-stream", body=None)[:-2] + b"Content-Length: 4\r\n\r\n")
        for piece in (b"a", b"b", b"c"):
            self.network.pass_time(8)
            client.send(piece)
        self.assertEqual(client.take(), b"")
        client.send(b"d")
        self.network.pass_time(2)  # the next look finds that it went on
        self.network.pass_time(10.9)
        self.assertEqual(client.take(), b"")
        self.network.pass_time(0.1)
        self.assertEqual(parse_response(client.take()).status, 504)

    def test_in_the_middle(self) -> None:
        """A cut after so long without a byte, not before; every byte counts."""
        client = self.ask()
        self.provider.last.send(STREAM)
        for _ in range(4):  # longer in all than any limit but the one for silence
            self.network.pass_time(12.9)
            self.provider.last.send(chunk(b"."))
        self.network.pass_time(12.9)
        self.assertEqual(client.end, "")
        self.network.pass_time(0.2)
        got = parse_response(client.take())
        self.assertEqual((got.body, got.complete, bool(client.end)), (b"....", False, True))
        self.assertEqual(self.provider.last.end, "reset")
        self.assert_recorded("truncated", 200, "upstream_timeout")

    def test_a_client_that_does_not_read_is_no_silence(self) -> None:
        client = self.ask()
        client.pause()
        self.provider.last.send(STREAM + chunk(b"x" * 500_000) + b"0\r\n\r\n")
        self.network.pass_time(59)
        client.resume()
        self.assertTrue(parse_response(client.take()).complete)
        self.assert_recorded("complete", 200)

    def test_a_client_that_never_reads(self) -> None:
        """Is cut after C{server.send_timeout}, and the provider with it."""
        client = self.ask()
        client.pause()
        self.provider.last.send(STREAM + chunk(b"x" * 500_000) + b"0\r\n\r\n")
        self.network.pass_time(59.9)
        self.assertEqual((client.end, self.provider.last.end), ("", ""))
        self.network.pass_time(0.2)
        self.assertEqual((client.end, self.provider.last.end), ("reset", "reset"))
        self.assert_recorded("cancelled", 200, "client_stalled")

    def test_a_client_that_reads_a_little_now_and_then(self) -> None:
        """Is cut as well where that is less than C{server.min_send_rate}, and not where it is enough."""
        for rate, cut in ((500, True), (1500, False)):
            with self.subTest(rate=rate):
                self.restart(timeouts=TIMEOUTS)
                client = self.ask()
                client.pause()
                self.provider.last.send(STREAM + chunk(b"x" * 900_000))
                for _ in range(26):
                    self.network.pass_time(5)
                    client.sip(rate * 5)
                self.assertEqual(bool(client.end), cut)
                if not cut:
                    client.close()

    def test_a_provider_that_sends_a_little_now_and_then(self) -> None:
        """Is not the client's fault, be it ever so little."""
        self.restart(timeouts={**TIMEOUTS, "stream": 0.0, "idle": 600.0})
        client = self.ask()
        self.provider.last.send(STREAM)
        for _ in range(10):
            self.network.pass_time(300)
            self.provider.last.send(chunk(b"."))
        self.provider.last.send(b"0\r\n\r\n")
        self.assertEqual(parse_response(client.take()).body, b"." * 10)
        self.assert_recorded("complete", 200)


class TooLong(ProxyTestCase):
    api = {"timeouts": {**TIMEOUTS, "response_header": 100.0, "idle": 100.0}}  # noqa: RUF012

    def test_a_plain_answer_that_is_under_way(self) -> None:
        """Is cut when its time is up."""
        client = self.ask()
        self.network.pass_time(30)
        self.provider.last.send(LENGTH + b"half")
        self.network.pass_time(9.9)
        self.assertEqual(client.end, "")
        self.network.pass_time(0.1)
        self.assertEqual((parse_response(client.take()).complete, bool(client.end)), (False, True))
        self.assert_recorded("truncated", 200, "upstream_timeout")

    def test_a_plain_answer_that_has_not_begun(self) -> None:
        """504 when its time is up, even if the wait for a head may be longer."""
        client = self.ask()
        self.network.pass_time(40)
        self.assert_rejected(parse_response(client.take()), 504, "upstream_timeout")

    def test_a_stream(self) -> None:
        """Has no such limit."""
        client = self.ask(body=b'{"stream":true}')
        self.network.pass_time(30)
        self.provider.last.send(STREAM)
        self.network.pass_time(90)
        self.provider.last.send(b"0\r\n\r\n")
        self.assertTrue(parse_response(client.take()).complete)
        self.assert_recorded("complete", 200)

    def test_a_stream_that_is_given_one(self) -> None:
        self.restart(timeouts={**TIMEOUTS, "stream": 20.0, "idle": 100.0})
        client = self.ask()
        self.provider.last.send(STREAM + chunk(b"a"))
        self.network.pass_time(20)
        self.assertEqual(parse_response(client.take()).complete, False)
        self.assert_recorded("truncated", 200, "upstream_timeout")


class Patience(ProxyTestCase):
    """Without settings: as patient as the providers' SDKs (openai and anthropic wait for 600 s)."""

    def test_an_answer_in_one_piece(self) -> None:
        """Has no head until it is done, and ten minutes for that, and for what is still to come of it."""
        client = self.ask()
        self.network.pass_time(599)
        self.provider.last.send(LENGTH + b"half")
        self.assertEqual(client.end, "")
        self.provider.last.send(b"the rest"[:6])
        self.assertTrue(parse_response(client.take()).complete)
        self.assert_recorded("complete", 200)

    def test_an_answer_whose_head_came_at_once(self) -> None:
        """May be silent for as long: it is no stream."""
        client = self.ask()
        self.provider.last.send(LENGTH)
        self.network.pass_time(599)
        self.assertEqual(client.end, "")
        self.provider.last.send(b"0123456789")
        self.assertTrue(parse_response(client.take()).complete)

    def test_an_answer_that_never_comes(self) -> None:
        client = self.ask()
        self.network.pass_time(600)
        self.assert_rejected(parse_response(client.take()), 504, "upstream_timeout")

    def test_a_stream(self) -> None:
        """Is waited for 300 s, then 120 s each time, and never comes to an end by that."""
        client = self.ask(body=b'{"stream":true}')
        self.network.pass_time(299)
        self.provider.last.send(STREAM)
        for _ in range(10):
            self.network.pass_time(119)
            self.provider.last.send(chunk(b": ping\n\n"))
        self.assertEqual(client.end, "")
        self.network.pass_time(121)
        self.assertTrue(client.end)
        self.assert_recorded("truncated", 200, "upstream_timeout")

    def test_a_stream_that_does_not_begin(self) -> None:
        client = self.ask(body=b'{"stream":true}')
        self.network.pass_time(300)
        self.assert_rejected(parse_response(client.take()), 504, "upstream_timeout")


class Unreachable(ProxyTestCase):
    api = {"timeouts": TIMEOUTS}  # noqa: RUF012

    def test_refused(self) -> None:
        del self.network.servers[PROVIDER]
        self.assert_rejected(parse_response(self.ask().take()), 502, "upstream_unreachable")

    def test_no_connection_comes_about(self) -> None:
        self.network.servers[PROVIDER] = None
        client = self.ask()
        self.network.pass_time(6.9)
        self.assertEqual(client.take(), b"")
        self.network.pass_time(0.1)
        self.assert_rejected(parse_response(client.take()), 504, "upstream_timeout")

    def test_what_the_client_learns(self) -> None:
        """Nothing of where the provider is."""
        del self.network.servers[PROVIDER]
        answer = self.ask().take()
        self.assertNotIn(PROVIDER[0].encode(), answer)
        self.assertNotIn(Failure.__name__.encode(), answer)


class Flushing(ProxyTestCase):
    api = {"timeouts": {"flush_interval": 0.05}}  # noqa: RUF012

    def test_an_interval(self) -> None:
        """Pieces that come within it leave together, none is held for longer."""
        client = self.ask()
        self.provider.last.send(STREAM)
        client.take()
        for piece in (b"a", b"b"):
            self.provider.last.send(chunk(piece))
        self.assertEqual(client.take(), b"")
        self.network.pass_time(0.05)
        self.assertEqual(client.take(), chunk(b"ab"))
        self.provider.last.send(chunk(b"c") + b"0\r\n\r\n")
        self.assertEqual(client.take(), chunk(b"c") + b"0\r\n\r\n")
