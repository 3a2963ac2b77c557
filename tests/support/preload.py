"""What every daemon of the tests imports, read once by the server from which they are forked."""

import sys

import alembic.command  # noqa: F401
import pytest  # noqa: F401  # multiprocessing imports the main module anew in each child
import twisted.scripts.twistd  # noqa: F401

import llmproxy.app
import llmproxy.simulator.tap
import llmproxy.store.migrate
import llmproxy.tap  # noqa: F401

# A reactor that is there before the fork would be shared by all that are forked.
assert "twisted.internet.reactor" not in sys.modules
