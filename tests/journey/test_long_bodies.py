"""Bodies that take time to be read wait for their client's turn; nobody else waits for all of them."""

from __future__ import annotations

import json

from llmproxy.model import Allowance, Grant
from tests.journey.test_fast_path_changes import OK, DirectCase
from tests.support.network import Peer
from tests.support.proxy_case import TOKEN, request
from tests.support.responses import parse_response

TURN = json.dumps({"role": "user", "content": "Some words of a conversation. " * 20})
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
