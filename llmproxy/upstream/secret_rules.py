"""Which secrets provider keys may refer to. Pure, but for files, which are read here.

The rules are the daemon's settings, so that nobody who may merely set a provider key can have this process read any
file or variable, and send what is in it to a provider.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from llmproxy.base.secret_reference import SecretReference

MAX_FILE_BYTES = 8192
MAX_REFERENCE_CHARACTERS = 1024

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = re.compile(r"LLMPROXY_.*|(MANAGEMENT_TOKEN|ENCRYPTION_KEY)(_FILE)?", re.DOTALL)
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


class SecretMissing(Exception):
    """There is no secret where a reference points; the text says why, and has nothing of any secret."""


class FileStamp(NamedTuple):
    """By what a file is known to be the same; a file that is put in place of another has another inode."""

    device: int
    inode: int
    size: int
    modified_ns: int


class SecretRules:
    """What references may point to."""

    def __init__(
        self, environment: Iterable[str], directories: Iterable[str], stores: Collection[str], own_files: Iterable[str]
    ) -> None:
        """
        @param environment: Globs of variables; C{directories}: absolute; C{stores}: names of plugins.
        @param own_files: Those of this process's own secrets, which no provider may be sent.
        """
        self._environment = tuple(environment)
        self._directories = tuple(directories)
        self._schemes = frozenset({"env", "file", *stores})
        self._own_files = tuple(own_files)

    def reference(self, text: str) -> SecretReference | None:
        """C{text} as a reference; C{None} where it is none, and so a key. L{ValueError}: one that is not allowed."""
        scheme, colon, _ = text.partition(":")
        if not colon or scheme not in self._schemes:
            return None
        self.check(text)
        return SecretReference(text)

    def check(self, text: str) -> None:
        """L{ValueError} says why this reference is not allowed. Looks at no file and no variable: nobody learns which
        there are."""
        scheme, _, name = text.partition(":")
        if scheme not in self._schemes:
            raise ValueError(f"{scheme} is none of secrets.stores")
        if not name or len(text) > MAX_REFERENCE_CHARACTERS or not text.isprintable():
            raise ValueError(f"must be {scheme}: and a name, at most {MAX_REFERENCE_CHARACTERS} characters")
        if scheme == "env":
            self._check_variable(name)
        elif scheme == "file":
            self._check_path(name)

    def _check_variable(self, name: str) -> None:
        if not _VARIABLE.fullmatch(name):
            raise ValueError("is not the name of an environment variable (try env:OPENAI_API_KEY)")
        if _OURS.fullmatch(name) or not any(fnmatchcase(name, glob) for glob in self._environment):
            raise ValueError(f"secrets.environment does not allow the variable {name}")

    def _check_path(self, path: str) -> None:
        if not os.path.isabs(path) or os.path.normpath(path) != path:
            raise ValueError("must be the plain absolute path of a file (try file:/run/secrets/openai)")
        if not any(_is_below(path, directory) for directory in self._directories):
            raise ValueError(f"secrets.directories does not allow the file {path}")

    def variable(self, name: str, environ: Mapping[str, str]) -> str:
        """What the variable holds."""
        if not environ.get(name):
            raise SecretMissing("the variable is not set")
        return as_key(environ[name])

    def file(self, path: str) -> tuple[str, FileStamp]:
        """What the file holds, and its stamp. Blocks."""
        try:
            opened = os.open(self._real(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                status = os.fstat(opened)
                if not stat.S_ISREG(status.st_mode):
                    raise SecretMissing("it is not a plain file")
                content = os.read(opened, MAX_FILE_BYTES)
            finally:
                os.close(opened)
        except OSError as e:
            raise SecretMissing(f"the file cannot be read: {_reason(e)}") from e
        return as_key(content.decode("latin-1")), _stamp(status)

    def stamp(self, path: str) -> FileStamp | None:
        """The stamp of what would be read now; C{None} where nothing would be. Blocks."""
        try:
            return _stamp(os.stat(self._real(path)))
        except (OSError, SecretMissing):
            return None

    def _real(self, path: str) -> str:
        """Where the links of this path lead; no further than the directories."""
        real = os.path.realpath(path)
        if not any(_is_below(real, os.path.realpath(directory)) for directory in self._directories):
            raise SecretMissing("it leads out of secrets.directories")
        if any(real == os.path.realpath(own) for own in self._own_files):
            raise SecretMissing("it is a secret of llmproxy itself")
        return real


def as_key(text: str) -> str:
    """The key in this text: one line of visible ASCII. L{SecretMissing} where there is none."""
    key = text.strip()
    if not _KEY.fullmatch(key):
        raise SecretMissing("it is empty" if not key else "it holds no key: one line of visible ASCII, no spaces")
    return key


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")


def _stamp(status: os.stat_result) -> FileStamp:
    return FileStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _reason(error: OSError) -> str:
    return "it is not there" if error.errno == errno.ENOENT else error.strerror or "it cannot be read"
