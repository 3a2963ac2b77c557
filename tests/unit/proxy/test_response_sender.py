"""This proxy's own lines of direct responses are those of all others, whatever way they are made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.model import Server
from llmproxy.proxy.response_sender import ResponseSender, timing_lines

SHORT = st.floats(0, 0.0002) | st.sampled_from([0.0, 0.00005, 0.000049, 0.0000490001, 0.00004999])


class DirectLinesTests(SynchronousTestCase):
    @given(st.floats(0, 1e6) | st.just(0.0), SHORT, SHORT, SHORT | st.floats(0, 100), st.booleans(), st.booleans())
    def test_times(
        self, arrived: float, auth: float, queue: float, upstream: float, stream: bool, cached: bool
    ) -> None:
        """To a tenth of a millisecond, whether it has waited for anything or not."""
        authorized = arrived + auth
        sent = authorized + queue
        first = sent + upstream
        sender = ResponseSender(Server(debug_headers=True), Clock())
        cache = "bypass" if cached else "disabled"
        lines = sender.direct_lines("r1", cache, arrived, authorized, sent, first, stream=stream).split(b"\r\n")
        self.assertEqual(b"\r\n".join(lines[-2:]), timing_lines(arrived, authorized, sent, first))
        self.assertEqual(lines[0], b"X-Request-ID: r1")
        self.assertEqual(b"X-Accel-Buffering: no" in lines, stream)
        self.assertIn(b"X-Cache-Status: %b" % cache.encode(), lines)

    def test_without_debugging_fields(self) -> None:
        sender = ResponseSender(Server(debug_headers=False), Clock())
        for stream, more in ((False, b""), (True, b"\r\nX-Accel-Buffering: no")):
            lines = sender.direct_lines("r1", "disabled", 1.0, 1.0, 1.0, 2.0, stream=stream)
            self.assertEqual(lines, b"X-Request-ID: r1" + more)
