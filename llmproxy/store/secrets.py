"""The state directory: secrets that the first start makes and every later start finds."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from llmproxy.store.errors import UnsafeSecret


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and where it lives.

    @ivar path: The file it was read from or written to; C{None} where it was given.
    @ivar made: Whether it was made just now.
    """

    value: str = field(repr=False)
    path: Path | None
    made: bool


def load_or_make(
    state_dir: str | Path,
    given: str | None,
    name: str,
    random: Callable[[int], bytes],
    before: Callable[[Path], object] = str,
) -> Secret:
    """What was given; else what the file C{name} in the state directory holds; else a new one, kept there.

    @param before: Called with the file's path when a new one is about to be made; may refuse.

    The directory is made with mode 0700 and the file with 0600. L{UnsafeSecret} where the file is readable by
    others, empty, or no plain file.
    """
    if given is not None and given.strip():
        return Secret(given.strip(), None, False)
    path = Path(state_dir).absolute() / name
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = read_secret(path)
        if found is None:
            before(path)
            found = _make(path, random)
        return found
    except OSError as e:
        raise UnsafeSecret(f"The secret {path} cannot be read or made: {e.strerror}.") from e


def read_secret(path: Path) -> Secret | None:
    """What the file holds, C{None} where it is not there; L{UnsafeSecret} as L{load_or_make}."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(opened, encoding="utf-8", errors="replace") as file:
        _refuse_unsafe(path, os.fstat(opened))
        value = file.read(4096).strip()
    if not value:
        raise UnsafeSecret(
            f"The secret {path} is empty. Put back what it held, or, where nothing needs that any more, remove the "
            "file to have a new one made."
        )
    return Secret(value, path, False)


def _refuse_unsafe(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeSecret(f"The secret {path} is not a plain file.")
    if found.st_mode & 0o077:
        raise UnsafeSecret(f"The secret {path} can be read or changed by other users. Run: chmod 600 {path}")
    # Root may start it for another user (twistd --uid), whose folder that is: he could put any file there.
    if found.st_uid not in (os.geteuid(), 0, path.parent.stat().st_uid):
        raise UnsafeSecret(f"The secret {path} belongs to another user. Run: chown {os.geteuid()} {path}")


def _make(path: Path, random: Callable[[int], bytes]) -> Secret:
    """Write it under a name of its own, then link: whoever else starts now sees all of it or nothing."""
    value = base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode()
    draft = path.with_name(f".{path.name}.{random(8).hex()}")
    try:
        _write(draft, value)
        os.link(draft, path)
    except FileExistsError:
        found = read_secret(path)
        if found is None:
            raise UnsafeSecret(f"The secret {path} came and went while it was being read.") from None
        return found
    finally:
        draft.unlink(missing_ok=True)
    _sync_directory(path.parent)
    return Secret(value, path, True)


def replace_secret(path: Path, value: str) -> None:
    """Put this in the place of what the file holds, at once and durably; whoever reads has one or the other."""
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    status = path.stat()
    try:
        _write(draft, value)
        if os.geteuid() == 0:
            os.chown(draft, status.st_uid, status.st_gid)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _write(path: Path, value: str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(opened, "w", encoding="utf-8") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(opened)


def _sync_directory(directory: Path) -> None:
    """Without this a power cut may take the encryption key and leave the database that needs it."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
