"""What is too long for memory, into a file: all of it or nothing, with a bar on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click


def in_place(path: Path, parts: Iterable[bytes]) -> None:
    """Write them to a file, which is there only once all of them are; one that was there is replaced."""
    draft = path.with_name(path.name + ".part")
    try:
        with open(draft, "wb") as file:
            file.writelines(parts)
        os.replace(draft, path)
    except OSError as e:
        raise click.FileError(str(path), e.strerror or str(e)) from e
    finally:
        draft.unlink(missing_ok=True)


def with_progress(parts: Iterable[bytes], total: int | None) -> Iterator[bytes]:
    """The same parts; on a terminal with a bar on standard error, which counts lines.

    @param total: How many lines there will be; C{None} where nobody knows: then it shows that something moves.
    """
    if not sys.stderr.isatty():
        yield from parts
    elif total is None:
        with click.progressbar(parts, label="Exporting", file=sys.stderr, show_pos=True) as bar:
            yield from bar
    else:
        with click.progressbar(
            length=total, label="Exporting", file=sys.stderr, show_pos=True, show_percent=True
        ) as rows:
            for part in parts:
                yield part
                rows.update(min(part.count(b"\n"), max(0, total - rows.pos)))
            rows.update(total - rows.pos)


def json_array(pages: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Rows as one array of JSON, a line for each."""
    before = b"[\n"
    for rows in pages:
        if rows:
            yield before + b",\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
            before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"
