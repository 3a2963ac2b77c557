"""The reactor passes Twisted's own tests of reactors that concern TCP, timers, threads and descriptors."""

from __future__ import annotations

import unittest
from typing import Any

from twisted.internet.test import test_core, test_fdset, test_socket, test_tcp, test_threads, test_time

NAME = "llmproxy.wire.reactor.LeanEPollReactor"
BUILDERS = (
    test_core.SystemEventTestsBuilder,
    test_fdset.ReactorFDSetTestsBuilder,
    test_socket.AdoptStreamPortErrorsTestsBuilder,
    test_socket.IReactorSocketVerificationTestsBuilder,
    test_tcp.AbortConnectionTests,
    test_tcp.AdoptStreamConnectionTestsBuilder,
    test_tcp.TCP4ClientTestsBuilder,
    test_tcp.TCP4ConnectorTestsBuilder,
    test_tcp.TCPConnectionTestsBuilder,
    test_tcp.TCPFDPortTestsBuilder,
    test_tcp.TCPPortTestsBuilder,
    test_tcp.TCPTransportTestsBuilder,
    test_threads.ThreadTestsBuilder,
    test_time.TimeTestsBuilder,
)
LEFT_OUT = {
    "test_logPrefix": "there is no logging context around a read: that is the point",
    "test_lostFileDescriptor": "epoll does not notice; Twisted leaves its own EPollReactor out by name",
    "test_badContext": "TLS with a context of a kind that Twisted warns of",
}


def _cases() -> dict[str, Any]:
    """Each of Twisted's builders, for this reactor alone."""
    made = {}
    for builder in BUILDERS:
        skipped = {
            name: unittest.skip(why)(lambda self: None) for name, why in LEFT_OUT.items() if hasattr(builder, name)
        }
        ours = type(builder.__name__, (builder,), {"_reactors": [NAME], **skipped})
        made.update(ours.makeTestCaseClasses())
    return made


globals().update(_cases())
