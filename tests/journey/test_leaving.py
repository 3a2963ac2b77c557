"""The client leaves: whatever works for it stops in the same turn."""

from __future__ import annotations

from typing import Any

from tests.support.network import Peer
from tests.support.proxy_case import PROVIDER, STREAM, TOKEN, ProxyTestCase, chunk, request

CHUNKED = "Transfer-Encoding: chunked"


class Leaving(ProxyTestCase):
    """Each test leaves in both ways: a reset, and an end in good order, which is what most clients do."""

    def each(self) -> Any:
        for leave in (Peer.reset, Peer.close):
            self.restart()
            self.provider.peers.clear()
            yield leave
            self.assertEqual(self.network.seconds(), 0)
            self.assertEqual(self.proxy.metrics().in_flight, 0)

    def assert_cancelled(self, status: int) -> None:
        self.assert_recorded("cancelled", status)

    def test_while_its_token_is_looked_up(self) -> None:
        """The provider is never bothered."""
        for leave in self.each():
            grant, waiting = self.delayed_grant()
            leave(self.ask())
            self.assert_cancelled(499)
            self.assertTrue(waiting.called)
            self.tokens.grants[TOKEN] = grant
            self.assertEqual((self.provider.peers, self.tokens.counted), ([], []))

    def test_while_it_is_being_connected(self) -> None:
        for leave in self.each():
            self.network.servers[PROVIDER] = None
            leave(self.ask())
            self.network.servers[PROVIDER] = self.provider
            self.network.flow()
            self.assert_cancelled(499)
            self.assertEqual(self.provider.peers, [])

    def test_while_it_uploads(self) -> None:
        for leave in self.each():
            client = self.client()
            client.send(request(body=None)[:-2] + b"Content-Length: 10\r\n\r\nfirst")
            leave(client)
            self.assertEqual(self.provider.last.end, "reset")
            self.assert_cancelled(499)

    def test_while_its_upload_is_held_back(self) -> None:
        """It cannot be read from then; the kernel is asked every tenth of a second."""
        for leave in (Peer.reset, Peer.close):
            client = self.client()
            self.network.flow()
            client.send(request(body=None)[:-2] + b"Content-Length: 1000000\r\n\r\n")
            self.provider.last.pause()
            client.send(b"x" * 200_000)
            client.transport.unsent.clear()
            leave(client)
            self.network.pass_time(0.1)
            self.assertEqual(self.events.records[-1].outcome, "cancelled")
            self.provider.last.resume()
            self.assertEqual(self.provider.last.end, "reset")

    def test_while_it_waits_for_an_answer(self) -> None:
        for leave in self.each():
            leave(self.ask())
            self.assertEqual(self.provider.last.end, "reset")
            self.assert_cancelled(499)

    def test_in_the_middle_of_a_stream(self) -> None:
        for leave in self.each():
            client = self.ask()
            self.provider.last.send(STREAM + chunk(b"data: 1\n\n"))
            leave(client)
            self.assertEqual(self.provider.last.end, "reset")
            self.assert_cancelled(200)
            self.assertEqual(self.record().bytes_out, len(b"data: 1\n\n"))

    def test_in_the_middle_of_a_plain_answer(self) -> None:
        """The first byte that the provider sends for it is the last."""
        client = self.ask()
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        client.reset()
        self.assertEqual(self.provider.last.end, "reset")
        self.assert_cancelled(200)

    def test_while_it_does_not_read(self) -> None:
        """The provider is paused then; it is stopped all the same."""
        client = self.ask()
        client.pause()
        self.provider.last.send(STREAM + chunk(b"x" * 1_000_000))
        self.assertGreater(self.provider.last.unsent, 0)
        client.reset()
        self.assertEqual(self.provider.last.end, "reset")
        self.assert_cancelled(200)

    def test_after_its_answer(self) -> None:
        """The provider's connection is kept for the next."""
        client = self.ask()
        self.provider.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        client.reset()
        self.assertEqual(self.provider.last.end, "")
        self.assert_recorded("complete", 200)
