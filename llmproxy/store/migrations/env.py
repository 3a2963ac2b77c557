"""Run by Alembic for every upgrade, on the connection that L{llmproxy.store.migrate} holds.

The numbers of the versions only give their order: there is no 0007.
"""

from alembic import context

from llmproxy.store.sqlite_file import VERSION_TABLE
from llmproxy.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
