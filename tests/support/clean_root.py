"""A Dockerfile's steps, run in roots of their own: there is no need for Docker.

A root has the system's programs and libraries, read-only, and this Python in C{/usr/local} as the images of Python have
it. All else in it is what the steps have put there. Processes run as in a container: the first of their own process
numbers, without capabilities where they are not root, and, once built, with a root that nobody can write.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib64")
_CONFIGURATION = ("ssl", "xdg", "resolv.conf", "hosts", "nsswitch.conf", "passwd", "group", "pip.conf", "alternatives")
_ENTER = """
set -e
mount --bind "$R" "$R"
mkdir -p "$R/usr" "$R/proc" "$R/dev" "$R/tmp" "$R/etc" "$R/opt"
for each in bin sbin lib lib64; do
    if [ -L "/$each" ]; then [ -e "$R/$each" ] || cp -P "/$each" "$R/$each"
    elif [ -d "/$each" ]; then mkdir -p "$R/$each"; mount --bind -o ro "/$each" "$R/$each"; fi
done
mount --rbind -o ro /usr "$R/usr"
[ "$PREFIX" = /usr ] || mount --bind -o ro "$PREFIX" "$R/usr/local"
for each in $CONFIGURATION; do
    [ -e "/etc/$each" ] || continue
    if [ -d "/etc/$each" ]; then mkdir -p "$R/etc/$each"; else [ -e "$R/etc/$each" ] || touch "$R/etc/$each"; fi
    mount --bind -o ro "$(readlink -f "/etc/$each")" "$R/etc/$each"
done
if [ -n "$READ_ONLY" ]; then
    [ -z "$VOLUME" ] || mount --bind "$R$VOLUME" "$R$VOLUME"
    mount -o remount,bind,ro "$R"
else
    for each in /opt/*; do
        [ -e "$each" ] && [ ! -e "$R$each/bin" ] || continue
        mkdir -p "$R$each"; mount --rbind -o ro "$each" "$R$each"
    done
fi
if [ -n "$CACHE" ]; then mkdir -p "$PIP_CACHE" "$R$CACHE"; mount --bind "$PIP_CACHE" "$R$CACHE"; fi
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
mount -t proc proc "$R/proc"
mount --rbind /dev "$R/dev"
exec setpriv --no-new-privs chroot --userspec="$AS" "$R" /usr/bin/env -i "$@"
"""


@dataclass
class Image:
    """What the last stage of a Dockerfile has made.

    @ivar home: The folder of its root.
    """

    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = "0:0"
    volume: str = ""
    command: Sequence[str] = ()
    health_check: Sequence[str] = ()
    stop_signal: str = "SIGTERM"

    def argv(self, command: Sequence[str], environ: Mapping[str, str], read_only: bool, cache: str = "") -> list[str]:
        """What runs this command in it.

        @param cache: Where pip keeps what it has loaded; its own of this system is there.
        """
        given = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": "/usr/local/lib", "HOME": "/tmp"}
        variables = [f"{name}={value}" for name, value in {**given, **self.environ, **environ}.items()]
        inside = f"cd {shlex.quote(self.directory)} && exec {shlex.join(command)}"
        terms = {
            "R": str(self.home), "AS": self.user, "PREFIX": sys.base_prefix, "CONFIGURATION": " ".join(_CONFIGURATION),
            "CACHE": cache,
            "PIP_CACHE": os.path.expanduser("~/.cache/pip"),
            "READ_ONLY": "yes" if read_only else "", "VOLUME": self.volume,
        }  # fmt: skip
        outside = ["env", *(f"{name}={value}" for name, value in terms.items())]
        entered = ["sh", "-c", _ENTER, "sh", *variables, "sh", "-c", inside]
        return [*outside, "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", *entered]


def build(dockerfile: Path, context: Path, home: Path) -> Image:
    """The image, its steps run; skips, and says why, where this system does not let a test do so."""
    if os.geteuid():
        pytest.skip("Only root can make a root of its own.")
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"There can be no namespaces here: {tried.stderr.decode().strip()}")
    stages: dict[str, Image] = {}
    image = Image(home)
    for name, rest in instructions(dockerfile.read_text()):
        if name == "FROM":
            stage = rest.partition(" AS ")[2] or str(len(stages))
            image = stages[stage] = Image(home / stage)
            image.home.mkdir(parents=True)
        else:
            _apply(image, name, rest, context, stages)
    return image


def _apply(image: Image, name: str, rest: str, context: Path, stages: Mapping[str, Image]) -> None:
    if name == "WORKDIR":
        image.directory = rest
        (image.home / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif name == "RUN":
        given = {
            each: value for each, value in os.environ.items() if each.startswith("PIP_") or "proxy" in each.lower()
        }
        cached = re.match(r"--mount=type=cache,target=(\S+)\s+", rest)
        cache = cached[1] if cached else ""
        command = ["sh", "-c", rest[cached.end() :] if cached else rest]
        argv = image.argv(command, {"HOME": "/root", **given}, False, cache)
        run = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"RUN {rest}\n{run.stdout}\n{run.stderr}"
    elif name == "COPY":
        _copy(image, rest.split(), context, stages)
    elif name == "ENV":
        image.environ.update(pair.split("=", 1) for pair in shlex.split(rest))
    elif name == "USER":
        image.user = rest
    elif name == "VOLUME":
        image.volume = rest
    elif name == "CMD":
        image.command = json.loads(rest)
    elif name == "HEALTHCHECK":
        image.health_check = json.loads(rest.partition(" CMD ")[2])
    elif name == "STOPSIGNAL":
        image.stop_signal = rest
    else:
        assert name == "EXPOSE", f"{name} is none that this knows."


def _copy(image: Image, words: list[str], context: Path, stages: Mapping[str, Image]) -> None:
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).partition("=")[2]].home
    *paths, target = words
    to = image.home / os.path.join(image.directory, target).lstrip("/")
    for path in paths:
        found = source / path.lstrip("/")
        if found.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "dropin.cache") if source == context else None
            shutil.copytree(found, to, symlinks=True, ignore=ignored)
        else:
            final = to / found.name if target.endswith("/") else to
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, final)


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and rest of each, continued lines put together, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1].strip()) for line in whole.splitlines() if line]


def children(pid: int) -> list[tuple[int, str]]:
    """The processes whose parent this is, zombies too: ids and states."""
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            state, parent = (each / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid:
                found.append((int(each.name), state))
    return found
