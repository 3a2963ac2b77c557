"""The body of a response that no client waits for, as the cache refreshes something in the background."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IPushProducer, IReactorTime

from llmproxy.caching import Subscriber
from llmproxy.http import body_hints
from llmproxy.proxy.context import RequestContext
from llmproxy.wire.relay import Relay


class NoDownstream:
    """The client's side of a relay where there is no client (L{Downstream<llmproxy.wire.relay.Downstream>})."""

    gone = stalled = False
    paced = True

    def begin(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, hold: bool) -> None: ...
    def respond(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, body: bytes) -> None: ...
    def flush(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self, last: bytes = b"") -> None: ...
    def abort(self) -> None: ...
    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...


async def discard(context: RequestContext, response: Subscriber, clock: IReactorTime) -> str:
    """Take it to its end, for no longer than a client would be let wait for it; how that ended, as L{Relay} says.

    Cancelled, it stops whoever sends it.
    """
    assert context.route is not None
    timeouts = context.route.api.timeouts
    stream = body_hints.is_stream_response(response.lines) or context.expects_stream
    total = timeouts.stream if stream else timeouts.request
    relay = Relay(
        NoDownstream(),
        clock,
        idle=timeouts.idle if stream else 0.0,
        deadline=context.arrived_at + total if total else None,
    )
    relay.carry(response, ())
    return relay.outcome or await relay.done
