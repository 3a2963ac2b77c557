"""What is asked of every system, and which figures of it the table shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MESSAGE = '[{"role":"user","content":"Say hello to the world, please, and be brief about it."}]'
JSON = f'{{"model":"mock-b600","messages":{MESSAGE},"temperature":0.7,"max_tokens":64}}'
CACHEABLE = JSON.replace("b600", "b600-c300")
LARGE = JSON.replace("b600", "b1000000")
OPT_IN = ("-H", "Cache-Control: public, max-age=300")

Figures = dict[str, float]


def stream(events: int, interval: int) -> str:
    """A body that makes the mock stream so many events, one in C{interval} microseconds; 0: as fast as they go."""
    return f'{{"model":"mock-e{events}-i{interval}-d0-g1","stream":true,"messages":{MESSAGE}}}'


@dataclass(frozen=True)
class Row:
    """A line of the table: C{key} of the figures, under this name, with so many decimals."""

    name: str
    key: str
    decimals: int = 0


RATE = Row("requests/s", "rps")
CPU = Row("CPU µs/request", "cpu_us")
STREAMS = (Row("streams/s", "rps"), Row("CPU µs/stream", "cpu_us"))
EVENTS = (Row("events/s", "events_per_s"), Row("CPU µs/event", "cpu_us_per_event", 1))
PACED = (*EVENTS, Row("lag p50 ms", "lag_p50_ms", 2), Row("lag p99 ms", "lag_p99_ms", 2))


@dataclass(frozen=True)
class Scenario:
    """One measurement.

    @ivar load: Arguments of C{load}, besides those for its duration.
    @ivar warm: Seconds before the measured window.
    @ivar times: How many times as long as usual the window is, where there are few requests.
    @ivar tls: C{"up"} to the provider, C{"down"} to the client, or neither.
    @ivar direct: Whether the provider alone is measured too; then there are figures of what a system adds to it.
    @ivar megabytes: What a request and its answer weigh together, where that is the point.
    @ivar chosen: Whether it is among those that are measured unless others are asked for.
    @ivar limited: Whether llmproxy holds the requests to six limits; the peers have none.
    @ivar many: How many tokens send it in turns, over the same connections; C{0}: one does.
    @ivar distinct: Whether no two requests have the same body.
    @ivar sdk: Whether C{load} sends the mix of L{requests_of_sdks} instead of C{body}.
    @ivar redis: Whether llmproxy counts them in Redis, which shares the core of mock and load.
    """

    title: str
    rows: tuple[Row, ...]
    body: str
    load: tuple[str, ...]
    warm: float = 0.5
    times: int = 1
    tls: str = ""
    direct: bool = False
    megabytes: float = 0.0
    chosen: bool = True
    limited: bool = False
    redis: bool = False
    many: int = 0
    distinct: bool = False
    sdk: bool = False

    @property
    def path(self) -> str:
        return ("/secure" if self.tls == "up" else "") + "/v1/chat/completions"


def paced(streams: int, ramp: int) -> Scenario:
    """So many streams at a time, each with an event every 20 ms."""
    load = ("-c", str(streams), "-s", "-S", str(ramp), "-i", "20000")
    return Scenario(
        f"{streams:,} streams, an event per 20 ms each", PACED, stream(512, 20000), load, streams / ramp + 1
    )


SCENARIOS = {
    "j32": Scenario("small JSON, 32 connections, saturation", (RATE, CPU), JSON, ("-c", "32")),
    "j200": Scenario(
        "small JSON, 200 requests/s: what is added to the provider's own time",
        (Row("p50 added µs", "added_p50_us"), Row("p99 added µs", "added_p99_us"), CPU),
        JSON, ("-c", "64", "-r", "200"), direct=True, times=2,
    ),
    "s64": Scenario(
        "32 streams of 64 events, as fast as they go", EVENTS, stream(64, 0), ("-c", "32", "-s"),
    ),
    "p500": paced(500, 250),
    "p1000": paced(1000, 500),
    "b1m": Scenario(
        "1 MB up and 1 MB down, 8 connections",
        (RATE, Row("MB/s, both ways", "mb_per_s"), Row("CPU ms/request", "cpu_ms", 2)),
        LARGE, ("-c", "8", "-B", "1000000"), megabytes=2,
    ),
    "tlsup": Scenario("small JSON, TLS to the provider", (RATE, CPU), JSON, ("-c", "32"), tls="up"),
    "tlsdown": Scenario("small JSON, TLS to the client", (RATE, CPU), JSON, ("-c", "32", "-T"), tls="down"),
    "hit": Scenario("small JSON, responses that may be cached", (RATE, CPU), CACHEABLE, ("-c", "32", *OPT_IN)),
    "hits": Scenario(
        "streams of 20 events that may be cached", STREAMS, stream(20, 0), ("-c", "32", "-s", *OPT_IN),
    ),
    "miss": Scenario(
        "small JSON, responses that may be cached and are asked for once", (RATE, CPU), CACHEABLE, ("-c", "32", *OPT_IN),
        distinct=True,
    ),
    "two": Scenario(
        "small JSON, bodies 5 ms behind their heads", (RATE, CPU), JSON.replace("b600", "b600-p5000"), ("-c", "32"),
    ),
    "lim": Scenario("small JSON, six limits in memory", (RATE, CPU), JSON, ("-c", "32"), limited=True),
    "limr": Scenario("small JSON, six limits in Redis", (RATE, CPU), JSON, ("-c", "32"), limited=True, redis=True),
    "big": Scenario("prompts of 116 KB", (RATE, CPU), JSON, ("-c", "32", "-B", "116000")),
    "sdk": Scenario(
        "requests as SDKs send them: 0.6 to 116 KB, gzip in chunks, a third streams", (RATE, CPU), "", ("-c", "32"), sdk=True,
    ),
    "many": Scenario(
        "small JSON of 200 tokens, in turns over the same connections", (RATE, CPU), JSON, ("-c", "32"), many=200,
    ),
    "churn": Scenario("small JSON, a new connection for each request", (RATE, CPU), JSON, ("-c", "32", "-K")),
    "st20": Scenario("32 streams of 20 events, as fast as they go", STREAMS, stream(20, 0), ("-c", "32", "-s")),
}  # fmt: skip

MEMORY = "mem"  # not a load: measured around starts, by memory.py
MEMORY_TITLE = "start-up and memory"
MEMORY_ROWS = (
    Row("s from start to ready", "ready_s", 2), Row("MB idle", "idle_mb", 1),
    Row("KB per open stream", "kb_per_stream", 1), Row("KB per idle connection", "kb_per_idle", 1),
)  # fmt: skip


def figures(scenario: Scenario, said: dict[str, Any]) -> Figures:
    """What a run of C{load} said, in the table's units; without those that need answers where there were none."""
    found: Figures = {
        "requests": said["ok"],
        "bad": said["err"] + said["bad"] + said["conn_err"],
        "rps": said["rps"],
        "mb_per_s": said["rps"] * scenario.megabytes,
        "cpu_share": said["cpu_util"],
        "rss_mb": said["rss_mb"],
    }
    if said["ok"]:
        found |= {
            "p50_us": said["lat_us"]["p50"],
            "p99_us": said["lat_us"]["p99"],
            "cpu_us": said["cpu_us_per_req"],
            "cpu_ms": said["cpu_us_per_req"] / 1000,
        }
    if said.get("events"):
        found |= {
            "events": said["events"],
            "events_per_s": said["eps"],
            "streams": said["max_open"],
            "lag_p50_ms": said["evlat_us"]["p50"] / 1000,
            "lag_p99_ms": said["evlat_us"]["p99"] / 1000,
            "cpu_us_per_event": said["cpu_us_per_ev"],
        }
    return found
