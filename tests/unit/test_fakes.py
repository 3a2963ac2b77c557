"""The stand-ins keep the promises that they stand in for."""

from __future__ import annotations

import unittest

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from llmproxy.interfaces import IAuditLogger, IProjectStore, ITokenStore
from tests.support.fakes import MemoryAudit, MemoryStore


class FakesTests(unittest.TestCase):
    def test_they_keep_their_promises(self) -> None:
        """What passes with the stand-ins can pass with the real ones."""
        store = MemoryStore(Clock())
        for promise, stand_in in ((IProjectStore, store), (ITokenStore, store), (IAuditLogger, MemoryAudit())):
            self.assertTrue(verifyObject(promise, stand_in))
