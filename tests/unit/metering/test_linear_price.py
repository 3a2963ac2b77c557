"""Prices made ready cost what the list says, to the bit."""

from __future__ import annotations

from functools import cache

from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.dialects.reported_usage import Terms
from llmproxy.metering.linear_price import linear_price, own_linear_price
from llmproxy.metering.prices import ListPrice, OwnPrice, Prices
from tests.support.examples import examples

NOW = 1_790_000_000.0
PRICES = Prices()
TERMS = st.builds(
    Terms,
    st.sampled_from(["", "default", "flex", "priority", "batch", "standard", "odd"]),
    st.sampled_from(["", "fast", "standard"]),
    st.sampled_from(["", "us", "global"]),
    st.booleans(),
)
# About where tiers begin, too.
COUNTS = st.just(0) | st.integers(0, 3000) | st.integers(100_000, 400_000) | st.integers(0, 2**53)
FURTHER = st.sampled_from(["input_text_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "web_searches"])


def by_unit(counts: tuple[int, int, int, int, int]) -> dict[str, int | float]:
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "output_reasoning_tokens")
    return dict(zip(names, counts, strict=True))


@cache
def models() -> list[tuple[str, str]]:
    return [(home.id, model.id) for home in get_snapshot().providers for model in home.models]


def listed(provider: str, model: str, terms: Terms, at: float = NOW) -> ListPrice | None:
    return PRICES.listed("api", provider, model, "", at, terms)[1]


USD = st.floats(0, 200)


class LinearPriceTests(SynchronousTestCase):
    @examples(300)
    @given(
        st.builds(
            OwnPrice,
            st.just("*"),
            st.just("*"),
            input=USD,
            output=USD,
            cached=st.none() | USD,
            cache_write=st.none() | USD,
            input_audio=st.none() | USD,
            output_audio=st.none() | USD,
            per_request=USD,
        ),
        st.tuples(*[COUNTS] * 5),
    )
    def test_costs_what_the_operator_says(self, own: OwnPrice, counts: tuple[int, int, int, int, int]) -> None:
        self.assertEqual(own_linear_price(own).cost(*counts), own.cost(by_unit(counts)))

    @examples(1500)
    @given(st.sampled_from(models()), TERMS, st.tuples(*[COUNTS] * 5), FURTHER, COUNTS)
    def test_costs_what_the_list_says(
        self, named: tuple[str, str], terms: Terms, counts: tuple[int, int, int, int, int], more: str, count: int
    ) -> None:
        price = listed(*named, terms)
        linear = None if price is None else linear_price(price)
        if price is None or linear is None:
            return
        units = by_unit(counts)
        if more in linear.unpriced:
            units[more] = count
        cost = linear.cost(*counts)
        if cost is not None:
            self.assertEqual(cost, price.cost(units), units)

    def test_holds_for_nearly_all_models_of_tokens(self) -> None:
        for provider, model, *counts in [
            ("openai", "gpt-4o", 100, 10, 0, 20, 7),
            ("openai", "text-embedding-3-small", 100, 0, 0, 0, 0),
            ("anthropic", "claude-sonnet-4-5", 1000, 30, 4, 200, 5),
            ("google", "gemini-2.5-flash", 1000, 30, 0, 200, 50),
            ("google", "gemini-2.5-pro", 1000, 30, 0, 200, 50),
            ("mistral", "mistral-small-latest", 1000, 0, 0, 200, 0),
        ]:
            price = listed(provider, model, Terms())
            linear = None if price is None else linear_price(price)
            assert linear is not None, model
            self.assertGreater(linear.cost(*counts) or 0.0, 0.0, model)
        ready = [linear_price(price) for named in models() if (price := listed(*named, Terms())) is not None]
        self.assertGreater(sum(each is not None for each in ready), 0.85 * len(ready))

    def test_leaves_to_the_list_what_is_no_such_sum(self) -> None:
        sonnet = listed("anthropic", "claude-sonnet-4-5", Terms())
        assert sonnet is not None
        linear = linear_price(sonnet)
        assert linear is not None
        self.assertIsNone(linear.cost(10, 8, 8, 1, 0), "more cached than there was")
        self.assertIsNone(linear_price(sonnet._replace(factor=1.1)))
        self.assertIsNone(linear_price(sonnet._replace(least={"input_tokens": 10.0})))
        self.assertIsNone(linear_price(sonnet._replace(steps=tuple(reversed(sonnet.steps)))), "another order")
        tiered = listed("google", "gemini-2.5-pro", Terms())
        assert tiered is not None
        pro = linear_price(tiered)
        assert pro is not None
        self.assertIsNotNone(pro.cost(200_000, 0, 0, 1, 0))
        self.assertIsNone(pro.cost(200_001, 0, 0, 1, 0), "the next tier")
        self.assertIsNone(pro._replace(reasoning_within=False).cost(10, 0, 0, 5, 2))
        embeddings = listed("openai", "text-embedding-3-small", Terms())
        assert embeddings is not None
        small = linear_price(embeddings)
        assert small is not None
        self.assertIsNone(small.cost(10, 0, 0, 1, 0), "output has no price")

    def test_holds_as_long_as_the_list_says(self) -> None:
        price = listed("openai", "gpt-4o", Terms())
        assert price is not None
        linear = linear_price(price._replace(since=5.0, until=9.0))
        assert linear is not None
        self.assertEqual((linear.since, linear.until), (5.0, 9.0))
