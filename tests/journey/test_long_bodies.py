"""Bodies that take time to be read wait for their client's turn; nobody else waits for all of them."""

from __future__ import annotations

import json

from llmproxy.model import Allowance, Grant
from tests.journey.test_fast_path_changes import OK, DirectCase
from tests.support.network import Peer
from tests.support.proxy_case import TOKEN, request
from tests.support.responses import parse_response

TURN = json.dumps({"role": "user", "content": "Some words of a conversation. " * 20})
LONG = b'{"messages":[%b],"max_tokens":9,"model":"gpt-4o"}' % b",".join([TURN.encode()] * 1500)
SHORT = b'{"model":"gpt-4o","messages":[%b]}' % b",".join([TURN.encode()] * 50)  # which may come in one read


class WaitingForTurns(DirectCase):
    """While somebody else's body is read."""

    grant = Grant(
        "project-1", token_id="token-1", project_active=True, allowance=Allowance(tokens_per_minute=1_000_000_000)
    )
    busy = True

    def warm(self) -> None:
        super().warm()
        self.proxy._parts.accounting.reading_turns.begin("another", self.read)

    def tearDown(self) -> None:
        self.busy = False
        super().tearDown()

    def read(self, until: float) -> bool:
        """That body takes more than a turn."""
        self.network.rightNow = until + 1
        return self.busy

    def send(self, body: bytes, reads: int) -> Peer:
        client, sent = self.client(), request(body=body)
        at = len(sent) // reads + 1
        for begin in range(0, len(sent), at):
            client.send(sent[begin : begin + at])
        return client

    def test_they_wait(self) -> None:
        """In one read or in several; who leaves meanwhile was no use of anything."""
        clients = [self.send(SHORT, reads) for reads in (1, 2, 3)]
        clients[1].reset()
        self.assertEqual(self.provider.last.take(), b"")
        self.assertEqual([record.outcome for record in self.events.records[4:]], ["cancelled"])
        self.busy = False
        self.network.pass_time(0.01)
        for peer in self.provider.peers:
            if peer.take():
                peer.send(OK)
        self.assertEqual([parse_response(clients[number].take()).status for number in (0, 2)], [200, 200])
        self.assert_direct(2)
        self.assertEqual([record.outcome for record in self.events.records[5:]], ["complete", "complete"])
        self.assertEqual(self.tokens.counted.count(TOKEN), len(self.tokens.counted))


class WithoutFastPath(WaitingForTurns):
    """The same of a proxy that takes the whole way for each."""

    server = {"fast_path": False}  # noqa: RUF012

    def assert_direct(self, expected: int) -> None:
        self.assertIsNone(self.proxy._parts.fast_path)


class LongConversations(DirectCase):
    """Bodies of a megabyte.

    @ivar held: Times its length that may be held of one of which half has come, and that is not waited for.
    """

    held = 0.6

    def send(self, body: bytes, *, all_of_it: bool = True) -> Peer:
        client, sent = self.client(), request(body=body)
        for begin in range(0, len(sent) if all_of_it else len(sent) // 2, 60_000):
            client.send(sent[begin : begin + 60_000])
        return client

    def served(self, body: bytes) -> None:
        """Sent on as it came, and recorded by its own members."""
        client = self.send(body)
        self.network.pass_time(0)
        self.assertTrue(self.provider.last.take().endswith(b"\r\n\r\n" + body))
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)
        self.assertEqual((self.events.records[-1].model, self.events.records[-1].outcome), ("gpt-4o", "complete"))

    def test_they_are_served_directly(self) -> None:
        self.served(LONG)
        self.assert_direct(1)
        self.assertEqual(self.buffers.held, 0)

    def test_what_is_waited_for_is_counted(self) -> None:
        """All of it, from its head on; and nothing any more when it does not come or its client has left."""
        for leaves in (True, False):
            client = self.send(LONG, all_of_it=False)
            self.assertGreaterEqual(self.buffers.held, len(LONG))
            if leaves:
                client.reset()
            else:
                self.network.pass_time(0.2)
                self.network.pass_time(0.2)
            self.assertLess(self.buffers.held, self.held * len(LONG))

    def test_where_memory_is_tight(self) -> None:
        """It is not waited for, but sent on as it comes."""
        self.buffers.limit = len(LONG)
        self.buffers.hold(len(LONG) // 2)
        self.send(LONG, all_of_it=False)
        self.assertGreater(len(self.provider.last.take()), 100_000)
        self.buffers.hold(-(len(LONG) // 2))


class LimitedConversations(LongConversations):
    """The same where tokens are counted, so that all of a body is read and measured before it is sent."""

    grant = WaitingForTurns.grant
    held = 1.6  # read whole by the ordinary way, and kept beside for its reader

    def test_where_memory_is_tight(self) -> None:
        """It is rejected where it does not fit."""
        self.buffers.limit = len(LONG)
        self.buffers.hold(len(LONG) // 2)
        self.assertEqual(parse_response(self.send(LONG).take()).status, 503)
        self.buffers.hold(-(len(LONG) // 2))
