"""L{llmproxy.base.collector}, in a process of its own: what is frozen there stays frozen."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest
from typing import Any

# What collections there are while the daemon is imported, as twistd does it, and whether they may look at all that.
IMPORTED = """
import gc, json, twisted.scripts.twistd
seen = [0, 0, 0]
gc.callbacks.append(lambda phase, about: seen.__setitem__(about["generation"], seen[about["generation"]] + 1))
import twisted.plugins.llmproxy_plugin, llmproxy.tap
at_import = list(seen)
gc.collect()
print(json.dumps([at_import, gc.get_freeze_count(), len(gc.get_objects()), gc.isenabled()]))
"""
NESTED = """
import gc, json
from llmproxy.base.collector import uncollected
states = []
with uncollected():
    states.append(gc.isenabled())
    with uncollected():
        states.append(gc.isenabled())
    states.append(gc.isenabled())
try:
    with uncollected():
        raise KeyError
except KeyError:
    states.append(gc.isenabled())
gc.disable()
with uncollected():
    pass
print(json.dumps([*states, gc.isenabled()]))
"""


def _printed(program: str) -> Any:
    command = (sys.executable, "-c", program)
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


class CollectorTests(unittest.TestCase):
    def test_imports(self) -> None:
        """While the daemon is imported nothing is looked at for garbage, nor is it ever afterwards."""
        (_, older, oldest), frozen, followed, enabled = _printed(IMPORTED)
        self.assertEqual((older, oldest), (0, 0))
        self.assertGreater(frozen, 10 * followed)
        self.assertTrue(enabled)

    def test_left(self) -> None:
        """Afterwards, also where it fails, the collector is as it was before: also where it was off."""
        self.assertEqual(_printed(NESTED), [False, False, False, True, False])
