"""Commands that work on the database and the files beside it, without the daemon: how they end where that fails."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from llmproxy.cli.errors import Misconfigured
from llmproxy.config.problems import SettingsError
from llmproxy.sealing import CannotOpen
from llmproxy.store.archive import NotAsArchived
from llmproxy.store.errors import StartupError


@contextmanager
def store_errors(file: Path | None = None) -> Iterator[None]:
    """End with 78, and say why, where it cannot be done.

    @param file: What is read, to be named where the error does not.
    """
    try:
        yield
    except DBAPIError as e:
        raise Misconfigured(f"The database has refused: {' '.join(str(e.orig).split())}") from e
    except (EOFError, tarfile.TarError) as e:
        raise Misconfigured(_named(file, str(e) or "it ends too early")) from e
    except OSError as e:
        place = e.filename if isinstance(e.filename, str | Path) else file
        raise Misconfigured(_named(place, e.strerror or str(e))) from e
    except (SettingsError, StartupError, NotAsArchived, ValueError, KeyError, SQLAlchemyError, CannotOpen) as e:
        raise Misconfigured(str(e)) from e


def _named(file: str | Path | None, reason: str) -> str:
    return f"{file}: {reason}" if file is not None else reason
