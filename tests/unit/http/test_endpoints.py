from __future__ import annotations

import re
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.endpoints import Endpoints, overlap
from llmproxy.http.target import parse


def allows(pattern: str, path: bytes) -> bool:
    return Endpoints([pattern]).match(parse(path).segments) == pattern


class Matching(TestCase):
    def test_an_exact_path(self) -> None:
        """That path, and nothing that looks like it."""
        self.assertTrue(allows("/v1/models", b"/v1/models"))
        for path in (
            b"/v1/models/",
            b"/v1/Models",
            b"/v1/modelsx",
            b"/v1",
            b"/v1/models/x",
            b"/x/v1/models",
            b"/v1/m%6fdels",
        ):
            with self.subTest(path=path):
                self.assertFalse(allows("/v1/models", path))

    def test_a_trailing_slash_is_another_path(self) -> None:
        """A pattern with one matches only a path with one."""
        self.assertTrue(allows("/v1/models/", b"/v1/models/"))
        self.assertFalse(allows("/v1/models/", b"/v1/models"))
        self.assertTrue(allows("/", b"/"))

    def test_a_star_is_one_segment(self) -> None:
        """Not none, not two, not an empty one."""
        self.assertTrue(allows("/v1/files/*", b"/v1/files/f-1"))
        self.assertTrue(allows("/v1/*/content", b"/v1/f/content"))
        for path in (b"/v1/files", b"/v1/files/", b"/v1/files/a/b", b"/v1/files/a/"):
            with self.subTest(path=path):
                self.assertFalse(allows("/v1/files/*", path))

    def test_a_star_is_a_part_of_a_segment(self) -> None:
        """A verb after the model's name, whose own colons do no harm."""
        pattern = "/v1beta/models/*:generateContent"
        self.assertTrue(allows(pattern, b"/v1beta/models/gemini-2.5-pro:generateContent"))
        self.assertTrue(allows(pattern, b"/v1beta/models/a:b:generateContent"))
        for path in (
            b"/v1beta/models/x:streamGenerateContent",
            b"/v1beta/models/:generateContent",
            b"/v1beta/models/x",
        ):
            with self.subTest(path=path):
                self.assertFalse(allows(pattern, path))

    def test_several_stars_in_a_segment(self) -> None:
        """Each stands for one character at least."""
        self.assertTrue(allows("/a*b*c", b"/a1b2c"))
        self.assertTrue(allows("/a*b*c", b"/abbbc"))
        self.assertFalse(allows("/a*b*c", b"/abc"))
        self.assertFalse(allows("/a*b*c", b"/a1bc"))
        self.assertFalse(allows("/a*a", b"/aa"))
        self.assertTrue(allows("/*:*", b"/gpt:x"))
        self.assertFalse(allows("/*:*", b"/:x"))

    def test_two_stars_are_any_depth(self) -> None:
        """One segment at least."""
        for path in (b"/v1/a", b"/v1/a/b/c", b"/v1/a/"):
            with self.subTest(path=path):
                self.assertTrue(allows("/v1/**", path))
        for path in (b"/v1", b"/v1/", b"/v2/a"):
            with self.subTest(path=path):
                self.assertFalse(allows("/v1/**", path))
        self.assertTrue(allows("/**", b"/x"))
        self.assertFalse(allows("/**", b"/"))
        self.assertTrue(allows("/v1/*/**", b"/v1/a/b"))
        self.assertFalse(allows("/v1/*/**", b"/v1/a"))

    def test_no_star_is_an_encoded_slash(self) -> None:
        """A provider that decodes it would see another path."""
        self.assertFalse(allows("/model/*/invoke", b"/model/a%2Fb/invoke"))
        self.assertFalse(allows("/model/**", b"/model/a%2fb/invoke"))
        self.assertFalse(allows("/model/*%2F*/invoke", b"/model/a%2Fb%2Fc/invoke"))

    def test_an_encoded_slash_that_the_pattern_has(self) -> None:
        """In either spelling."""
        self.assertTrue(allows("/model/*%2F*/invoke", b"/model/a%2Fb/invoke"))
        self.assertTrue(allows("/model/*%2f*/invoke", b"/model/a%2Fb/invoke"))
        self.assertTrue(allows("/model/*%2F*/invoke", b"/model/a%2fb/invoke"))
        self.assertTrue(allows("/a%2Fb", b"/a%2fb"))
        self.assertFalse(allows("/a%2Fb", b"/a/b"))

    def test_an_exact_pattern_goes_first(self) -> None:
        """Then the others in their order."""
        endpoints = Endpoints(["/v1/**", "/v1/*", "/v1/models"])
        self.assertEqual(endpoints.match((b"v1", b"models")), "/v1/models")
        self.assertEqual(endpoints.match((b"v1", b"x")), "/v1/**")
        self.assertIsNone(endpoints.match((b"v2",)))

    def test_a_method_of_its_own(self) -> None:
        """Allows that method only, HEAD with GET; one without a method allows all."""
        endpoints = Endpoints(["GET /v1/models", "POST /v1/files/*", "/v1/chat"])
        models, file, chat = (b"v1", b"models"), (b"v1", b"files", b"a"), (b"v1", b"chat")
        self.assertEqual([endpoints.match(models, m) for m in (b"GET", b"HEAD", None)], ["GET /v1/models"] * 3)
        self.assertEqual([endpoints.match(models, m) for m in (b"POST", b"DELETE", b"")], [None] * 3)
        self.assertEqual((endpoints.match(file, b"POST"), endpoints.match(file, b"GET")), ("POST /v1/files/*", None))
        self.assertEqual(endpoints.match(chat, b"DELETE"), "/v1/chat")
        self.assertEqual(endpoints.methods(models), {b"GET", b"HEAD"})
        self.assertEqual((endpoints.methods(chat), endpoints.methods((b"v2",))), (frozenset(), frozenset()))

    def test_several_methods_of_a_path(self) -> None:
        """Each pattern adds what it names; one without a method, or with stars, adds its own."""
        endpoints = Endpoints(["GET /v1/files", "DELETE /v1/files", "PUT /v1/*"])
        matched = [endpoints.match((b"v1", b"files"), m) for m in (b"GET", b"DELETE", b"PUT", b"POST")]
        self.assertEqual(matched, ["GET /v1/files", "DELETE /v1/files", "PUT /v1/*", None])
        self.assertEqual(endpoints.methods((b"v1", b"files")), {b"GET", b"HEAD", b"DELETE", b"PUT"})

    def test_bad_patterns_are_told(self) -> None:
        """The message names the pattern."""
        for pattern in (
            "",
            "v1/models",
            "/v1//x",
            "/v1/../x",
            "/v1/x?y",
            "/v1/x?",
            "/v1/x#y",
            "/v1/%zz",
            "/v1/%2e",
            "/v1/é",
            "/v1/**/x",
            "/v1/x**",
            "/v1/***",
            "/v1/**x",
            "/a**b/c",
            "/v1 x",
            "get /v1/x",
            "GET  /v1/x",
            "GET v1/x",
            "GET",
        ):
            with self.subTest(pattern=pattern):
                with self.assertRaises(ValueError) as caught:
                    Endpoints([pattern])
                self.assertIn(f'"{pattern}"', str(caught.exception))


segment = st.text("ab:.-", min_size=1, max_size=5).filter(lambda text: set(text) != {"."})


class Properties(TestCase):
    @given(st.lists(segment, min_size=1, max_size=4), st.lists(segment, min_size=1, max_size=4))
    def test_without_stars_it_is_equality(self, allowed: list[str], asked: list[str]) -> None:
        """A pattern that holds no star allows itself only."""
        pattern, path = "/" + "/".join(allowed), "/" + "/".join(asked)
        self.assertEqual(allows(pattern, path.encode()), pattern == path)
        self.assertTrue(allows(pattern, pattern.encode()))

    @given(
        st.text("ab*", min_size=1, max_size=6).filter(lambda t: "**" not in t), st.text("ab", min_size=1, max_size=8)
    )
    def test_stars_as_a_regular_expression_has_them(self, pattern: str, name: str) -> None:
        """The one pass finds what backtracking would."""
        import re

        expected = re.fullmatch(pattern.replace("*", ".+"), name) is not None
        self.assertEqual(allows("/" + pattern, b"/" + name.encode()), expected)


class Overlapping(TestCase):
    def test_pairs(self) -> None:
        """Whether some path is allowed by both."""
        for one, other, expected in (
            ("/v1/a", "/v1/a", True),
            ("/v1/a", "/v1/b", False),
            ("/v1/a", "/v1/a/b", False),
            ("/v1/*", "/v1/a", True),
            ("/v1/a*", "/v1/*b", True),
            ("/v1/a*", "/v1/b*", False),
            ("/v1/*", "/v1/*/c", False),
            ("/**", "/v1/a", True),
            ("/v1/**", "/v1/a/b", True),
            ("/v1/**", "/v1", False),
            ("/v1/**", "/v2/a", False),
            ("/v1/a/**", "/v1/**", True),
            ("/v1/a/**", "/v1/a", False),
            ("/v1/a*c", "/v1/ac", False),
            ("/v1/models/*:x", "/v1/models/*", True),
            ("/v1/*%2Fa", "/v1/b%2Fa", True),
            ("GET /v1/a", "/v1/*", True),
            ("GET /v1/a", "HEAD /v1/*", True),
            ("GET /v1/a", "POST /v1/*", False),
            ("GET /v1/a", "GET /v1/b", False),
        ):
            with self.subTest(one=one, other=other):
                self.assertEqual(overlap(one, other), expected)
                self.assertEqual(overlap(other, one), expected)

    @given(st.lists(st.text("ab*", min_size=1, max_size=4), min_size=1, max_size=3), st.booleans(), st.data())
    def test_a_path_that_both_allow(self, segments: list[str], deep: bool, data: st.DataObject) -> None:
        """If there is one, they overlap."""
        pattern = "/" + "/".join(re.sub(r"\*+", "*", segment) for segment in segments) + ("/**" if deep else "")
        path = data.draw(st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4).map("/".join))
        other = data.draw(st.sampled_from(["/" + path, "/**", "/" + path[:-1] + "*"]))
        split = tuple(segment.encode() for segment in path.split("/"))
        if Endpoints([pattern]).match(split) and Endpoints([other]).match(split):
            self.assertTrue(overlap(pattern, other))
