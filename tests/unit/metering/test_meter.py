"""What a meter says of the answers of every provider, in any pieces."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.http.content_coding import encode
from llmproxy.metering.body_readers import MAX_BODY_BYTES, MAX_MERGED_EVENTS
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.json_scanner import MAX_LISTED_OBJECTS
from llmproxy.metering.meter import Meter, dialect
from llmproxy.metering.prices import OwnPrice, Prices
from llmproxy.model import Usage
from tests.support.examples import examples
from tests.unit.metering.samples import (
    CHAT_USAGE,
    CLAUDE,
    DELTA,
    ENDED,
    GEMINI,
    GEMINI_PATH,
    JSON,
    SAMPLES,
    SSE,
    STARTED,
    TEXT,
    Sample,
    chunk,
    dumped,
    events,
    gemini,
)

PRICES = Prices()
NOW = 1_790_000_000.0
BOM = b"\xef\xbb\xbf"
CHAT = b"/v1/chat/completions"
ENCODINGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"": bytes,
    b"identity": bytes,
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"zstd": partial(encode, b"zstd"),
}


NAMES = [
    *("usage", "usageMetadata", "prompt_tokens", "completion_tokens", "input_tokens", "promptTokensDetails"),
    *("promptTokenCount", "modality", "tokenCount", "model", "choices", "candidates", "service_tier", "response"),
    *("type", "inputTokens", "cacheDetails", "ttl"),
]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
ANY_JSON = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=25,
)


class Account:
    """Counts what is held, as L{llmproxy.wire.buffers.Buffers} does."""

    def __init__(self, tight: bool = False) -> None:
        self.held = self.most = 0
        self.tight = tight

    def hold(self, count: int) -> None:
        self.held += count
        self.most = max(self.most, self.held)


def metered(
    body: bytes,
    *,
    provider: str = "openai",
    path: bytes = CHAT,
    kind: bytes = JSON,
    encoding: bytes = b"",
    cuts: list[int] | None = None,
    complete: bool = True,
    given: int = 400,
    asked: str = "",
    prices: Prices = PRICES,
    lines: tuple[bytes, ...] = (),
) -> Usage:
    head = [b"Date: now", b"Content-Type:  " + kind + b"; charset=utf-8", *lines]
    if encoding:
        head.append(b"content-encoding: " + encoding)
    meter = Meter(dialect("api", provider, prices, path), head)
    edges = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts or ())})
    for start, end in pairwise(edges):
        meter.feed(body[start:end])
    return meter.measured(asked=asked, given=lambda: PromptEstimate(-(-given // 4), given), complete=complete, at=NOW)


def of(sample: Sample, **more: object) -> Usage:
    return metered(sample.body, provider=sample.provider, path=sample.path, kind=sample.kind, **more)  # type: ignore[arg-type]


def counts(usage: Usage) -> tuple[int, int, int, int, int]:
    return (
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )


class MeasuringTests(SynchronousTestCase):
    """What was used is what the provider said, however it said it."""

    def test_every_provider(self) -> None:
        """To the token, with the model that answered, and what else was counted."""
        for sample in SAMPLES:
            usage = of(sample)
            self.assertEqual(
                (counts(usage), usage.model, usage.basis, dict(usage.details)),
                (sample.used, sample.model, "exact", sample.details),
                sample.name,
            )

    @examples(150)
    @given(st.sampled_from(SAMPLES), st.sampled_from(sorted(ENCODINGS)), st.data())
    def test_any_pieces(self, sample: Sample, encoding: bytes, data: st.DataObject) -> None:
        """Pieces may end anywhere: in a character, between CR and LF, within a compressed block."""
        body = ENCODINGS[encoding](sample.body)
        few = st.lists(st.integers(0, len(body)), max_size=8)
        cuts = data.draw(few | st.just(list(range(0, len(body), 97))) | st.just([*range(len(body))][:3000]))
        usage = metered(
            body, provider=sample.provider, path=sample.path, kind=sample.kind, encoding=encoding, cuts=cuts
        )
        self.assertEqual(usage, of(sample))

    @examples(200)
    @given(
        st.sampled_from([JSON, SSE, b"audio/mpeg", b""]),
        st.sampled_from([b"", b"gzip", b"deflate", b"br"]),
        st.lists(
            st.binary(max_size=60)
            | st.sampled_from(
                [b'{"usage":', b'"usage"', b"data: ", b"\n\n", b"}", b'_tokens":', b"[", b'{"choices":3,']
            )
        ),
        st.sampled_from(["openai", "google", "aws", ""]),
    )
    def test_anything(self, kind: bytes, encoding: bytes, pieces: list[bytes], provider: str) -> None:
        """Whatever a provider sends, the meter goes on, and says something of it."""
        body, cuts, at = b"".join(pieces), [], 0
        for piece in pieces:
            at += len(piece)
            cuts.append(at)
        usage = metered(body, kind=kind, encoding=encoding, cuts=cuts, provider=provider, complete=False)
        self.assertIn(usage.basis, ("exact", "estimated", "none"))

    @examples(200)
    @given(ANY_JSON, st.sampled_from(["openai", "google", "anthropic", "aws"]))
    def test_any_json(self, said: object, provider: str) -> None:
        """Members of any type where numbers, objects and lists are expected: believed where they can be, else not."""
        usage = metered(json.dumps(said).encode(), provider=provider)
        self.assertTrue(all(0 <= count < 2**63 for count in counts(usage)))

    def test_raw_deflate(self) -> None:
        """Some send deflate without zlib's head."""
        press = zlib.compressobj(wbits=-15)
        body = press.compress(SAMPLES[0].body) + press.flush()
        self.assertEqual(metered(body, encoding=b"deflate", cuts=[1]), of(SAMPLES[0]))

    def test_several_gzip_members(self) -> None:
        """A gzip body may be several in a row."""
        body = SAMPLES[1].body
        packed = gzip.compress(body[:5000]) + gzip.compress(body[5000:])
        self.assertEqual(metered(packed, encoding=b"gzip", cuts=[*range(0, len(packed), 50)]), of(SAMPLES[1]))

    def test_bedrocks_head(self) -> None:
        """What Bedrock says in header fields."""
        lines = (b"X-Amzn-Bedrock-Input-Token-Count: 12", b"x-amzn-bedrock-output-token-count: 34")
        usage = metered(
            b"{}",
            provider="aws",
            path=b"/model/amazon.nova-lite-v1:0/invoke",
            lines=lines,
            asked="amazon.nova-lite-v1:0",
        )
        self.assertEqual((counts(usage), usage.basis), ((12, 0, 0, 34, 0), "exact"))
        self.assertIsNotNone(usage.cost_usd)

    def test_cost(self) -> None:
        """The list's price of the model that answered."""
        self.assertAlmostEqual(of(SAMPLES[0]).cost_usd or 0, (90 * 2.5 + 10 * 1.25 + 20 * 10) / 1e6, 12)

    def test_unknown_model(self) -> None:
        """What has no price costs an unknown amount, never nothing."""
        body = json.dumps({"model": "in-house-7b", "usage": CHAT_USAGE}).encode()
        usage = metered(body, asked="in-house")
        self.assertEqual((usage.cost_usd, usage.input_tokens), (None, 100))

    def test_a_name_that_is_none(self) -> None:
        """A model's name of any length, or with what steers a terminal, is not kept."""
        for name in ("x" * 129, "a\nb", "\x1b[2J", "\ud800", 7, None, ["gpt-4o"]):
            body = json.dumps({"model": name, "usage": CHAT_USAGE}).encode()
            self.assertEqual(metered(body).model, "", name)

    def test_own_price(self) -> None:
        """An operator's price goes before the list's, by the name that was asked for too."""
        prices = Prices([OwnPrice("a*", "in-house", input=1.0, output=2.0, cached=0.5)])
        body = json.dumps({"model": "in-house-7b", "usage": CHAT_USAGE}).encode()
        usage = metered(body, asked="in-house", prices=prices)
        self.assertAlmostEqual(usage.cost_usd or 0, (90 + 5 + 40) / 1e6, 12)


class EstimateTests(SynchronousTestCase):
    """Where the provider told nothing, the figures say that they are estimates, and how far off they can be."""

    def test_stream_without_usage(self) -> None:
        """A client that did not ask for the usage of its stream: one token for four bytes of text."""
        deltas = [{**chunk(), "choices": [{"delta": {"content": "word " * 4}, "finish_reason": None}]}] * 50
        usage = metered(events(*deltas, done=True), kind=SSE, asked="gpt-4o")
        self.assertEqual(usage.basis, "estimated")
        self.assertEqual((usage.input_tokens, usage.details["input_bound"]), (100, 400))
        self.assertLess(abs(usage.output_tokens - 250), 5)
        self.assertGreaterEqual(usage.details["output_bound"], usage.output_tokens)
        self.assertIsNotNone(usage.cost_usd)

    def test_long_stream_without_usage(self) -> None:
        """The share of text is taken from a sample of it."""
        deltas = [{**chunk(), "choices": [{"delta": {"content": "word " * 4}, "finish_reason": None}]}] * 5000
        body = events(*deltas)
        usage = metered(body, kind=SSE, cuts=[*range(0, len(body), 16000)])
        self.assertLess(abs(usage.output_tokens - 25000), 1000)

    def test_cut_message(self) -> None:
        """Of a stream that was cut the input is known exactly, the output is not."""
        usage = metered(
            events(STARTED, *[DELTA] * 20), provider="anthropic", path=b"/v1/messages", kind=SSE, complete=False
        )
        self.assertEqual((usage.basis, usage.input_tokens, usage.cached_tokens), ("estimated", 160, 50))
        self.assertEqual(usage.model, CLAUDE)
        self.assertNotIn("input_bound", usage.details)
        self.assertGreater(usage.output_tokens, 100)

    def test_message_that_ended_without_its_usage(self) -> None:
        """An error in the middle of a stream that then ends in good order: its last counts never came."""
        body = events(STARTED, DELTA, {"type": "error", "error": {"type": "overloaded_error"}})
        usage = metered(body, provider="anthropic", path=b"/v1/messages", kind=SSE)
        self.assertEqual(usage.basis, "estimated")

    def test_message_cut_after_its_usage(self) -> None:
        """What came before the cut was final."""
        usage = metered(
            events(STARTED, DELTA, ENDED), provider="anthropic", path=b"/v1/messages", kind=SSE, complete=False
        )
        self.assertEqual((usage.basis, usage.output_tokens), ("exact", 25))

    def test_cut_gemini(self) -> None:
        """Every event of Gemini's counts; those of one that was cut are of what came before."""
        usage = metered(events(*GEMINI[:2], end="\r\n"), provider="google", path=GEMINI_PATH, kind=SSE, complete=False)
        self.assertEqual((usage.basis, usage.input_tokens), ("estimated", 40))

    def test_cut_array(self) -> None:
        """What the elements reported that came before the cut holds, however the array is written."""
        use = {"promptTokenCount": 150_000, "cachedContentTokenCount": 100_000, "thoughtsTokenCount": 900}
        told = [gemini(TEXT, {**use, "candidatesTokenCount": 20 * n}) for n in range(1, 5)]
        for mark in (b"", BOM):
            for indent in (None, 0, 2):
                elements = [dumped(each, indent=indent) for each in told]
                for begin, between in ((b"[", b"\n,\r\n"), (b"[", b","), (b"[\n", b",\n"), (b" \r\n[ ", b" ,\n ")):
                    body = mark + begin + between.join(elements)
                    for cut in (len(body), len(body) - 1, len(body) - len(elements[-1]) // 2):
                        usage = metered(
                            body[:cut], provider="google", path=GEMINI_PATH, complete=False, cuts=[*range(0, cut, 400)]
                        )
                        self.assertEqual(
                            (usage.basis, usage.model, usage.reasoning_tokens),
                            ("estimated", "gemini-2.5-flash", 900),
                            body,
                        )
                        self.assertEqual((usage.input_tokens, usage.cached_tokens), (150_000, 100_000), body)
                        self.assertGreaterEqual(usage.output_tokens, 960, body)

    def test_array_cut_anywhere(self) -> None:
        """What the last element would have counted is not known, even where it said that it is the last."""
        last = {"promptTokenCount": 40, "candidatesTokenCount": 900, "thoughtsTokenCount": 100}
        told = [*GEMINI[:2], gemini("a", {**last, "candidatesTokenCount": 1}), gemini("b", last, finishReason="STOP")]
        body = b"[" + b",\r\n".join(dumped(each) for each in told)
        for cut in range(1, len(body) + 1):
            usage = metered(body[:cut], provider="google", path=GEMINI_PATH, complete=False)
            self.assertEqual((usage.basis, usage.input_tokens in (40, 100)), ("estimated", True), body[:cut])
        self.assertEqual((usage.input_tokens, usage.output_tokens), (40, 1000))

    def test_objects_one_after_the_other(self) -> None:
        """On lines, or without anything between them: the last of what they say."""
        told = [b'{"model":"gpt-4o","usage":{"prompt_tokens":9,"completion_tokens":%d}}' % n for n in (1, 2, 3)]
        for mark in (b"", BOM):
            for between in (b"\n", b"\r\n", b"\n\n", b"", b" ", b"\r\n,"):
                usage = metered(mark + between.join(told) + b"\n")
                self.assertEqual((counts(usage)[::3], usage.basis), ((9, 3), "exact"), between)
        lines = b"\n".join([*told, told[0][:-5]])
        self.assertEqual(counts(metered(lines))[::3], (9, 3))

    def test_byte_order_mark_of_a_stream(self) -> None:
        """The first event is read as any other, also where it alone tells the usage."""
        told = events({"model": "gpt-4o", "usage": CHAT_USAGE, "choices": []}) + b"data: [DONE]\n\n"
        self.assertEqual(metered(BOM + told, kind=SSE), metered(told, kind=SSE))
        self.assertEqual(metered(BOM + told, kind=SSE).basis, "exact")

    def test_byte_order_mark(self) -> None:
        """A body that begins with one is read as any other."""
        for sample in SAMPLES:
            if sample.kind == JSON:
                body = BOM + sample.body
                usage = metered(body, provider=sample.provider, path=sample.path, cuts=[1])
                self.assertEqual(usage, of(sample), sample.name)

    def test_unreadable_encoding(self) -> None:
        """What cannot be decoded is estimated by its size, be its coding unknown, several, or another than it says."""
        for encoding in (b"compress", b"gzip, gzip", b"gzip", b"zstd"):
            usage = metered(b"x" * 4000, encoding=encoding)
            self.assertEqual((usage.basis, usage.output_tokens), ("estimated", 1000), encoding)

    def test_not_really_gzip(self) -> None:
        """A label that is not true."""
        self.assertEqual(metered(b"{}" * 50, encoding=b"gzip").basis, "estimated")

    def test_nothing_to_estimate(self) -> None:
        """A file costs nothing; what nobody knows may."""
        self.assertEqual(metered(b'{"data":[]}', path=b"/v1/files"), Usage(cost_usd=0.0))
        self.assertEqual(metered(b'{"data":[]}', path=b"/v1/what-is-that"), Usage(basis="unknown"))


class BoundTests(SynchronousTestCase):
    """However much passes, little of it is kept."""

    def _peak(
        self, feed: Callable[[Meter], None], kind: bytes, encoding: bytes = b"", path: bytes = CHAT
    ) -> tuple[Usage, int]:
        lines = [b"Content-Type: " + kind, b"Content-Encoding: " + (encoding or b"identity")]
        meter = Meter(dialect("api", "openai", PRICES, path), lines)
        tracemalloc.start()
        feed(meter)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return meter.measured(asked="", given=lambda: PromptEstimate(0, 0), complete=True, at=NOW), peak

    def test_large_body(self) -> None:
        """An answer of many megabytes, its usage at the end of it."""
        piece = b"A" * 65536

        def feed(meter: Meter) -> None:
            meter.feed(b'{"data":[{"b64_json":"')
            for _ in range(800):
                meter.feed(piece)
            meter.feed(b'"}],"usage":' + json.dumps(CHAT_USAGE).encode() + b"}")

        usage, peak = self._peak(feed, JSON)
        self.assertEqual(counts(usage), (100, 10, 0, 20, 7))
        self.assertLess(peak, 1_000_000)

    def test_large_event(self) -> None:
        """An image of many megabytes in one event."""
        piece = b"A" * 65536

        def feed(meter: Meter) -> None:
            meter.feed(b'data: {"type":"image_generation.completed","b64_json":"')
            for _ in range(200):
                meter.feed(piece)
            meter.feed(b'","usage":' + json.dumps(CHAT_USAGE).encode() + b"}\n\n")

        usage, peak = self._peak(feed, SSE)
        self.assertEqual(counts(usage), (100, 10, 0, 20, 7))
        self.assertLess(peak, 4_000_000)

    def test_let_go(self) -> None:
        """Once it is measured, nothing of a body is held, although its tap may be remembered for longer."""
        meter = Meter(dialect("api", "openai", PRICES, CHAT), [b"Content-Type: " + JSON])
        tap = meter.feed
        tracemalloc.start()
        for piece in (b'{"data":["' + b"A" * 100_000, b"A" * 100_000 + b'"],"usage":', json.dumps(CHAT_USAGE).encode()):
            tap(piece)
        tap(b"}")
        del piece
        held, _ = tracemalloc.get_traced_memory()
        usage = meter.measured(asked="", given=lambda: PromptEstimate(0, 0), complete=True, at=NOW)
        left, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertEqual(counts(usage), (100, 10, 0, 20, 7))
        self.assertGreater(held, 180_000)
        self.assertLess(left, 50_000)

    def test_bomb(self) -> None:
        """A few bytes that would decode to very many are not decoded on."""
        bomb = gzip.compress(b"[" * 200_000_000, 1)
        usage, peak = self._peak(lambda meter: meter.feed(bomb), JSON, b"gzip")
        self.assertEqual(usage.basis, "estimated")
        self.assertLess(peak, 3 << 20)

    def test_nested_without_end(self) -> None:
        """Brackets alone, as many as one likes."""
        usage, _ = self._peak(lambda meter: meter.feed(b"[" * 8000), JSON)
        self.assertEqual(usage.basis, "estimated")


class HoldingTests(SynchronousTestCase):
    """What is kept of an answer until it is measured is counted."""

    def kept(self, size: int, *, tight: bool) -> tuple[int, int, int]:
        """The most that was held, what was in the end, and the output tokens that were found."""
        account = Account(tight)
        body = json.dumps({"x": "y" * size, "usage": {"prompt_tokens": 3, "completion_tokens": 5}}).encode()
        meter = Meter(dialect("api", "openai", PRICES, CHAT), [b"Content-Type: " + JSON], account)
        for at in range(0, len(body), 32768):
            meter.feed(body[at : at + 32768])
        usage = meter.measured(asked="gpt-4o", given=lambda: PromptEstimate(1, 0), complete=True, at=NOW)
        return account.most, account.held, usage.output_tokens

    def test_given_back(self) -> None:
        """Once it is measured, or scanned because it is long."""
        most, held, tokens = self.kept(200_000, tight=False)
        self.assertEqual((most > 200_000, held, tokens), (True, 0, 5))
        most, held, tokens = self.kept(2 * MAX_BODY_BYTES, tight=False)
        self.assertEqual((most < MAX_BODY_BYTES + 40_000, held, tokens), (True, 0, 5))

    def test_where_memory_is_tight(self) -> None:
        """Hardly anything is kept, and the same is found."""
        most, held, tokens = self.kept(200_000, tight=True)
        self.assertEqual((most <= 3 * 32768, held, tokens), (True, 0, 5))

    def held(self, kind: bytes, pieces: list[bytes], coding: bytes = b"") -> tuple[int, int]:
        """The most that was held, and what was in the end, although more comes then."""
        account = Account(False)
        lines = [b"Content-Type: " + kind, b"Content-Encoding: " + coding]
        meter = Meter(dialect("api", "openai", PRICES, CHAT), lines, account)
        for piece in pieces:
            meter.feed(piece)
        most = account.most
        meter.measured(asked="gpt-4o", given=lambda: PromptEstimate(1, 0), complete=True, at=NOW)
        meter.feed(pieces[-1])
        return most, account.held

    def test_streams(self) -> None:
        """The long events of a stream are counted, whether they are whole yet or not; short ones are not worth it."""
        usage = b'data: {"usage":{"prompt_tokens":1}}\n\n'
        self.assertEqual(self.held(b"text/event-stream", [usage] * 20), (0, 0))
        long = b'data: {"usage":{"prompt_tokens":1},"a":"' + b"x" * 50_000 + b'"}\n\n'
        most, left = self.held(b"text/event-stream", [bytes(bytearray(long)) for _ in range(20)])
        self.assertEqual((most > 7 * 50_000, most < 8 * 50_100, left), (True, True, 0))
        most, left = self.held(b"text/event-stream", [long[:-4]])
        self.assertEqual((most, left), (len(long) - 4, 0))

    def test_what_waits_to_be_read(self) -> None:
        """What a turn had no time for is held, too."""
        most, left = self.held(JSON, [b"{" + b'"":"",' * 100_000])
        self.assertEqual((most > 500_000, left), (True, 0))

    def test_what_cannot_be_decoded(self) -> None:
        """A response whose coding ends in nonsense is not held for ever."""
        encoded = gzip.compress(b'{"a":"' + random.Random(1).randbytes(100_000).hex().encode() + b'"}')
        most, left = self.held(JSON, [encoded[:60_000], b"nonsense" * 100], b"gzip")
        self.assertEqual((most > 50_000, left), (True, 0))


class BoundedEffortTests(SynchronousTestCase):
    """What a provider sends in very many small parts is read in part, and said to be estimated."""

    def measured(self, kind: bytes, body: bytes, path: bytes = CHAT) -> Usage:
        meter = Meter(dialect("openai", "openai", PRICES, path), [b"Content-Type: " + kind])
        for at in range(0, len(body), 65_536):
            meter.feed(body[at : at + 65_536])
        while meter.behind:
            meter.work()
        return meter.measured(asked="gpt-4o", given=lambda: PromptEstimate(1, 1), complete=True, at=NOW)

    def test_what_waits_is_read_before_it_is_measured(self) -> None:
        """A long body of small members, whose usage is last, is exact all the same."""
        body = b"{" + b'"":"",' * (MAX_BODY_BYTES // 6 + 1000) + b'"usage":' + json.dumps(CHAT_USAGE).encode() + b"}"
        usage = self.measured(b"application/json", body)
        self.assertEqual((usage.basis, usage.input_tokens > 1), ("exact", True))

    def test_more_waits_than_may(self) -> None:
        """What was not read may hold other counts."""
        body = b'{"usage":{"prompt_tokens":7,"completion_tokens":1},' + b'"":"",' * 1_000_000 + b'"a":0}'
        usage = self.measured(b"application/json", body)
        self.assertEqual((usage.basis, usage.input_tokens), ("estimated", 7))

    def test_lists_and_lines(self) -> None:
        """Up to the bound they are exact; beyond, the first and the last are read."""
        answer = b'{"usage":{"prompt_tokens":%d,"completion_tokens":1}}'
        for count, basis in ((MAX_MERGED_EVENTS, "exact"), (MAX_MERGED_EVENTS + 1, "estimated")):
            answers = [answer % number for number in range(1, count + 1)]
            for body in (b"[" + b",".join(answers) + b"]", b"\n".join(answers)):
                usage = self.measured(b"application/json", body)
                self.assertEqual((usage.basis, usage.input_tokens), (basis, count))

    def test_events(self) -> None:
        """Of a stream of very many, the last one counts."""
        answers = [
            b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":1}}\n\n' % n for n in range(9000)
        ]
        usage = self.measured(b"text/event-stream", b"".join(answers))
        self.assertEqual((usage.basis, usage.input_tokens), ("exact", 8999))

    def test_calls(self) -> None:
        """Of calls without end in a body that is not kept, as many are told apart as may be."""
        body = b'{"output":[' + b"".join(b'{"type":"web_search_call","id":"ws_%d"},' % n for n in range(20_000))
        body += b'0],"usage":{"input_tokens":7,"output_tokens":1}}'
        usage = self.measured(b"application/json", body, b"/v1/responses")
        self.assertEqual((usage.basis, usage.input_tokens), ("estimated", 7))
        self.assertEqual(usage.details["web_searches"], MAX_LISTED_OBJECTS)
