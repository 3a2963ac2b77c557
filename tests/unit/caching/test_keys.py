"""Keys: what makes them differ, and that no client can choose one."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.keys import (
    cache_key,
    cache_key_from_request,
    cache_key_from_request_with_vary,
    key_of_target,
    key_prefix,
    variant_key,
)

BASE: dict[str, Any] = {
    "api": "openai", "tenant": ("p1",), "method": b"POST", "target": b"/v1/x?a=1&b=2", "lines": [], "body": b"{}",
}  # fmt: skip


def key(**other: Any) -> str:
    return cache_key(**{**BASE, **other})


class Asked:
    """A request, as far as a key goes."""

    def __init__(self, method: bytes = b"GET", uri: bytes = b"/v1/models", *lines: bytes, body: bytes = b"") -> None:
        self.method, self.uri, self.lines = method, uri, list(lines)
        self.content = BytesIO(body)


class Keys(TestCase):
    def test_everything_that_matters_makes_another_key(self) -> None:
        """No two different requests share one."""
        others = [
            key(), key(api="azure"), key(tenant=("p2",)), key(tenant=("p1", "t")), key(tenant=()), key(method=b"GET"),
            key(target=b"/v1/x?b=2&a=1"), key(target=b"/v1/x?a=1&a=1&b=2"), key(target=b"/v1/x"), key(body=b"{} "),
            key(body=None), key(body=b""), key(marks=b"cors"), key(lines=[b"anthropic-version: 1"]),
            key(lines=[b"anthropic-version: 2"]), key(lines=[b"Anthropic-Beta: a"]), key(lines=[b"OpenAI-Project: a"]),
            key(lines=[b"OpenAI-Organization: a"]), key(lines=[b"Content-Type: text/plain"]),
            key(lines=[b"anthropic-beta: a", b"anthropic-beta: b"]), key(lines=[b"anthropic-beta: a,b"]),
        ]  # fmt: skip
        self.assertEqual(len(set(others)), len(others))

    def test_what_does_not_matter(self) -> None:
        """Fields that no provider acts on, and the order of those it does."""
        self.assertEqual(key(), key(lines=[b"User-Agent: x", b"X-Stainless-Retry-Count: 1", b"Cookie: a=b"]))
        two = [b"anthropic-version: 1", b"openai-project: 2"]
        self.assertEqual(key(lines=two), key(lines=two[::-1]))
        self.assertEqual(key(method=b"HEAD"), key(method=b"GET"))

    @given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), min_size=2, max_size=2, unique=True))
    def test_parts_do_not_run_into_each_other(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """What moves from one part to the next makes another key."""
        first, second = (key(target=b"/" + target, body=body) for target, body in pairs)
        self.assertNotEqual(first, second)

    @given(st.binary(max_size=300), st.text(max_size=20), st.text(max_size=20))
    def test_keys_are_short_printable_text(self, target: bytes, project: str, token: str) -> None:
        """Any store takes them."""
        tenant = (project.encode("ascii", "replace").decode(), token.encode("ascii", "replace").decode())
        made = cache_key("openai", tenant, b"GET", b"/" + target, [])
        self.assertTrue(made.isascii() and made.isprintable(), made)
        self.assertLess(len(made), 500)

    def test_prefixes(self) -> None:
        """An API, a project, and a beginning of a path can be purged by themselves."""
        made = key()
        for prefix in (
            key_prefix(), key_prefix("openai"), key_prefix("openai", ("p1",)),
            key_prefix("openai", ("p1",), b"/v1/"), key_prefix("openai", ("p1",), BASE["target"]),
        ):  # fmt: skip
            self.assertTrue(made.startswith(prefix), prefix)
        for prefix in (key_prefix("open"), key_prefix("openai", ("p",)), key_prefix("openai", ()),
                       key_prefix("openai", ("p1",), b"/v2")):  # fmt: skip
            self.assertFalse(made.startswith(prefix), prefix)

    def test_long_targets(self) -> None:
        """Their keys begin as one beginning of them does, and otherwise with what no other target has."""
        beginning = b"/v1/" + b"x" * 300
        made = key(target=beginning + b"?a")
        self.assertTrue(made.startswith(key_of_target("openai", ("p1",), beginning + b"?a") + " "))
        for other in (beginning, beginning + b"?b", beginning + b"?a&b", beginning[:200], b"/v1/" + b"x" * 196):
            self.assertFalse(made.startswith(key_of_target("openai", ("p1",), other) + " "), other)
        for start in (beginning[:150], beginning[:200], beginning, beginning + b"?a"):
            self.assertTrue(made.startswith(key_prefix("openai", ("p1",), start)), start)

    def test_a_projects_prefix_covers_its_tokens(self) -> None:
        """With C{scope: token} a project is purged as a whole too."""
        self.assertTrue(key(tenant=("p1", "t1")).startswith(key_prefix("openai", ("p1",))))
        self.assertFalse(key(tenant=("p1/t1",)).startswith(key_prefix("openai", ("p1",))))

    def test_variants(self) -> None:
        """By what the request has of the fields that choose."""
        made = {
            variant_key("k", "g", names, lines)
            for names in ((b"a",), (b"a", b"b"), (b"ab",))
            for lines in ([], [b"A:"], [b"A: 1"], [b"A: 1", b"B: 1"], [b"AB: 1"])
        }
        self.assertEqual(len(made), 3 + 4 + 2)
        self.assertNotEqual(variant_key("k", "g", (b"a",), []), variant_key("k", "h", (b"a",), []))


class OfRequests(TestCase):
    def test_of_a_get(self) -> None:
        """As the library's users ask for it."""
        made = cache_key_from_request(Asked(), api="openai", tenant=("p1",))
        self.assertEqual(made, cache_key("openai", ("p1",), b"GET", b"/v1/models", []))

    def test_of_a_post(self) -> None:
        """The body counts, and can still be read afterwards."""
        asked = Asked(b"POST", b"/v1/x", body=b"{}")
        self.assertEqual(cache_key_from_request(asked), cache_key("", (), b"POST", b"/v1/x", [], b"{}"))
        self.assertEqual(asked.content.read(), b"{}")

    def test_with_vary(self) -> None:
        """Only the fields that are named tell requests apart."""

        def made(*lines: bytes, vary: str = "Authorization, Accept") -> str:
            return cache_key_from_request_with_vary(Asked(b"GET", b"/", *lines), vary)

        self.assertEqual(made(b"Accept: a", b"X: 1"), made(b"Accept: a", b"X: 2"))
        self.assertNotEqual(made(b"Accept: a"), made(b"Accept: b"))
        self.assertNotEqual(made(b"Authorization: a"), made(b"Authorization: b"))
        self.assertEqual(made(vary="*"), "")
        self.assertEqual(made(vary=""), cache_key_from_request(Asked(b"GET", b"/")))
