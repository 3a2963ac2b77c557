"""Where requests of a flow go next: to an upstream, with a key of the project; of several, one is chosen for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmproxy.config.api_settings import Api
from llmproxy.proxy.fast_path.outgoing_head import OutgoingHead
from llmproxy.upstream.balancing import choose_place
from llmproxy.upstream.circuits import Attempt
from llmproxy.upstream.key_states import KeyState
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.upstreams import Upstream
from llmproxy.wire.client.pool import Pool


@dataclass(slots=True, eq=False)
class NextHop:
    """One upstream with one key.

    @ivar state: What is known of the key there.
    @ivar outgoing: A request's head, as it is sent there; C{uncoded}: likewise, of one whose usage is asked for in its
        client's place, where that may be.
    @ivar attempt: That with which requests begin, as long as both breakers are as they were then; C{None}: none has
        begun yet.
    """

    upstream: Upstream
    key: ProviderKey
    state: KeyState
    outgoing: OutgoingHead
    uncoded: OutgoingHead | None
    pool: Pool
    attempt: Attempt | None = None

    def begin(self, project_id: str) -> Attempt | None:
        """That with which a request begins which can be sent at once; C{None} where it would have to wait, or to try a
        breaker."""
        if not self.pool.sends_at_once():
            return None
        attempt = self.attempt
        if (
            attempt is None
            or attempt.ticket != attempt.project.ticket
            or attempt.shared_ticket != attempt.shared.ticket
        ):
            attempt = self.attempt = self.upstream.circuits.enter_closed(project_id)
        return attempt

    def enter(self) -> None:
        """A request is sent there. L{leave} must follow."""
        self.upstream.in_flight += 1
        self.state.in_flight += 1

    def leave(self) -> None:
        """It is under way no more."""
        self.upstream.in_flight -= 1
        self.state.in_flight -= 1

    def accept_key(self, now: float) -> None:
        """The provider has taken the key, by the clock's time."""
        if self.state.status:
            self.state.responded(200, None, 0.0, now)

    def end(self, now: float) -> None:
        """Likewise, and all of the response is there."""
        self.leave()
        self.accept_key(now)


def choose(hops: Sequence[NextHop], api: Api, project_id: str, hint: bytes, now: float) -> NextHop | None:
    """One of several to which a request can be sent at once, and whose turn is taken; C{None} where the one whose turn
    it is cannot, or none may be."""
    ready = [
        hop
        for hop in hops
        if hop.upstream.state == "enabled" and hop.state.ready(now) and hop.upstream.circuits.ready(project_id, now)
    ]
    if not ready:
        return None
    turns = [(each, each.turn) for hop in ready for each in (hop.upstream, hop.state)]
    chosen = choose_place(api.balance, ready, hint)
    if chosen.begin(project_id) is not None:
        return chosen
    for each, turn in turns:  # whoever sends it instead takes it
        each.turn = turn
    return None
