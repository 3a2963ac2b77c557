"""What direct requests of one flow have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmproxy.base.ttl_cache import CacheEntry
from llmproxy.brief_record import RecordKind
from llmproxy.http.plain_members import PlainMembers
from llmproxy.ledger.kinds import AlikeOpenings
from llmproxy.limits.in_flight import Slots
from llmproxy.metering.typed_usage import TypedUsage
from llmproxy.model import Grant
from llmproxy.proxy.fast_path.next_hop import NextHop
from llmproxy.upstream.provider_keys import ProviderKey
from llmproxy.upstream.upstreams import UpstreamGroup

MAX_RECORD_KINDS = 64  # of one flow: as many clients behind one proxy, say
MAX_MODELS = 8  # for which one flow has openings in the ledger ready


@dataclass(slots=True, eq=False)
class RequestFacts:
    """What is recorded of a head, beside its flow; each is made once, and known by itself."""

    user_agent: str
    sdk_retry: int
    attribution: str


@dataclass(slots=True, eq=False)
class PreparedSending:
    """Where its requests are sent, and what they take.

    @ivar hops: Where they may go; C{sole}: the only one, C{None} where each request has a choice.
    @ivar keys: The provider's keys, and until when they are these.
    @ivar slots: What its project has under way there.
    @ivar uses: Uses of its token that are counted by the line of each request; C{None}: the token's session is asked.
    @ivar common: Project, token, API and endpoint, as lines of the ledger have them; C{openings}: what they have in
        common besides, by model.
    """

    hops: tuple[NextHop, ...]
    sole: NextHop | None
    group: UpstreamGroup
    keys: CacheEntry[tuple[ProviderKey, ...]]
    slots: Slots
    uses: int | None
    common: tuple[str, str, str, str]
    openings: dict[str, AlikeOpenings] = field(default_factory=dict)

    def opening(self, model: str) -> AlikeOpenings:
        """What lines with this model have in common."""
        if len(self.openings) >= MAX_MODELS:
            self.openings.clear()
        alike = self.openings[model] = AlikeOpenings((*self.common, model))
        return alike


@dataclass(slots=True, eq=False)
class PreparedFlow:
    """What direct requests of one flow have in common.

    @ivar model: That which its path names; C{""}: the body does.
    @ivar grant: The grant, and until when it is good.
    @ivar expires_at: When it expires by itself, in seconds since the epoch; C{None}: never.
    @ivar sending: How its requests are sent; C{None} where that is not known.
    @ivar typed: Measures its responses, where they are the provider's; C{has_tier}: whether their head tells a tier.
    @ivar is_coded: Whether its body may have a content coding.
    @ivar is_policed: Whether its body is checked; C{is_measured}: measured; C{is_read_whole}: read for more than its
        model, and whether it asks for a stream; C{wanted}: for which members, which C{plain} reads of usual ones.
    @ivar may_be_injected: Whether its usage may have to be asked for in its client's place.
    @ivar may_be_deferred: Whether a body that asks for C{background} has a response that announces a result.
    @ivar estimates_input: Whether it is text that counts as input.
    @ivar streams: Whether its head asks for a stream.
    @ivar total: Seconds that the whole response may take, C{stream_total} where it is a stream, C{header_timeout} until
        such a stream begins.
    @ivar facts: What is recorded of its head; C{None} where lines with holes tell some of it: those in
        C{told_by}, by their numbers. C{facts_told}: what is recorded, by these lines.
    @ivar has_own_id: Whether its client says what its requests are called.
    @ivar token: What its requests are let in by, which must not stand anywhere else.
    @ivar own_cors: Whether its responses tell which pages may read them by C{cors_lines}, not as their provider does.
    @ivar record_kinds: The kinds of their records, by what these do not all have in common.
    """

    model: str
    grant: CacheEntry[Grant]
    expires_at: float | None
    sending: PreparedSending | None
    typed: TypedUsage | None
    has_tier: bool
    is_coded: bool
    is_policed: bool
    is_measured: bool
    is_read_whole: bool
    wanted: Callable[[str], bool]
    plain: PlainMembers
    may_be_injected: bool
    may_be_deferred: bool
    estimates_input: bool
    streams: bool
    total: float
    stream_total: float
    header_timeout: float
    path: str
    told_by: tuple[int, ...]
    facts: RequestFacts | None
    has_own_id: bool
    token: bytes | None
    own_cors: bool
    cors_lines: Sequence[bytes]
    facts_told: dict[tuple[bytes, ...], RequestFacts] = field(default_factory=dict)
    record_kinds: dict[tuple[object, ...], RecordKind] = field(default_factory=dict)
