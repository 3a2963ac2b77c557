"""Cache-Control as it comes: what it says, and what nonsense counts as."""

from __future__ import annotations

from time import perf_counter
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules.directives import MAX_DELTA_SECONDS, members, parse


class Directives(TestCase):
    def seconds(self, *values: bytes) -> int | None:
        return parse(values).seconds(b"max-age")

    def test_names_in_any_case(self) -> None:
        """It does not matter how a provider spells them."""
        self.assertEqual(self.seconds(b"MaX-aGe=60"), 60)
        self.assertIn(b"no-store", parse([b"No-StOrE"]))

    def test_several_lines_are_one_list(self) -> None:
        """A second field adds to the first."""
        said = parse([b"public, foo", b"max-age=5"])
        self.assertEqual(set(said), {b"public", b"foo", b"max-age"})

    def test_of_two_values_the_smaller_counts(self) -> None:
        """A provider that contradicts itself is taken at its more careful word."""
        for given_ in ([b"max-age=3600, max-age=1"], [b"max-age=1", b"max-age=3600"]):
            self.assertEqual(parse(given_).seconds(b"max-age"), 1)
        self.assertEqual(self.seconds(b"max-age=60, max-age=x"), 0)

    def test_what_is_no_number_is_no_freshness(self) -> None:
        """Better an answer too few than one too old."""
        for value in (b"'3600'", b"3600.0", b"-1", b"+5", b"", b" 3600", b"3600a", b"0x10", b"\xd9\xa1"):
            self.assertEqual(self.seconds(b"max-age=" + value), 0, value)
        self.assertEqual(self.seconds(b"max-age =3600"), 0)
        self.assertEqual(self.seconds(b"max-age"), 0)
        self.assertIsNone(self.seconds(b"public"))

    def test_numbers_written_otherwise(self) -> None:
        """Leading zeros and quotes change nothing; what is too large is very large."""
        self.assertEqual(self.seconds(b"max-age=003600"), 3600)
        self.assertEqual(self.seconds(b'max-age="60"'), 60)
        self.assertEqual(self.seconds(b"max-age=99999999999"), MAX_DELTA_SECONDS)
        self.assertEqual(self.seconds(b"max-age=" + b"9" * 5000), MAX_DELTA_SECONDS)

    def test_what_stands_in_quotes_is_no_directive(self) -> None:
        """An extension cannot pretend to be another directive."""
        self.assertEqual(self.seconds(b'extension="max-age=3600", max-age=1'), 1)
        self.assertEqual(self.seconds(b'max-age=1, extension="max-age=3600, no-store"'), 1)
        self.assertEqual(parse([b'no-cache="a, b", x'])[b"no-cache"], [b"a, b"])
        self.assertEqual(parse([rb'x="a\"b, c"'])[b"x"], [b'a"b, c'])

    def test_an_open_quote_hides_the_rest(self) -> None:
        """Nobody can tell what was meant: what comes after is not read as anything."""
        self.assertEqual(list(parse([b'max-age=1, x="no-store, max-age=2'])), [b"max-age", b"x"])

    def test_long_nonsense_takes_no_time(self) -> None:
        """A head full of quotes does not hold the loop."""
        for nonsense in (b'"' * 65_535, rb"\"" * 32_000, b'"\\"' * 20_000, b'a="b' * 15_000, b"," * 65_000):
            started = perf_counter()
            parse([nonsense])
            self.assertLess(perf_counter() - started, 0.5)

    @given(st.lists(st.binary(max_size=80), max_size=4))
    def test_nothing_is_refused(self, values: list[bytes]) -> None:
        """Whatever bytes stand there, something is read, and every number is within bounds."""
        said = parse(values)
        for name in said:
            self.assertEqual(name, name.lower())
            self.assertTrue(0 <= (said.seconds(name) or 0) <= MAX_DELTA_SECONDS)

    @given(st.lists(st.text('abc="\\, ', max_size=12).map(str.encode), max_size=5))
    def test_a_list_over_lines_is_a_list_with_commas(self, values: list[bytes]) -> None:
        """How a list is cut into fields does not matter, as long as no quote is left open."""
        if all(value.count(b'"') == 0 for value in values):
            self.assertEqual(members(values), members([b",".join(values)]))
