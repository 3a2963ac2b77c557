"""L{llmproxy.config.values}, L{names} and L{addresses}: what a single value must look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import TestCase

from llmproxy.config import addresses, names, values
from llmproxy.config.external_text import ExternalText
from llmproxy.config.problems import quoted


class Checked(TestCase):
    def refused(self, check: Callable[[Any], object], *bad: Any) -> None:
        for value in bad:
            with self.subTest(quoted(value)), self.assertRaises(ValueError):
                check(value)

    def told(self, check: Callable[[Any], object], value: Any, message: str) -> None:
        with self.assertRaises(ValueError) as raised:
            check(value)
        self.assertEqual(str(raised.exception), message)


class Values(Checked):
    def test_amount(self) -> None:
        """A number that is not below zero, however it is written; from the environment too."""
        for value, meant in ((2, 2.0), (0.05, 0.05), (0, 0.0), (ExternalText("1.5", meaning=1.5), 1.5)):
            self.assertEqual(values.amount(value), meant)
        self.refused(values.amount, -1, True, "2", None, [], float("nan"), float("inf"), 10**20, ExternalText("x"))
        self.told(values.amount, "cheap", '"cheap" is not a number from 0')

    def test_text(self) -> None:
        """Only text is text."""
        self.assertIs(type(values.text(ExternalText("x"))), str)
        self.refused(values.text, 1, True, 1.5, None, [], {}, "\ud800", "a\0b")
        self.told(values.text, True, '"true" is not text (write it in quotes)')

    def test_flags(self) -> None:
        """In the file only booleans; from the environment the usual words."""
        self.assertIs(values.flag(True), True)
        self.assertIs(values.flag(ExternalText("Yes")), True)
        self.assertIs(values.flag(ExternalText("0")), False)
        self.refused(values.flag, "true", "on", 1, 0, None, ExternalText("maybe"), ExternalText(""))

    def test_budgets(self) -> None:
        """As text, or a plain number for a lifetime's; one, or a list."""
        self.assertEqual(values.usd("20/month"), "20/month")
        self.assertEqual(values.usd(20), "20/lifetime")
        self.assertEqual(values.usd(0.5), "0.5/lifetime")
        self.assertEqual(values.token_budget("1000000/day"), "1000000/day")
        self.assertEqual(values.one_or_more("20/month"), ["20/month"])
        self.assertEqual(values.one_or_more(["20/month", 5]), ["20/month", 5])
        self.refused(values.usd, True, None, [], {}, "20/year", -1, 0, float("nan"), float("inf"), 10**40)
        self.refused(values.one_or_more, None)
        self.told(
            values.usd,
            "much",
            '"much" is not a budget (try 20/month or 0.50/day; periods are day, month and lifetime)',
        )

    def test_whole_numbers(self) -> None:
        """No booleans, no fractions, no text in the file."""
        self.assertEqual(values.whole(ExternalText("12")), 12)
        self.refused(
            values.whole, "12", True, 1.0, None, 10**5000, ExternalText("1.5"), ExternalText("٣"), ExternalText("x")
        )

    def test_lists(self) -> None:
        """From the environment with commas; in the file as lists."""
        self.assertEqual(values.items(ExternalText("a, b,,c")), ["a", "b", "c"])
        self.told(values.items, 8080, '"8080" is not a list (write ["8080"])')
        self.refused(values.items, "a,b", None, {})

    def test_patterns(self) -> None:
        """Numbers and booleans as JSON writes them."""
        self.assertEqual([values.pattern(v) for v in ("gpt-*", 1, 0.5, True)], ["gpt-*", "1", "0.5", "true"])
        self.refused(values.pattern, None, [], 10**5000)


class Names(Checked):
    def test_names_of_apis(self) -> None:
        """They are path segments, and must not be the proxy's own."""
        for good in ("openai", "a", "0", "my-api_2"):
            self.assertEqual(names.api_name(good), good)
        self.refused(names.api_name, "", "OpenAI", "-a", "_a", "a/b", "a.b", "ä", "a\n", *names.RESERVED_NAMES)

    def test_methods(self) -> None:
        """Registered ones, in capitals."""
        self.assertEqual(names.method("PATCH"), "PATCH")
        self.told(names.method, "get", '"get" is not a method (did you mean GET?)')
        self.told(names.method, "CONNECT", '"CONNECT" is a method that is never forwarded')
        self.refused(names.method, "TRACE", "trace", "FETCH", "", "GET ", 1, None)

    def test_headers(self) -> None:
        """Field names of RFC 9110, without the underscore that is refused in requests."""
        self.assertEqual(names.header("X-Team"), "X-Team")
        self.refused(names.header, "", "a b", "a:", "x_team", "ä", "a\r\n", 1)

    def test_names_with_an_underscore(self) -> None:
        """Those that mean nothing with hyphens in place of the underscores."""
        self.assertEqual(names.underscored_header("Session_ID"), "session_id")
        self.told(names.underscored_header, "session-id", '"session-id" has no underscore: it may be sent in any case')
        for bad in ("Content_Length", "transfer_encoding", "x_forwarded-for", "X_Real_IP", "x_api_key", "x_request_id"):
            told = f'"{bad}" could pass for a field that has a meaning of its own'
            self.told(names.underscored_header, bad, told)
        self.refused(names.underscored_header, "", "a _b", "_ä", 1)

    def test_ways_to_send_a_key(self) -> None:
        """A known one, or a header that can carry one."""
        for good in ("", "bearer", "x-api-key", "X-Own"):
            self.assertEqual(names.auth(good), good)
        self.refused(names.auth, "Host", "content-length", "transfer-encoding", "a b", None, 1)


class Addresses(Checked):
    def test_base_urls(self) -> None:
        """Scheme and host in small letters, and no slash at the end."""
        for good, kept in {
            "https://api.openai.com": "https://api.openai.com",
            "HTTPS://API.OpenAI.com/": "https://api.openai.com",
            "http://127.0.0.1:11434/v1/": "http://127.0.0.1:11434/v1",
            "http://[::1]:8000/Base": "http://[::1]:8000/Base",
            "http://model_server:80": "http://model_server:80",
        }.items():
            self.assertEqual(addresses.base_url(good), kept)

    def test_bad_base_urls(self) -> None:
        """Whatever two readers could take for two different places."""
        self.refused(
            addresses.base_url,
            *(
                "",
                "api.openai.com",
                "ftp://x",
                "https://",
                "https:///v1",
                "https:x",
                "//x",
                "https://x y",
                "https://x\n",
            ),
            *("https://u@x", "https://u:p@x", "https://x?a", "https://x#a", "https://x?", "https://ä.example"),
            *(
                "https://x:0",
                "https://x:",
                "https://x:99999",
                "https://x:8a",
                "https://-x",
                "https://x..y",
                "https://.",
            ),
            *(
                "http://1.2.3",
                "http://0x7f.1",
                "http://2130706433",
                "http://[::1",
                "http://[x]",
                "http://[fe80::1%25a]",
            ),
            *("https://x//v1", "https://x/../v1", "https://x/%2e", "https://x/a%2fb", "https://x/%zz", "https://x\\y"),
            *(1, True, None, []),
        )

    def test_a_password_is_not_repeated(self) -> None:
        """The message is going to be in a log."""
        with self.assertRaises(ValueError) as raised:
            addresses.base_url("https://user:hunter2@x")
        self.assertNotIn("hunter2", str(raised.exception))

    def test_origins(self) -> None:
        """As browsers send them, to the letter."""
        for good in (
            "*",
            "https://app.example.com",
            "http://localhost:3000",
            "chrome-extension://abc",
            "http://[::1]:3",
        ):
            self.assertEqual(addresses.origin(good), good)
        self.refused(addresses.origin, "", "app.example.com", "null", "https://", "https://*.x.com", "https://x\n", 1)
        self.told(
            addresses.origin,
            "https://App.example.com/",
            '"https://App.example.com/" is not an origin (try https://app.example.com)',
        )
        self.told(
            addresses.origin,
            "https://x.com:443",
            '"https://x.com:443" never matches: browsers leave that port out (try https://x.com)',
        )

    def test_endpoints_to_listen_on(self) -> None:
        """Twisted's; what is meant is guessed where it can be."""
        for good in ("tcp:8080", "tcp:port=80:interface=127.0.0.1", "unix:/run/x.sock", "systemd:domain=INET:index=0"):
            self.assertEqual(addresses.listen(good), good)
        self.refused(addresses.listen, "", "8080", ":8080", "tcp:", "tcp:x", "tcp:70000", "tcp:80 ", "::1:80", 8080)
        for bad, meant in {
            "8080": "tcp:8080",
            ":8080": "tcp:8080",
            "0.0.0.0:8080": "tcp:8080:interface=0.0.0.0",
            "localhost:80": "tcp:80:interface=127.0.0.1",
            "http://localhost:80/": "tcp:80:interface=127.0.0.1",
        }.items():
            self.told(addresses.listen, bad, f'"{bad}" is not an endpoint (try {meant})')

    def test_endpoints_with_many_certificates(self) -> None:
        """In Twisted's C{tls} the folder comes first, and the port may be left out."""
        for good in ("tls:/etc/pems", "tls:/etc/pems:8443", "tls:path=/etc/pems:port=8443", "tls:port=1:path=/a"):
            self.assertEqual(addresses.listen(good), good)
        self.refused(addresses.listen, "tls:/etc/pems:x", "tls:/etc/pems:70000", "tls:8443:/etc/pems")

    def test_networks(self) -> None:
        """Of both families; host bits are a mistake."""
        self.assertEqual(addresses.network("10.0.0.0/8"), "10.0.0.0/8")
        self.assertEqual(addresses.network("::1"), "::1/128")
        self.refused(addresses.network, "10.0.0.1/8", "10.0.0.0/40", "example.com", "", 10)

    def test_databases(self) -> None:
        """A scheme at least; the rest is the driver's."""
        self.assertEqual(addresses.store_url("postgresql+psycopg://h/d"), "postgresql+psycopg://h/d")
        self.refused(addresses.store_url, "", "data/x.db", "sqlite:x", 1)
        for url in ("mysql+pymysql://u:secret@h/d", "mysql://u:secret@h/d", "mariadb://u:secret@h/d"):
            with self.assertRaisesRegex(
                ValueError, "^m[a-z+]+ is not supported: the store is SQLite or PostgreSQL"
            ) as e:
                addresses.store_url(url)
            self.assertNotIn("secret", str(e.exception))
        self.assertEqual(addresses.redis_url("rediss://:pw@h:1/2"), "rediss://:pw@h:1/2")
        self.refused(addresses.redis_url, "", "localhost:6379", "http://h", "redis://", "redis://h:x", "redis://a b")
