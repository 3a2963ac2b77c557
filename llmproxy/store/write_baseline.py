"""Writes the script of a new database out of the upgrades: C{python -m llmproxy.store.write_baseline}."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from llmproxy.store import baseline
from llmproxy.store.engines import parse_store_url
from llmproxy.store.migrate import SCRIPTS, prepare


def write(scripts: Path) -> None:
    """Write it beside the upgrades in this directory."""
    (scripts / baseline.NAME).unlink(missing_ok=True)
    with TemporaryDirectory() as folder:
        database = Path(folder) / "new.db"
        prepare(parse_store_url(f"sqlite:///{database}"), lambda _: None, scripts=scripts)
        (scripts / baseline.NAME).write_text(baseline.script(database))


if __name__ == "__main__":
    write(SCRIPTS)
