from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from llmproxy.caching import LocalHit
from llmproxy.caching.rules.entry import Entry
from llmproxy.proxy.hit_response import MAX_TEMPLATE_HEAD_BYTES, hit_template

ENTRY = Entry(
    code=200, phrase=b"OK", head=b"Content-Type: a/b\r\nX-Of: it", body=b"body", generated_at=0.0, lifetime=60.0
)


def response(
    entry: Entry = ENTRY,
    *,
    age: float = 9.9,
    own_lines: bytes = b"",
    debug_headers: bool = True,
    persistent: bool = True,
) -> bytes:
    hit = LocalHit(entry, age, "fresh", entry.lifetime - age)
    template = hit_template(hit, own_lines, debug_headers=debug_headers, persistent=persistent)
    if debug_headers:
        return template % (hit.age, b"id-1", hit.ttl, 0.04, 1.25, entry.body)
    return template % (hit.age, b"id-1", entry.body)


class Responses(TestCase):
    def test_all_of_it(self) -> None:
        """The stored head, this proxy's own fields, and the body with its length."""
        head = [
            b"HTTP/1.1 200 OK",
            b"Content-Type: a/b",
            b"X-Of: it",
            b"Age: 9",
            b"X-Request-ID: id-1",
            b"X-Cache-Status: hit",
            b"X-Cache-Debug: fresh",
            b"Cache-Status: llmproxy; hit; ttl=50",
            b"Server-Timing: auth;dur=0.0, proxy;dur=1.2",
            b"Content-Length: 4",
        ]
        self.assertEqual(response(), b"\r\n".join([*head, b"", b"body"]))

    def test_own_fields(self) -> None:
        """Those that are the same each time stand before the request's id, whatever is in them."""
        told = b"\r\nAge: 9\r\nVary: Origin\r\nX-100%: 5%d\r\nX-Request-ID: id-1\r\n"
        for debug_headers in (True, False):
            own_lines = b"Vary: Origin\r\nX-100%: 5%d\r\n"
            self.assertIn(told, response(own_lines=own_lines, debug_headers=debug_headers))

    def test_no_debug_fields(self) -> None:
        """Then nothing but its age and the request's id is added."""
        start = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX-Of: it\r\nAge: 9\r\nX-Request-ID: id-1\r\n"
        self.assertEqual(response(debug_headers=False), start + b"Content-Length: 4\r\n\r\nbody")

    def test_a_stream(self) -> None:
        """It is one chunk, and no proxy on its way holds it back."""
        for body, sent in ((b"data: a\n\n", b"9\r\ndata: a\n\n\r\n0\r\n\r\n"), (b"", b"0\r\n\r\n")):
            head, _, rest = response(replace(ENTRY, stream=True, body=body)).partition(b"\r\n\r\n")
            self.assertEqual(rest, sent)
            self.assertIn(b"X-Request-ID: id-1\r\nX-Accel-Buffering: no\r\n", head)
            self.assertTrue(head.endswith(b"\r\nTransfer-Encoding: chunked"), head)

    def test_a_connection_that_ends(self) -> None:
        self.assertIn(b"\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", response(persistent=False))

    def test_what_looks_like_a_place_in_a_template(self) -> None:
        """A provider's percent signs are bytes as any others, in the reason phrase, the head and the body."""
        odd = replace(ENTRY, phrase=b"100%d", head=b"A: %b %(x)s 5%", body=b"%d")
        head, _, body = response(odd).partition(b"\r\n\r\n")
        self.assertEqual(head.split(b"\r\n")[:2], [b"HTTP/1.1 200 100%d", b"A: %b %(x)s 5%"])
        self.assertEqual(body, b"%d")

    def test_what_is_like_another(self) -> None:
        """Equal heads say nothing of each other's body, framing or phrase, in whichever order they come."""
        same = [replace(ENTRY, body=b"longer"), replace(ENTRY, stream=True), replace(ENTRY, phrase=b"Fine"), ENTRY]
        for first in same:
            response(first)
            for entry in same:
                self.assertIn(b"HTTP/1.1 200 %b\r\n" % entry.phrase, response(entry))
                framing = b"Transfer-Encoding: chunked" if entry.stream else b"Content-Length: %d" % len(entry.body)
                self.assertIn(b"\r\n%b\r\n\r\n" % framing, response(entry))

    def test_no_head_or_a_long_one(self) -> None:
        self.assertTrue(response(replace(ENTRY, head=b"")).startswith(b"HTTP/1.1 200 OK\r\nAge: 9\r\n"))
        long = b"A: " + b"a" * MAX_TEMPLATE_HEAD_BYTES
        self.assertTrue(response(replace(ENTRY, head=long)).startswith(b"HTTP/1.1 200 OK\r\n%b\r\nAge: 9\r\n" % long))
