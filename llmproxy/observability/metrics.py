"""Counts what the proxy does, in plain dictionaries: cheap for every request, summed up when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple, TypeVar

from twisted.logger import Logger

from llmproxy.base.memo import BoundedMemo
from llmproxy.brief_record import BriefRecord, RecordKind
from llmproxy.instruments import Instrument, Reading
from llmproxy.interfaces import IInstrumented
from llmproxy.model import RequestRecord

K = TypeVar("K")
N = TypeVar("N", int, float)

DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
HITS = frozenset(("hit", "revalidated", "coalesced", "stale"))
MISSES = frozenset(("miss", "stored"))
PROVIDER_FAULTS = frozenset(("upstream_unreachable", "upstream_protocol_error", "upstream_timeout"))
MAX_MODELS = 200  # that are told apart
MAX_KINDS = 10_000  # combinations that are told apart; real ones are a few hundred


class RequestKind(NamedTuple):
    """What requests that are counted together have in common: only what has few values, and nobody can make up."""

    api: str
    status: int
    outcome: str
    cache: str
    error: str
    stream: bool

    @property
    def erred(self) -> bool:
        return self.outcome != "cancelled" and (self.status >= 400 or self.outcome in ("failed", "truncated"))


@dataclass(frozen=True, slots=True)
class ProxyMetrics:
    """What was counted since the start, at one moment.

    @ivar errors: Requests answered with 400 or above, failed or truncated; a client that left is no error.
    @ivar cache_hits: Answered from the cache, also after revalidation or by joining a request under way.
    @ivar cache_misses: Could have been answered from the cache, but were not; C{cache_stores} of them were kept.
    @ivar bytes_in: Of request bodies; C{bytes_out} of response bodies.
    @ivar refused: Requests that the proxy itself answered with an error.
    @ivar cancelled: Requests whose client left first.
    @ivar truncated: Answers that the provider broke off.
    @ivar upstream_errors: Requests on which the provider failed: not reached, not understood, too late, cut, 5xx.
    @ivar sdk_retries: Requests that a client library says it repeats.
    @ivar by_error: By the code of the refusal.
    """

    requests: int = 0
    errors: int = 0
    in_flight: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    cache_bypass: int = 0
    cache_stores: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    streams: int = 0
    refused: int = 0
    failed: int = 0
    cancelled: int = 0
    truncated: int = 0
    upstream_errors: int = 0
    sdk_retries: int = 0
    events_dropped: int = 0
    by_status: Mapping[int, int] = field(default_factory=dict)
    by_api: Mapping[str, int] = field(default_factory=dict)
    by_error: Mapping[str, int] = field(default_factory=dict)


class Histogram:
    """Durations, counted by the first bound that is not below them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = DURATION_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Each bound with how many were not above it."""
        return list(zip([*map(str, self.bounds), "+Inf"], accumulate(map(float, self.counts)), strict=True))


class ModelTotals:
    """What is summed up for one API and model.

    @ivar model: As it may be shown.
    """

    __slots__ = ("cache_write", "cached", "cost", "estimated", "input", "model", "output", "reasoning", "unpriced")

    def __init__(self, model: str) -> None:
        self.model = model
        self.input = self.cached = self.cache_write = self.output = self.reasoning = 0
        self.estimated = self.unpriced = 0
        self.cost = 0.0


class ApiTotals:
    """What is summed up for one API."""

    __slots__ = ("bytes_in", "bytes_out", "duration", "first_byte", "sdk_retries", "upstream_errors")

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = self.sdk_retries = self.upstream_errors = 0
        self.duration = Histogram()
        self.first_byte = Histogram()


class KindCount:
    """How many requests there were of a L{RequestKind}."""

    __slots__ = ("count",)

    def __init__(self, count: int = 0) -> None:
        self.count = count


class _KindTotals:
    """Where records of one kind count.

    @ivar repeats: What each adds to the C{sdk_retries}; C{faults} to the C{upstream_errors}, C{estimated} to those.
    @ivar model: Its API and model; C{spent}: what was summed up for them, once there is something.
    """

    __slots__ = ("estimated", "faults", "kind", "model", "repeats", "spent", "traffic")

    def __init__(self, kind: KindCount, traffic: ApiTotals, sample: RequestRecord) -> None:
        self.kind = kind
        self.traffic = traffic
        self.repeats = int(sample.sdk_retry > 0)
        self.faults = int(
            (sample.upstream_status is not None and sample.upstream_status >= 500)
            or sample.error in PROVIDER_FAULTS
            or sample.outcome == "truncated"
        )
        self.estimated = int(sample.basis == "estimated")
        self.model = (sample.api, sample.answered or "unknown")
        self.spent: ModelTotals | None = None


class Metrics:
    """Everything that was counted since the start."""

    _log = Logger(namespace="llmproxy.metrics")

    def __init__(
        self,
        breakers: Callable[[], Mapping[str, str]] = dict,
        events_dropped: Callable[[], int] = lambda: 0,
        redact: Callable[[str], str] = str,
    ) -> None:
        """
        @param breakers: Gives the state of each API's circuit breaker.
        @param events_dropped: Gives how many events were dropped.
        @param redact: Masks secrets in a model's name.
        """
        self.breakers = breakers
        self.events_dropped = events_dropped
        self._redact = redact
        self.in_flight = 0
        self.reactor_lag = Histogram(LAG_BOUNDS)
        self._counts: dict[tuple[str, int, str, str, str, bool], KindCount] = {}
        self._totals: BoundedMemo[RecordKind, _KindTotals] = BoundedMemo(MAX_KINDS)
        self.traffic: dict[str, ApiTotals] = {}
        self.spent: dict[tuple[str, str], ModelTotals] = {}
        self.instruments: dict[str, Instrument] = {}

    def started(self) -> None:
        """A request has begun."""
        self.in_flight += 1

    def ended(self) -> None:
        """A request that had begun is over, however it ended."""
        self.in_flight -= 1

    def observe_all(self, records: Iterable[BriefRecord]) -> None:
        """Count finished requests. Without a call for each: under load a turn of the reactor has many."""
        totals = self._totals
        for record in records:
            total = totals.get(record.kind) or self._totals_for(record.kind)
            figures, traffic = record.figures, total.traffic
            duration, first_byte = figures.duration, figures.first_byte
            total.kind.count += 1
            traffic.bytes_in += figures.bytes_in
            traffic.bytes_out += figures.bytes_out
            histogram = traffic.duration
            histogram.counts[bisect_left(histogram.bounds, duration)] += 1
            histogram.sum += duration
            if first_byte is not None:
                histogram = traffic.first_byte
                histogram.counts[bisect_left(histogram.bounds, first_byte)] += 1
                histogram.sum += first_byte
            traffic.sdk_retries += total.repeats
            traffic.upstream_errors += total.faults

            given, told = figures.input_tokens, figures.output_tokens
            if not given and not told and not figures.cost_usd:
                continue
            spent = total.spent or self._spent_for(total)
            spent.input += given
            spent.cached += figures.cached_tokens
            spent.cache_write += figures.cache_write_tokens
            spent.output += told
            spent.reasoning += figures.reasoning_tokens
            spent.estimated += total.estimated
            if figures.cost_usd is None:
                spent.unpriced += 1
            else:
                spent.cost += figures.cost_usd

    @property
    def kinds(self) -> Mapping[tuple[str, int, str, str, str, bool], int]:
        """How many requests there were of each L{RequestKind}."""
        return {kind: counted.count for kind, counted in self._counts.items()}

    def _totals_for(self, kind: RecordKind) -> _KindTotals:
        """Where a record of this kind counts."""
        sample = kind.sample
        api, outcome, error = sample.api, sample.outcome, sample.error
        key = (api, sample.status, outcome, sample.cache, error, sample.stream)
        counted = self._counts.get(key)
        if counted is None and len(self._counts) >= MAX_KINDS:
            api = "other"
            key = (api, 0, outcome, "disabled", "other", False)
            counted = self._counts.get(key)
        if counted is None:
            counted = self._counts[key] = KindCount()
        totals = _KindTotals(counted, self.traffic.get(api) or self.traffic.setdefault(api, ApiTotals()), sample)
        if kind.is_kept:
            self._totals[kind] = totals
        return totals

    def _spent_for(self, totals: _KindTotals) -> ModelTotals:
        """What is spent on the model of these, be it new, or one too much."""
        api, model = totals.model
        if (api, model) not in self.spent and len(self.spent) >= MAX_MODELS:
            model = "other"
        spent = self.spent.get((api, model))
        if spent is None:
            spent = self.spent[api, model] = ModelTotals(self._redact(model))
        totals.spent = spent
        return spent

    def register(self, part: object) -> None:
        """Also show the figures of this part of the process, if it is an L{IInstrumented}.

        L{ValueError} where another part shows a figure of the same name that cannot be told apart from it.
        """
        if IInstrumented.providedBy(part):
            for instrument in IInstrumented(part).instruments():
                self.add(instrument)

    def add(self, instrument: Instrument) -> None:
        """Show this figure too; see L{register}."""
        before = self.instruments.get(instrument.name)
        if before is not None:
            if not before.label or (before.label, type(before)) != (instrument.label, type(instrument)):
                raise ValueError(f"There is already a metric called {instrument.name!r}.")
            instrument = before.merged(instrument)
        self.instruments[instrument.name] = instrument

    def readings(self) -> Iterator[tuple[Instrument, Reading]]:
        """The figures of others; one that cannot be read is left out."""
        for instrument in self.instruments.values():
            try:
                yield instrument, instrument.read()
            except Exception:
                self._log.failure("Metric {name} could not be read.", name=instrument.name)

    def breaker_counts(self) -> Mapping[tuple[str, str], float]:
        """By API and state: in how many processes the API's circuit breaker is in that state."""
        return dict.fromkeys(self.breakers().items(), 1.0)

    def snapshot(self) -> ProxyMetrics:
        """What was counted so far."""
        counts = [(RequestKind(*kind), count) for kind, count in self.kinds.items()]
        traffic = self.traffic.values()

        def having(test: Callable[[RequestKind], bool]) -> int:
            return sum(count for kind, count in counts if test(kind))

        return ProxyMetrics(
            requests=having(lambda k: True),
            errors=having(lambda k: k.erred),
            in_flight=self.in_flight,
            cache_hits=having(lambda k: k.cache in HITS),
            cache_misses=having(lambda k: k.cache in MISSES),
            cache_bypass=having(lambda k: k.cache == "bypass"),
            cache_stores=having(lambda k: k.cache == "stored"),
            bytes_in=sum(t.bytes_in for t in traffic),
            bytes_out=sum(t.bytes_out for t in traffic),
            streams=having(lambda k: k.stream),
            refused=having(lambda k: k.outcome == "refused"),
            failed=having(lambda k: k.outcome == "failed"),
            cancelled=having(lambda k: k.outcome == "cancelled"),
            truncated=having(lambda k: k.outcome == "truncated"),
            upstream_errors=sum(t.upstream_errors for t in traffic),
            sdk_retries=sum(t.sdk_retries for t in traffic),
            events_dropped=self.events_dropped(),
            by_status=sums((k.status, count) for k, count in counts),
            by_api=sums((k.api, count) for k, count in counts),
            by_error=sums((k.error, count) for k, count in counts if k.error),
        )


def sums(pairs: Iterable[tuple[K, N]]) -> dict[K, N]:
    """Add up what has the same key."""
    found: dict[K, N] = {}
    for key, count in pairs:
        found[key] = found[key] + count if key in found else count
    return found
