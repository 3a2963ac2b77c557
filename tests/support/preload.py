"""What every daemon of the tests imports, read once by the server from which they are forked."""

import encodings.idna  # read when a host is first looked up
import encodings.utf_8_sig  # noqa: F401
import gc
import importlib.metadata
import re
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import alembic.command  # noqa: F401
import pytest  # noqa: F401  # multiprocessing imports the main module anew in each child
import sqlalchemy.dialects.sqlite  # noqa: F401
import twisted.plugin
import twisted.scripts.twistd
from twisted.application.service import IServiceMaker

import llmproxy.app
import llmproxy.cli.audit
import llmproxy.cli.daemon
import llmproxy.simulator.tap
import llmproxy.store.migrate
import llmproxy.tap

# What a daemon reads when it is first asked for: most tests ask for it.
import llmproxy.web.admin.pages
import llmproxy.web.admin.rendering
import llmproxy.web.admin.tree
import llmproxy.web.manage.tree
import llmproxy.wire.reactor
from llmproxy.config.load import parse
from llmproxy.metering.price_list import get_snapshot
from llmproxy.store.engines import parse_store_url
from llmproxy.store.migrate import prepare
from llmproxy.web.manage.deferred_model import DeferredModel
from tests.support.databases import migrated_sqlite
from tests.support.stack import SETTINGS

TIMES = 12

# What every start does, often enough for the interpreter to adapt itself to it (PEP 659), which a fork hands down.
# pydantic completes its models meanwhile.
with TemporaryDirectory(prefix="llmproxy-preload-") as folder:
    store = parse_store_url(migrated_sqlite(Path(folder, "llmproxy.db")))
    for _ in range(TIMES):
        parse(SETTINGS.format(home=folder, provider="http://[::1]", port=1, more=""), "", {})
        prepare(store, lambda connection: None)
models = [DeferredModel]
for model in models:
    model.model_rebuild()
    models += model.__subclasses__()
twisted.plugin.getCache = cache(twisted.plugin.getCache)  # no plugin comes while tests run: folders are read once
list(twisted.plugin.getPlugins(IServiceMaker))  # reads their modules
for provider in get_snapshot().providers:
    re.match(provider.api_pattern, "")  # compiled, and kept
for command in (llmproxy.cli.PLACES | llmproxy.cli.audit.PLACES).values():
    command.load()
for endpoint in llmproxy.web.manage.tree.ENDPOINTS:
    llmproxy.web.manage.tree._pattern(endpoint.path)
importlib.metadata.version = cache(importlib.metadata.version)
for distribution in ("llmproxy", "twisted"):
    importlib.metadata.version(distribution)

# A reactor that is there before the fork would be shared by all that are forked.
assert "twisted.internet.reactor" not in sys.modules

# No collection in a child looks at what is here, nor copies its pages.
gc.collect()
gc.freeze()
