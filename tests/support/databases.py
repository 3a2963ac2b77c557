"""Databases that have their tables already: made once in a process, then copied; making them takes 0.2 s each."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from llmproxy.store.engines import parse_store_url
from llmproxy.store.migrate import prepare

TEMPLATE_DATABASE = "migrated"  # on a PostgreSQL server


def migrate(url: str) -> None:
    """Make the tables, as the first start of a daemon does."""
    prepare(parse_store_url(url), lambda connection: None)


def migrated_sqlite(path: Path) -> str:
    """Make a SQLite database without rows there; its URL."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(_sqlite())
    path.chmod(0o600)
    return f"sqlite:///{path}"


@cache
def _sqlite() -> bytes:
    folder = Path(tempfile.mkdtemp(prefix="llmproxy-template-"))
    try:
        migrate(f"sqlite:///{folder}/llmproxy.db")
        files = {file.name: file.stat().st_size for file in folder.glob("llmproxy.db*")}
        assert not files.get("llmproxy.db-wal"), "what is in the journal would be missing in a copy"
        return (folder / "llmproxy.db").read_bytes()
    finally:
        shutil.rmtree(folder)
