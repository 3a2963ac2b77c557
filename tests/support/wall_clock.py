"""A wall clock that a test can set, for a daemon whose other clocks go on."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """Compiles what is preloaded into the daemon, which the C compiler and Linux's linker make possible.

    @ivar env: The variables that a daemon needs to stand on this clock.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("a C compiler makes the clock that can be set")
        library, self._ahead = folder / "wall_clock.so", folder / "ahead"
        self.set(0)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
        self.env: Mapping[str, str] = {"LD_PRELOAD": str(library), "WALL_CLOCK_AHEAD": str(self._ahead)}

    def set(self, ahead: float) -> None:
        """From now on it is so many seconds ahead of the real one, or behind it."""
        with self._ahead.open("r+b" if self._ahead.exists() else "wb") as file:
            file.write(struct.pack("d", ahead))  # the daemon has it mapped: never a file of another size
