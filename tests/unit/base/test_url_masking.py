"""What of a URL may be shown."""

from __future__ import annotations

import time
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base.url_masking import mask_url, mask_urls

PASSWORD = "hunter22"
around = st.text("ab/@:?#=%[] \n\\é.", max_size=6)
without_amp = st.text("ab/@:?#=;%[] \n\\é.", max_size=6)
user = st.text("ab@:/?#%.", max_size=4)
scheme = st.sampled_from(["postgresql://", "redis:/", "redis:", "//", "https:///", "jdbc:postgresql://", " http://"])


class MaskUrl(TestCase):
    def test_examples(self) -> None:
        for url, shown in (
            ("redis://u:p@h:6379/0", "redis://***@h:6379/0"),
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("postgresql+psycopg://u:hun@ter22@h/db", "postgresql+psycopg://***@h/db"),
            ("postgresql://u:hun/ter22@h/db", "postgresql://***@h/db"),
            ("postgresql://u@h/db?password=p&sslmode=require", "postgresql://***@h/db?password=***&sslmode=***"),
            ("postgresql:///db?host=/run&password=a@b", "postgresql:///***"),
            ("postgresql://u:a?b@h/db", "postgresql://***"),
            ("redis:/:p@h/0", "redis:/***@h/0"),
            ("https://h/x?token", "https://h/x?***"),
            ("https://h/x#token=a", "https://h/x#token=***"),
            ("u:p@h:3128", "u:***@h:3128"),
            ("sqlite:///data/a.db", "sqlite:///data/a.db"),
            ("tcp:8080:interface=127.0.0.1", "tcp:8080:interface=127.0.0.1"),
            ("/v1/models/claude@2024?beta=true", "/v1/models/claude@2024?beta=true"),
            ("ft:gpt-4?:org", "ft:gpt-4?:org"),
            ("jdbc:postgresql://u@h?password=p", "jdbc:***@h?password=***"),
            ("", ""),
        ):
            with self.subTest(url):
                self.assertEqual(mask_url(url), shown)

    @given(scheme, user, around, around, st.sampled_from(["", "/db", ":1/db?sslmode=on", "/?a=b@c"]))
    def test_no_password_survives(self, scheme: str, user: str, before: str, after: str, rest: str) -> None:
        """Whatever stands around it, as long as it is before an at sign."""
        shown = mask_url(f"{scheme}{user}:{before}{PASSWORD}{after}@host{rest}")
        self.assertNotIn(PASSWORD, shown)
        self.assertTrue(shown.startswith(scheme.split(":")[0]) or scheme == "//")

    @given(scheme.filter(lambda each: "//" in each), user, without_amp, without_amp, st.sampled_from(["", "&x=1"]))
    def test_no_query_survives(self, scheme: str, user: str, before: str, after: str, rest: str) -> None:
        for url in (
            f"{scheme}{user}@host/db?password={before}{PASSWORD}{after}{rest}",
            f"{scheme}host/db?a=1&password={before}{PASSWORD}{after}{rest}",
        ):
            self.assertNotIn(PASSWORD, mask_url(url))

    @given(scheme, st.text("ab@:/?#%", max_size=4), st.text("ab@:/?#%", max_size=6))
    def test_in_a_sentence(self, scheme: str, before: str, after: str) -> None:
        said = mask_urls(f'Error: "{scheme.strip()}u:{before}{PASSWORD}{after}@h" is away, says a@b.')
        self.assertNotIn(PASSWORD, said)
        self.assertTrue(said.startswith("Error: ") and said.endswith(" is away, says a@b."))

    def test_long_texts(self) -> None:
        """They are looked at once, not once for each slash: that would take seconds."""
        began = time.thread_time()
        for text in ("/" * 30_000, "/" * 30_000 + "@", "a:/" * 10_000, "?" * 30_000, "://" * 10_000 + "?&" * 10_000):
            mask_url(text)
            mask_urls(text)
        self.assertLess(time.thread_time() - began, 0.5)
