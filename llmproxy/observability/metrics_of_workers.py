"""What several workers have counted, as if one process had: figures as JSON can say them, and their sum. Pure.

Counters and histograms are added up, also those of workers that have ended: what Prometheus scrapes never falls because
a worker was replaced. Gauges are added up, or the greatest is taken where a sum would say nothing. What is known of a
process (its memory, its descriptors) stands under its worker's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from llmproxy.instruments import Counter, Gauge, Instrument, Reading, check_gauge
from llmproxy.observability.metrics import (
    DURATION_BOUNDS,
    ApiTotals,
    Histogram,
    KindCount,
    Metrics,
    ModelTotals,
)

State = dict[str, Any]
WORST_FIRST = ("open", "half-open", "closed")
_INSTRUMENTS: Mapping[str, type[Instrument]] = {each.kind: each for each in (Counter, Gauge)}


def state_of(metrics: Metrics, process: Iterable[Metric] = (), worker: int = 0) -> State:
    """What this process has counted.

    @param process: What is known of the process itself.
    """
    return {
        "kinds": [[*kind, count] for kind, count in metrics.kinds.items()],
        "traffic": [[api, _numbers(traffic)] for api, traffic in metrics.traffic.items()],
        "spent": [[*key, spent.model, _spent(spent)] for key, spent in metrics.spent.items()],
        "lag": [*metrics.reactor_lag.counts, metrics.reactor_lag.sum],
        "in_flight": metrics.in_flight,
        "dropped": metrics.events_dropped(),
        "breakers": [[*key, count] for key, count in metrics.breaker_counts().items()],
        "instruments": [
            [each.name, each.kind, each.help, each.label, each.across, _reading(reading)]
            for each, reading in metrics.readings()
        ],
        "process": [_family(family, worker) for family in process],
    }


def state_of_checks(checks: Mapping[str, bool]) -> State:
    """Of what is no worker itself, whether these checks of the ready page are ok."""
    metrics = Metrics()
    metrics.add(check_gauge(lambda: {name: float(ok) for name, ok in checks.items()}))
    return state_of(metrics)


def lasting(state: State) -> State:
    """Of a process that has ended, what stays: its counters and histograms."""
    counters = [each for each in state["instruments"] if each[1] == Counter.kind]
    return {**state, "in_flight": 0, "breakers": [], "instruments": counters, "process": []}


def merged(states: Iterable[State]) -> State:
    """The sum of all of them; of none, nothing."""
    total = state_of(Metrics())
    for state in states:
        total = {
            "kinds": _added(total["kinds"], state["kinds"]),
            "traffic": _added(total["traffic"], state["traffic"]),
            "spent": _added(total["spent"], state["spent"]),
            "lag": _plus(total["lag"], state["lag"]),
            "in_flight": total["in_flight"] + state["in_flight"],
            "dropped": total["dropped"] + state["dropped"],
            "breakers": _added(total["breakers"], state["breakers"]),
            "instruments": _instruments(total["instruments"], state["instruments"]),
            "process": [*total["process"], *state["process"]],
        }
    return total


class TotalMetrics(Metrics):
    """What a L{merged} state says.

    @ivar process: What is known of the processes.
    """

    def __init__(self, state: State) -> None:
        Metrics.__init__(self, self._worst, lambda: int(state["dropped"]))
        self._breakers = {(api, name): float(count) for api, name, count in state["breakers"]}
        self.in_flight = state["in_flight"]
        self._counts = {(api, *rest): KindCount(count) for api, *rest, count in state["kinds"]}
        self.traffic = {api: _traffic(numbers) for api, numbers in state["traffic"]}
        self.spent = {(api, model): _totals(name, numbers) for api, model, name, numbers in state["spent"]}
        *self.reactor_lag.counts, self.reactor_lag.sum = state["lag"]
        self.process = [_restored(family) for family in _united(state["process"])]
        for name, kind, text, label, across, reading in state["instruments"]:
            self.instruments[name] = _INSTRUMENTS[kind](name, text, _constant(reading), label, across)

    def breaker_counts(self) -> Mapping[tuple[str, str], float]:
        return self._breakers

    def _worst(self) -> dict[str, str]:
        return {api: name for name in reversed(WORST_FIRST) for (api, of), count in self._breakers.items()
                if of == name and count}  # fmt: skip


def _constant(reading: Reading) -> Any:
    return lambda: reading


# Of one process


def _numbers(traffic: ApiTotals) -> list[float]:
    return [
        *(traffic.bytes_in, traffic.bytes_out, traffic.sdk_retries, traffic.upstream_errors),
        *(*traffic.duration.counts, traffic.duration.sum, *traffic.first_byte.counts, traffic.first_byte.sum),
    ]


def _traffic(numbers: list[Any]) -> ApiTotals:
    found, width = ApiTotals(), len(DURATION_BOUNDS) + 1
    found.bytes_in, found.bytes_out, found.sdk_retries, found.upstream_errors = numbers[:4]
    _fill(found.duration, numbers[4 : 5 + width])
    _fill(found.first_byte, numbers[5 + width :])
    return found


def _fill(histogram: Histogram, numbers: list[Any]) -> None:
    *histogram.counts, histogram.sum = numbers


_SPENT = tuple(name for name in ModelTotals.__slots__ if name != "model")


def _spent(spent: ModelTotals) -> list[float]:
    return [getattr(spent, name) for name in _SPENT]


def _totals(model: str, numbers: list[float]) -> ModelTotals:
    found = ModelTotals(model)
    for name, number in zip(_SPENT, numbers, strict=True):
        setattr(found, name, number)
    return found


def _reading(reading: Reading) -> Any:
    return dict(reading) if isinstance(reading, Mapping) else reading


def _family(family: Metric, worker: int) -> list[Any]:
    samples = [[each.name, {**each.labels, "worker": str(worker)}, each.value] for each in family.samples]
    return [family.name, family.documentation, family.type, samples]


def _restored(family: list[Any]) -> Metric:
    name, text, kind, samples = family
    metric = Metric(name, text, kind)
    metric.samples = [Sample(name, labels, value) for name, labels, value in samples]
    return metric


# Of several


def _united(families: list[list[Any]]) -> list[list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, text, kind, samples in families:
        found.setdefault(name, [name, text, kind, []])[3].extend(samples)
    return list(found.values())


def _plus(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _added(one: list[Any], other: list[Any]) -> list[Any]:
    """Rows whose last member is a number or a list of numbers; the members before it are their key."""
    found = {tuple(key): value for *key, value in one}
    for *key, value in other:
        known = found.get(tuple(key))
        if known is None:
            found[tuple(key)] = value
        else:
            found[tuple(key)] = _plus(known, value) if isinstance(value, list) else known + value
    return [[*key, value] for key, value in found.items()]


def _instruments(one: list[Any], other: list[Any]) -> list[Any]:
    found = {each[0]: each for each in one}
    for name, kind, text, label, across, reading in other:
        known = found.get(name)
        total = reading if known is None else _combined(across, known[5], reading)
        found[name] = [name, kind, text, label, across, total]
    return list(found.values())


def _combined(across: str, one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        both = {**one, **other}
        return {
            name: _combined(across, one[name], other[name]) if name in one and name in other else value
            for name, value in both.items()
        }
    if isinstance(one, Mapping) or isinstance(other, Mapping):
        return other  # another version of the program has another label
    return {"sum": one + other, "max": max(one, other), "min": min(one, other)}[across]
