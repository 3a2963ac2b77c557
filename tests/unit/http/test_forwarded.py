from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.forwarded import client_address, networks

TRUSTED = networks(("10.0.0.0/8", "::1"))


class ClientAddress(TestCase):
    def test_nobody_is_trusted(self) -> None:
        """What a client writes about itself is not believed."""
        self.assertEqual(client_address("10.0.0.1", [b"X-Forwarded-For: 1.2.3.4"], ()), "10.0.0.1")

    def test_a_peer_that_is_not_trusted(self) -> None:
        self.assertEqual(client_address("192.0.2.1", [b"X-Forwarded-For: 1.2.3.4"], TRUSTED), "192.0.2.1")

    def test_the_first_that_is_not_trusted_from_the_end(self) -> None:
        """What stands before it was written by the client."""
        lines = [b"X-Forwarded-For: 6.6.6.6, 192.0.2.7", b"x-forwarded-for: 10.1.1.1"]
        self.assertEqual(client_address("10.0.0.1", lines, TRUSTED), "192.0.2.7")

    def test_nothing_is_said(self) -> None:
        self.assertEqual(client_address("10.0.0.1", [b"Host: x"], TRUSTED), "10.0.0.1")

    def test_all_are_trusted(self) -> None:
        self.assertEqual(client_address("::1", [b"X-Forwarded-For: 10.0.0.5"], TRUSTED), "10.0.0.5")

    def test_what_is_no_address(self) -> None:
        """Ends what can be believed."""
        lines = [b"X-Forwarded-For: 192.0.2.7, unknown, 10.0.0.5"]
        self.assertEqual(client_address("10.0.0.1", lines, TRUSTED), "10.0.0.5")

    def test_a_unix_socket(self) -> None:
        self.assertEqual(client_address("unix", [b"X-Forwarded-For: 1.2.3.4"], TRUSTED), "unix")

    @given(st.binary())
    def test_anything(self, value: bytes) -> None:
        """Never raises, and never makes an untrusted peer anybody else."""
        client_address("10.0.0.1", [b"X-Forwarded-For: " + value], TRUSTED)
        self.assertEqual(client_address("192.0.2.1", [b"X-Forwarded-For: " + value], TRUSTED), "192.0.2.1")
