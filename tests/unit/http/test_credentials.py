from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.errors import MissingToken, UpstreamAuthError
from llmproxy.http import credentials
from llmproxy.http.credentials import strip

TOKEN = "sk-lp-" + "aB3_-" * 8 + "xyz"
RAW = TOKEN.encode()


class Taking(TestCase):
    def test_each_of_the_places(self) -> None:
        """Every SDK's own way works, in any case, and leaves nothing behind."""
        for line in (
            b"Authorization: Bearer %s",
            b"authorization:bearer   %s ",
            b"X-Api-Key: %s",
            b"Api-Key: %s",
            b"x-goog-api-key: %s",
            b"X-LLMProxy-Token: %s",
        ):
            with self.subTest(line=line):
                self.assertEqual(strip([b"A: b", line % RAW, b"C: d"]), (TOKEN, [b"A: b", b"C: d"], None))

    def test_the_order(self) -> None:
        """The first place decides, wherever it stands; all are emptied."""
        lines = [
            b"x-goog-api-key: g",
            b"api-key: a",
            b"x-api-key: x",
            b"Authorization: Bearer t",
            b"X-LLMProxy-Token: l",
        ]
        for expected in ("l", "t", "x", "a", "g"):
            self.assertEqual(strip(lines), (expected, [], None))
            lines.pop()
        self.assertEqual(strip(lines), (None, [], None))

    def test_a_credential_that_is_none(self) -> None:
        """Not guessed at, and not made up for by another place."""
        for value in (
            b"",
            b"Bearer",
            b"Bearer ",
            b"Basic abc",
            b"Bearer a b",
            b"Bearer \xe9",
            b"Bearer " + b"x" * 16385,
            RAW,
        ):
            with self.subTest(value=value):
                self.assertIsNone(strip([b"Authorization: " + value, b"x-api-key: other"]).token)
        self.assertIsNone(strip([b"x-api-key: "]).token)
        self.assertIsNone(strip([b"Authorization: Bearer a", b"Authorization: Bearer b"]).token)

    def test_any_token_of_a_library_user(self) -> None:
        """Up to 16384 visible characters: some JWTs are that long."""
        self.assertEqual(strip([b"Authorization: Bearer " + b"x" * 16384]).token, "x" * 16384)
        self.assertIsNone(strip([b"Authorization: Bearer " + b"x" * 16385]).token)
        self.assertEqual(strip([b"Authorization: Bearer a,b=c"]).token, "a,b=c")

    def test_proxy_authorization_goes(self) -> None:
        """And is no credential."""
        self.assertEqual(strip([b"Proxy-Authorization: Bearer x"]), (None, [], None))

    def test_ours_counts_wherever_it_stands(self) -> None:
        """What stands beside it is a session of the client's own, or nothing, and goes nowhere."""
        places = [b"X-LLMProxy-Token: ", b"Authorization: Bearer ", b"x-api-key: ", b"api-key: ", b"x-goog-api-key: "]
        for place in places:
            for beside in places:
                for value in (b"sk-ant-oat01-session", b"", b"sk-lp-short", b"a b", b"Basic eA=="):
                    lines = [beside + value, place + RAW]
                    for ordered in (lines, lines[::-1]):
                        with self.subTest(ordered=ordered):
                            self.assertEqual(strip(ordered), (TOKEN, [], None))
        self.assertEqual(strip([b"Authorization: Basic eA==", b"x-api-key: " + RAW]).token, TOKEN)
        self.assertEqual(strip([b"Authorization: ", b"x-api-key: " + RAW]).token, TOKEN)

    def test_ours_in_several_places(self) -> None:
        """Counts where it is the same; two different ones are refused, since only one can be meant."""
        other = b"sk-lp-" + b"Z" * 43
        same = [b"Authorization: Bearer " + RAW, b"x-api-key: " + RAW]
        self.assertEqual(strip(same, b"key=" + RAW, True), (TOKEN, [], None))
        for lines, query in (
            ([*same, b"api-key: " + other], None),
            ([b"x-api-key: " + RAW, b"x-api-key: " + other], None),
            (same, b"key=" + other),
        ):
            with self.subTest(lines=lines), self.assertRaises(MissingToken):
                strip(lines, query, True)
        self.assertEqual(strip(same, b"key=" + other), (TOKEN, [], None))  # no place for one, unless it is allowed

    def test_credentials_of_other_kinds_go(self) -> None:
        """Azure's and AWS's own ways to send one, and Google's and Azure's in the query."""
        lines = [b"Ocp-Apim-Subscription-Key: k", b"X-Amz-Security-Token: t", b"api-key: " + RAW]
        query = b"key=AIza&api-version=1&subscription-key=k&api-key=k&access_token=ya29&x=y"
        self.assertEqual(strip(lines, query), (TOKEN, [], b"api-version=1&x=y"))

    def test_cookies_go(self) -> None:
        """A page's session of our own domain is a client's credential."""
        self.assertEqual(strip([b"Cookie: session=1", b"A: 1", b"cookie: b=2"]).lines, [b"A: 1"])

    def test_cookies_that_are_wanted(self) -> None:
        """Stay, to the byte where none of ours is among them."""

        def left(*lines: bytes) -> list[bytes]:
            return list(strip(lines, forward_cookies=True).lines)

        self.assertEqual(left(b"Cookie: a=1;b=2"), [b"Cookie: a=1;b=2"])
        self.assertEqual(left(b"Cookie:"), [b"Cookie:"])
        self.assertEqual(left(b"cookie: a=1; LLMProxy_session=x; b=2"), [b"cookie: a=1; b=2"])
        self.assertEqual(left(b"Cookie: llmproxy_session=x"), [])
        self.assertEqual(left(b"Cookie: a=" + RAW), [])
        several = [
            b"cookie: a=1",
            b"A: 1",
            b"Cookie: llmproxy_x=y",
            b"api-key: k",
            b"Cookie: b=2; llmproxy_x=y",
            b"B: 2",
        ]
        self.assertEqual(left(*several), [b"cookie: a=1", b"A: 1", b"Cookie: b=2", b"B: 2"])

    def test_the_token_in_another_field(self) -> None:
        """It never leaves, whichever field it was copied into."""
        lines = [b"Authorization: Bearer " + RAW, b"X-Copy: " + RAW, b"X-Note: key=" + RAW + b".", b"User-Agent: x"]
        self.assertEqual(strip(lines).lines, [b"User-Agent: x"])
        other = b"sk-lp-" + b"Z" * 43
        self.assertEqual(strip([*lines[:1], b"X-Other: " + other]).lines, [])
        self.assertEqual(strip([b"x-api-key: a-library-token", b"X-C: a-library-token"]).lines, [])

    def test_a_short_token_takes_nothing_with_it(self) -> None:
        """Except a field that is just it."""
        lines = [b"x-api-key: test", b"User-Agent: pytest", b"X-Copy: test"]
        self.assertEqual(strip(lines).lines, [b"User-Agent: pytest"])


class Queries(TestCase):
    def test_the_key_where_allowed(self) -> None:
        """Taken, and out of the query; the rest stays as it was."""
        self.assertEqual(strip([], b"alt=sse&key=" + RAW + b"&x=%20", True), (TOKEN, [], b"alt=sse&x=%20"))
        self.assertEqual(strip([], b"key=" + RAW, True), (TOKEN, [], None))
        self.assertEqual(strip([], b"k%65y=" + RAW.replace(b"-", b"%2D"), True), (TOKEN, [], None))

    def test_the_key_where_not_allowed(self) -> None:
        """No credential of this proxy, and out all the same: it may be the client's own, and the provider gets ours."""
        self.assertEqual(strip([], b"key=" + RAW + b"&a=b"), (None, [], b"a=b"))
        self.assertEqual(strip([], b"key=sk-lp-x"), (None, [], None))
        self.assertEqual(strip([b"api-key: " + RAW], b"k%65y=AIza&a=b"), (TOKEN, [], b"a=b"))

    def test_a_header_goes_first(self) -> None:
        """And the key in the query goes all the same."""
        self.assertEqual(strip([b"api-key: h"], b"key=q&a=b", True), ("h", [], b"a=b"))

    def test_two_keys(self) -> None:
        """None counts."""
        self.assertEqual(strip([], b"key=a&key=b", True), (None, [], None))

    def test_the_token_in_any_parameter(self) -> None:
        """Plain or encoded."""
        lines = [b"Authorization: Bearer " + RAW]
        encoded = b"".join(b"%%%02x" % byte for byte in RAW)
        self.assertEqual(strip(lines, b"a=" + RAW + b"&b=" + encoded + b"&" + RAW + b"&c=d").query, b"c=d")

    def test_other_queries_are_untouched(self) -> None:
        """To the byte."""
        for query in (b"", b"&&a=&=b&c", b"a=b=c", b"keys=1&Key=2", b"a=%zz"):
            with self.subTest(query=query):
                self.assertEqual(strip([b"api-key: h-long-enough-token"], query, True).query, query)


class Keys(TestCase):
    def test_each_providers_own_way(self) -> None:
        """Where the settings name none."""
        ways = {"openai": "bearer", "anthropic": "x-api-key", "google": "x-goog-api-key", "mistral": "bearer"}
        ways |= {"azure": "api-key", "bedrock-bearer": "bearer", "generic": "bearer"}
        for provider, way in ways.items():
            self.assertEqual(credentials.scheme(provider), way)

    def test_another_way(self) -> None:
        """A known one in any case, or a header."""
        self.assertEqual(credentials.scheme("anthropic", "Bearer"), "bearer")
        self.assertEqual(credentials.scheme("openai", "X-My-Key"), "X-My-Key")
        for auth in ("a b", "a:b", "é", "host", "Connection", "content-length", "Proxy-Authorization", "a\r\nb"):
            with self.subTest(auth=auth), self.assertRaises(ValueError):
                credentials.scheme("openai", auth)

    def test_injection(self) -> None:
        """One line in the provider's way."""
        self.assertEqual(credentials.inject("bearer", "sk-1"), b"Authorization: Bearer sk-1")
        self.assertEqual(credentials.inject("x-api-key", "sk-1"), b"x-api-key: sk-1")
        self.assertEqual(credentials.inject("api-key", "sk-1"), b"api-key: sk-1")
        self.assertEqual(credentials.inject("x-goog-api-key", "sk-1"), b"x-goog-api-key: sk-1")
        self.assertEqual(credentials.inject("X-My-Key", "sk-1"), b"X-My-Key: sk-1")

    def test_a_key_that_would_break_the_line(self) -> None:
        """No line break reaches the provider, and the message does not hold the key."""
        for key in ("", "secret\r\nX: y", "secret\n", " secret", "secret\u2028", "sécret"):
            with self.subTest(key=key):
                with self.assertRaises(UpstreamAuthError) as caught:
                    credentials.inject("bearer", key)
                self.assertNotIn("cret", str(caught.exception))


carriers = st.sampled_from(
    [b"Authorization: Bearer ", b"X-API-Key: ", b"api-key:", b"x-goog-api-key: ", b"X-Any: ", b"Cookie: a="]
)


class Properties(TestCase):
    @given(st.lists(st.tuples(carriers, st.sampled_from([RAW, b"other", b""])), max_size=5), st.booleans())
    def test_the_token_never_stays(self, lines: list[tuple[bytes, bytes]], query_key: bool) -> None:
        """Not in a line, not in the query."""
        for cookies in (False, True):
            taken = strip([name + value for name, value in lines], b"key=" + RAW + b"&a=" + RAW, query_key, cookies)
            self.assertNotIn(RAW, b"\n".join([*taken.lines, taken.query or b""]))

    @given(st.lists(st.binary(max_size=20)), st.binary(max_size=40), st.booleans())
    def test_any_bytes(self, lines: list[bytes], query: bytes, query_key: bool) -> None:
        """Nothing is raised, and no byte is added."""
        taken = strip(lines, query, query_key)
        self.assertLessEqual(len(taken.query or b""), len(query))
