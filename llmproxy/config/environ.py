"""The environment: settings that stand above the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import get_origin

from llmproxy.config.external_text import ExternalText
from llmproxy.config.fields import Leaf, leaves
from llmproxy.config.problems import Location, Path, did_you_mean
from llmproxy.config.secret_variables import PREFIX, SECRETS

# Names that other proxies of this kind use; ours stand above them.
ALIASES: Mapping[str, Path] = {
    "HTTP_CACHE_ENABLED": ("cache", "enabled"),
    "HTTP_CACHE_BACKEND": ("cache", "backend"),
    "REDIS_CACHE_URL": ("redis", "url"),
    "REDIS_CACHE_KEY_PREFIX": ("redis", "key_prefix"),
}
_ELSEWHERE = ("LLMPROXY_URL", "LLMPROXY_TOKEN")  # of the command line, and of clients as the manual has them


def variable(leaf: Leaf) -> str | None:
    """The name of the variable that sets it, or C{None} where only the file can: APIs and sinks."""
    if "<name>" in leaf.path or 0 in leaf.path or get_origin(leaf.info.annotation) is dict:
        return None
    return PREFIX + "_".join(str(step).upper() for step in leaf.path)


@cache
def variables() -> Mapping[str, Path]:
    """The names of all variables that set something, and what each sets."""
    return {name: leaf.path for leaf in leaves() if (name := variable(leaf))}


def settings(environ: Mapping[str, str]) -> Iterator[tuple[Path, ExternalText, Location]]:
    """What the environment says, the weightier last. An empty variable is as good as none."""
    for name, path in {**ALIASES, **variables()}.items():
        if environ.get(name):
            yield path, ExternalText(environ[name]), Location(name)


def unknown_variables(environ: Mapping[str, str], mentioned: str = "") -> list[str]:
    """What to say of variables that look like ours and set nothing, a sentence each.

    @param mentioned: The settings file's text: what stands there as C{${NAME}} is used.
    """
    secrets = [PREFIX + name + end for name in SECRETS for end in ("", "_FILE")]
    known = [*variables(), *secrets, *_ELSEWHERE]
    return [
        f"The variable {name} sets nothing{did_you_mean(name, known, upper=True)}."
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known and f"${{{name}" not in mentioned
    ]
