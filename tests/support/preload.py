"""What every daemon of the tests imports, read once by the server from which they are forked."""

import gc
import re
import sys

import alembic.command  # noqa: F401
import pytest  # noqa: F401  # multiprocessing imports the main module anew in each child
import sqlalchemy.dialects.sqlite  # noqa: F401

import llmproxy.app
import llmproxy.cli
import llmproxy.cli.daemon
import llmproxy.simulator.tap
import llmproxy.store.migrate
import llmproxy.tap

# What a daemon reads when it is first asked for: most tests ask for it.
import llmproxy.web.admin.pages
import llmproxy.web.admin.rendering
import llmproxy.web.admin.tree
import llmproxy.web.manage.tree
import llmproxy.wire.reactor  # noqa: F401
from llmproxy.metering.price_list import get_snapshot

for provider in get_snapshot().providers:
    re.match(provider.api_pattern, "")  # compiled, and kept

# A reactor that is there before the fork would be shared by all that are forked.
assert "twisted.internet.reactor" not in sys.modules

# No collection in a child looks at what is here, nor copies its pages.
gc.collect()
gc.freeze()
