"""What a daemon that only serves requests does not import."""

from __future__ import annotations

import subprocess
import sys
import unittest

# What is imported when it is needed: an upgrade of the database, a log for a console.
LATE = ("alembic", "mako", "rich", "structlog")
# The models whose validators are made by then, but for those of which a field has one as its default.
# (Of a model that waits, pydantic says that it is not complete.)
MADE = """
import llmproxy.app, pydantic

def models(kind):
    for each in kind.__subclasses__():
        yield each
        yield from models(each)

ours = [each for each in models(pydantic.BaseModel) if each.__module__.startswith("llmproxy.")]
defaults = {type(field.default) for each in ours for field in each.model_fields.values()}
waiting = [each for each in ours if each not in defaults]
print(len(waiting), *(each.__qualname__ for each in waiting if each.__pydantic_complete__))
"""
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
print(*sorted(sys.modules), sep='\\n')
"""
SHOW = "import sys, llmproxy.app; print(*sorted(sys.modules), sep='\\n')"


class ImportTests(unittest.TestCase):
    def test_what_no_request_needs(self) -> None:
        """The daemon starts without the modules that only upgrades and consoles use."""
        run = subprocess.run((sys.executable, "-c", SHOW), capture_output=True, text=True, timeout=60, check=True)
        loaded = set(run.stdout.split())
        self.assertIn("llmproxy.app", loaded)
        self.assertEqual(sorted(loaded.intersection(LATE)), [])

    def test_supervisor(self) -> None:
        """A supervisor has nothing imported of what serves requests: it takes 7 MB less."""
        run = subprocess.run((sys.executable, "-c", SUPERVISOR), capture_output=True, text=True, timeout=60, check=True)
        loaded = set(run.stdout.split())
        self.assertIn("llmproxy.process.supervisor", loaded)
        self.assertEqual(sorted(loaded.intersection(SERVING)), [])

    def test_validators(self) -> None:
        """Sections of the settings have no validators of their own: there is one, made when settings are read."""
        run = subprocess.run((sys.executable, "-c", MADE), capture_output=True, text=True, timeout=60, check=True)
        count, *made = run.stdout.split()
        self.assertGreater(int(count), 10)
        self.assertEqual(made, [])
