"""Flows: what the pipeline decided on a head, kept for the next request with that head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmproxy.auth.authenticator import Session
from llmproxy.base.memo import BoundedMemo
from llmproxy.brief_record import RecordKind
from llmproxy.caching import CacheRequest, RepeatableHit
from llmproxy.config.routes import Route
from llmproxy.http.field_lines import FieldLines
from llmproxy.limits.plan import LimitPlan
from llmproxy.metering.dialects.operation import ProviderOperation
from llmproxy.metering.meter import Dialect
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.fast_path.head_layouts import HeadLayouts
from llmproxy.proxy.fast_path.head_shape import HOLES, SAME_HOLES, HeadShape, HeadText, head_shape
from llmproxy.proxy.fast_path.next_hop import NextHop
from llmproxy.proxy.fast_path.prepared_flow import PreparedFlow
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.upstreams import UpstreamGroup
from llmproxy.wire.parser import RequestHead, connection_options

MAX_FLOWS = 10_000
MAX_FLOW_BYTES = 64 * 1024 * 1024  # that all of them may take
FLOW_BYTES, COPIES_OF_HEAD = 4096, 3  # of each, besides those in its hops
MAX_EXPECTED_BYTES = 8192  # of a head that is looked for first on its connection
MAX_SEEN = 50_000  # heads that were seen once, 140 bytes each
MAX_REPEATED = 4096  # requests that the cache has responded to


@dataclass(slots=True, eq=False)
class Sending:
    """How requests go to their provider: to one of these hops."""

    provider_keys: Sequence[ProviderKey]
    hops: tuple[NextHop, ...]
    group: UpstreamGroup


class CacheableHead(NamedTuple):
    """A head as the cache sees it, and which of its lines come out of the client's holes, as in L{OutgoingHead}."""

    request: CacheRequest
    filled: tuple[tuple[int, int], ...]

    def fill(self, holes: list[bytes]) -> CacheRequest:
        """The request with these lines in its holes."""
        if not self.filled:
            return self.request
        lines = FieldLines(self.request.lines, self.request.lines.names)
        for index, hole in self.filled:
            lines[index] = holes[hole]
        return self.request._replace(lines=lines)


@dataclass(slots=True, eq=False)
class Flow:
    """Decisions of the pipeline, as it left them in the context of the request that went all the way.

    @ivar session: Whose requests these are. Good as long as the validator knows its token by the very same grant.
    @ivar sending: How its requests go to their provider; C{None} where that is not known, and the pipeline sends those
        that the cache has no response to.
    @ivar cacheable: Its head as the cache sees it; C{None} where the cache has nothing to do with its requests.
    """

    session: Session
    route: Route
    dialect: Dialect | None
    operation: ProviderOperation
    limits: LimitPlan | None
    sending: Sending | None
    cacheable: CacheableHead | None

    def decide(self, context: RequestContext) -> None:
        """Put into the context of another request what was decided."""
        context.route, context.session, context.grant = self.route, self.session, self.session.grant
        context.dialect, context.operation, context.limits = self.dialect, self.operation, self.limits
        if self.sending is not None:
            context.provider_keys = keys = self.sending.provider_keys
            context.provider_key = keys[0]


class RepeatedRequest:
    """A request that the cache has responded to, for the next one that is the same to the last byte.

    @ivar known: Its head; C{filled}: as in L{KnownHead.lines}; C{body_bytes}: the size of its body.
    @ivar hit: What finds the response again.
    @ivar template: The response, as L{hit_template} has it.
    @ivar remote: Who has sent one last; C{kind}: what is recorded of those, C{None} where that is to be looked up.
    """

    __slots__ = ("body_bytes", "filled", "hit", "kind", "known", "model", "remote", "template")

    def __init__(
        self,
        known: KnownHead,
        filled: FilledHead | None,
        body_bytes: int,
        model: str,
        hit: RepeatableHit,
        template: bytes,
    ) -> None:
        self.known = known
        self.filled = filled
        self.body_bytes = body_bytes
        self.model = model
        self.hit = hit
        self.template = template
        self.remote = ""
        self.kind: RecordKind | None = None


class KnownHead:
    """A head that has been parsed, and the flow of those that differ only in their holes.

    @ivar key: What it is found by: all of it but what stands in its holes.
    @ivar size: Bytes that it takes, roughly: it is there several times, and once or twice for each hop.
    @ivar is_short: Whether a connection may keep it, whatever becomes of it.
    @ivar fields: Its field lines, as they were when it was parsed.
    @ivar text: All of it, by which the next on its connection is known; C{None} where the connection is not kept.
    @ivar varies_in_length_alone: Whether the length of the body is its only hole.
    @ivar current: Whether nothing that its flow was made from has changed.
    @ivar used: Whether it has been since it was last looked for one that others may take the place of.
    @ivar may_repeat: Whether the very same request is likely to come again; C{repeats}: whether the cache may have
        responded to it.
    @ivar prepared: Its flow, made ready for direct requests; C{None} as long as there was none.
    """

    __slots__ = (
        "_keep_alive",
        "_table",
        "current",
        "fields",
        "flow",
        "is_short",
        "key",
        "may_repeat",
        "method",
        "prepared",
        "repeats",
        "shape",
        "size",
        "target",
        "text",
        "used",
        "varies_in_length_alone",
    )

    def __init__(
        self, key: bytes, shape: HeadShape, request_line: bytes, fields: FieldLines, flow: Flow, table: FlowTable
    ) -> None:
        self._table = table
        self.key = key
        hops = () if flow.sending is None else flow.sending.hops
        outgoing = len(hops) + sum(hop.uncoded is not None for hop in hops)
        self.size = FLOW_BYTES + (COPIES_OF_HEAD + max(outgoing, 1)) * len(key)
        self.shape = shape
        self.flow = flow
        self.fields = fields
        self.current = True
        self.used = self.repeats = False
        self.prepared: PreparedFlow | None = None
        self.method, self.target, _ = request_line.split(b" ")
        self._keep_alive = b"close" not in connection_options(fields)
        self.is_short = len(key) <= MAX_EXPECTED_BYTES
        self.varies_in_length_alone = len(shape.holes) == 1
        self.may_repeat = self._keep_alive and all(name.lower() in SAME_HOLES for _, name in shape.holes)
        self.text = HeadText([request_line, *fields], shape) if self._keep_alive else None

    def grow(self, size: int) -> None:
        """So many bytes more are kept with it: others may have to make room."""
        self._table.grow(self, size)

    def lines(self, filled: FilledHead | None) -> FieldLines:
        """The field lines of such a head.

        @param filled: C{None} for one that differs in the length of its body alone; that is not told then.
        """
        return self.fields if filled is None else filled.lines

    def parsed(self, filled: FilledHead | None, length: int) -> RequestHead:
        """The head of a request with a body of this length; as L{lines}."""
        if filled is None:
            assert self.text is not None
            filled = FilledHead(self, self.text.lines([b"%d" % length]))
        return RequestHead(self.method, self.target, 1, filled.lines, length, self._keep_alive, False, filled)


class FilledHead:
    """A head that is known, with what stands in its holes.

    @ivar holes: The lines that do.
    """

    __slots__ = ("_lines", "holes", "known")

    def __init__(self, known: KnownHead, holes: list[bytes]) -> None:
        self.known = known
        self.holes = holes
        self._lines: FieldLines | None = None

    @property
    def lines(self) -> FieldLines:
        """Its field lines, put together when somebody asks."""
        lines = self._lines
        if lines is None:
            lines = self._lines = FieldLines(self.known.fields, self.known.fields.names)
            for (index, _), hole in zip(self.known.shape.holes, self.holes, strict=True):
                lines[index - 1] = hole
        return lines


class FlowTable:
    """Knows heads again, whoever sends them on whichever connection.

    The flow of a head that was seen once is not kept, so that ever new heads cost nothing but the look. Where there are
    too many, each new one takes the place of the oldest if that was not used lately (second chance), or none: whoever
    makes up heads takes no place of a busy one, and of more heads than there is room for as many are kept as there is.

    @ivar repeated: Requests that the cache has responded to, by all of their bytes, or by the digest of these
        (L{direct_hits}).
    """

    def __init__(self, max_flows: int = MAX_FLOWS, max_seen: int = MAX_SEEN, max_bytes: int = MAX_FLOW_BYTES) -> None:
        self._max_flows = max_flows
        self._max_seen = max_seen
        self._max_bytes = max_bytes
        self._bytes = 0  # of all that are known, roughly
        self._holes = HOLES
        self._known: OrderedDict[bytes, KnownHead] = OrderedDict()
        self._shapes: dict[int, HeadShape] = {}  # by its size, that of the flow that was found last
        self._layouts = HeadLayouts()
        self._seen: OrderedDict[int, None] = OrderedDict()  # by the hash of their keys, which may be long
        self.repeated: BoundedMemo[bytes | str, RepeatedRequest] = BoundedMemo(MAX_REPEATED)

    def __len__(self) -> int:
        return len(self._known)

    def expect(self, holes: frozenset[bytes]) -> None:
        """Know nothing any more, and look for holes in these fields (names in lower case) from now on."""
        self._holes = holes
        self.clear()

    def clear(self) -> None:
        """Know nothing any more."""
        for known in self._known.values():
            known.current = False
        self._known.clear()
        self._bytes = 0
        self._shapes.clear()
        self._layouts.clear()
        self._seen.clear()
        self.repeated.clear()

    def find_in(self, data: bytes) -> KnownHead | None:
        """The head with which this begins, where it has a usual layout; whether it is that is for the caller to look at
        (L{HeadText.match})."""
        return self._layouts.find(data, self._known)

    def find(self, head: bytes) -> RequestHead | None:
        """The head, parsed, with its flow; C{None} for one that is not known."""
        lines = head.split(b"\r\n")
        likely = self._shapes.get(len(lines))
        if likely is None:
            return None
        filled = self._filled(likely, lines)
        if filled is None:
            shape = head_shape(lines, self._holes)
            if shape is None or shape == likely:
                return None
            filled = self._filled(shape, lines)
            if filled is None:
                return None
            self._shapes[len(lines)] = filled.known.shape
        if filled.known.text is not None:
            self._layouts.add(filled.known.text.layout)
        length = filled.known.shape.body_length(filled.holes)
        return None if length < 0 else filled.known.parsed(filled, length)

    def _filled(self, shape: HeadShape, lines: list[bytes]) -> FilledHead | None:
        """The head that is known by these lines, if it has this shape."""
        holes = shape.fill(lines)
        known = None if holes is None else self._known.get(shape.key(lines))
        return None if holes is None or known is None else FilledHead(known, holes)

    def shape_due(self, lines: list[bytes]) -> HeadShape | None:
        """The shape of a head that has come before, and has no flow yet; C{None} for any other."""
        shape = head_shape(lines, self._holes)
        if shape is None:
            return None
        key = shape.key(lines)
        if key in self._known:
            return None
        if hash(key) in self._seen:
            is_full = len(self._known) >= self._max_flows or self._bytes >= self._max_bytes
            return None if is_full and self._spare_oldest() else shape
        self._see(key)
        return None

    def _see(self, key: bytes) -> None:
        if len(self._seen) >= self._max_seen:
            self._seen.popitem(last=False)
        self._seen[hash(key)] = None

    def put(self, shape: HeadShape, lines: list[bytes], names: list[bytes], flow: Flow) -> None:
        """Know the head from now on."""
        key = shape.key(lines)
        self._seen.pop(hash(key), None)
        known = self._known[key] = KnownHead(key, shape, lines[0], FieldLines(lines[1:], names), flow, self)
        self._bytes += known.size
        self._make_room()
        self._shapes.setdefault(shape.size, shape)

    def grow(self, known: KnownHead, size: int) -> None:
        """So many bytes more are kept with it."""
        known.size += size
        if known.current:
            self._bytes += size
            self._make_room()

    def _make_room(self) -> None:
        while len(self._known) > self._max_flows or self._bytes > self._max_bytes:
            if not self._spare_oldest():
                self._forget(next(iter(self._known.values())))

    def _spare_oldest(self) -> bool:
        """Whether the oldest has been used since this was last asked of it; then it is the last to be asked again."""
        key, oldest = next(iter(self._known.items()))
        if oldest.used:
            oldest.used = False
            self._known.move_to_end(key)
            return True
        return False

    def is_good(self, known: KnownHead, now: float, wall: Callable[[], float]) -> bool:
        """Whether nothing has changed that the flow was made from, which is prepared; else it is dropped.

        @param now: By the clock; C{wall}: tells seconds since the epoch.
        """
        prepared = known.prepared
        assert prepared is not None
        sending, expires_at = prepared.sending, prepared.expires_at
        if (
            known.current
            and (now < prepared.grant.until or prepared.grant.is_good(now))
            and (sending is None or now < sending.keys.until or sending.keys.is_good(now))
            and (expires_at is None or wall() < expires_at)
        ):
            known.used = True
            return True
        self.drop(known)
        return False

    def drop(self, known: KnownHead) -> None:
        """Something that the flow was made from has changed. The next request with this head makes another."""
        if self._known.get(known.key) is known:
            self._see(known.key)
        self._forget(known)

    def _forget(self, known: KnownHead) -> None:
        known.current = False
        if self._known.get(known.key) is known:
            del self._known[known.key]
            self._bytes -= known.size


def holes_in(
    sent: list[bytes], lines: list[bytes], holes: tuple[tuple[int, bytes], ...]
) -> tuple[tuple[int, int], ...] | None:
    """Which of the lines that were sent come out of holes: pairs of their index and the hole's number. C{None} where
    that is unknown.

    @param lines: The client's; C{holes}: those of a L{HeadShape}.
    """
    filled = []
    for number, (index, _) in enumerate(holes):
        found = sent.count(lines[index])
        if found > 1:
            return None  # which of them is the client's own?
        if found:
            filled.append((sent.index(lines[index]), number))
    return tuple(filled)
