"""What the tests share: one stack for all that do not stop or overload it, one PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgreSQL
from tests.support.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """Whoever pauses it lets it go on; C{url()} makes a database for each test."""
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.stop()
