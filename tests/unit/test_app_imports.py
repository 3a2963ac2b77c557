"""What a daemon that only serves requests does not import."""

from __future__ import annotations

import subprocess
import sys
import unittest
from functools import cache

# What is imported when it is needed: an upgrade of the database, a log for a console.
LATE = ("alembic", "mako", "rich", "structlog")
SHOW = "import sys, llmproxy.app; print(*sys.modules)"
# The models whose validators are made by then, but for those of which a field has one as its default.
# (Of a model that waits, pydantic says that it is not complete.)
MADE = """
import pydantic

def models(kind):
    for each in kind.__subclasses__():
        yield each
        yield from models(each)

ours = [each for each in models(pydantic.BaseModel) if each.__module__.startswith("llmproxy.")]
defaults = {type(field.default) for each in ours for field in each.model_fields.values()}
waiting = [each for each in ours if each not in defaults]
print(len(waiting), *(each.__qualname__ for each in waiting if each.__pydantic_complete__))
"""
REACTOR = """
import llmproxy.redis
print("twisted.internet.reactor" in sys.modules)
"""
APP = SHOW + MADE + REACTOR
# What a supervisor of several workers has no use for: it serves nothing, and has no database open.
SERVING = (
    "llmproxy.app",
    "llmproxy.process.daemon",
    "llmproxy.store.store",
    "llmproxy.wire.server",
    "twisted.web.server",
)
SUPERVISOR = """
import sys, llmproxy.tap, llmproxy.composition.supervision, twisted.plugins.llmproxy_plugin
print(*sys.modules)
"""


@cache
def ran(code: str) -> list[str]:
    """What it prints in a process of its own, line by line."""
    return subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()  # fmt: skip


class ImportTests(unittest.TestCase):
    def test_what_no_request_needs(self) -> None:
        """The daemon starts without the modules that only upgrades and consoles use."""
        loaded = set(ran(APP)[0].split())
        self.assertIn("llmproxy.app", loaded)
        self.assertEqual(sorted(loaded.intersection(LATE)), [])

    def test_no_reactor(self) -> None:
        """C{twistd} chooses the reactor; importing this, and the client of Redis, must not do it before."""
        self.assertEqual(ran(APP)[2], "False")

    def test_supervisor(self) -> None:
        """A supervisor has nothing imported of what serves requests: it takes 7 MB less."""
        loaded = set(ran(SUPERVISOR)[0].split())
        self.assertIn("llmproxy.process.supervisor", loaded)
        self.assertEqual(sorted(loaded.intersection(SERVING)), [])

    def test_validators(self) -> None:
        """Sections of the settings have no validators of their own: there is one, made when settings are read."""
        count, *made = ran(APP)[1].split()
        self.assertGreater(int(count), 10)
        self.assertEqual(made, [])
