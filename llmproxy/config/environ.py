"""The environment: settings that stand above the file, and secrets that stand in no file of settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import get_origin

from llmproxy.config.external_text import ExternalText
from llmproxy.config.fields import Leaf, leaves
from llmproxy.config.problems import Location, Path, Problem, SettingsError, did_you_mean

PREFIX = "LLMPROXY_"
# Names that other proxies of this kind use; ours stand above them.
ALIASES: Mapping[str, Path] = {
    "HTTP_CACHE_ENABLED": ("cache", "enabled"),
    "HTTP_CACHE_BACKEND": ("cache", "backend"),
    "REDIS_CACHE_URL": ("redis", "url"),
    "REDIS_CACHE_KEY_PREFIX": ("redis", "key_prefix"),
}
SECRETS = ("MANAGEMENT_TOKEN", "ENCRYPTION_KEY", "OIDC_CLIENT_SECRET")
_ELSEWHERE = ("LLMPROXY_URL", "LLMPROXY_TOKEN")  # of the command line, and of clients as the manual has them


def variable(leaf: Leaf) -> str | None:
    """The name of the variable that sets it, or C{None} where only the file can: APIs and sinks."""
    if "<name>" in leaf.path or 0 in leaf.path or get_origin(leaf.info.annotation) is dict:
        return None
    return PREFIX + "_".join(str(step).upper() for step in leaf.path)


def settings(environ: Mapping[str, str]) -> Iterator[tuple[Path, ExternalText, Location]]:
    """What the environment says, the weightier last. An empty variable is as good as none."""
    ours = {name: leaf.path for leaf in leaves() if (name := variable(leaf))}
    for name, path in {**ALIASES, **ours}.items():
        if environ.get(name):
            yield path, ExternalText(environ[name]), Location(name)


def unknown_variables(environ: Mapping[str, str], mentioned: str = "") -> list[str]:
    """What to say of variables that look like ours and set nothing, a sentence each.

    @param mentioned: The settings file's text: what stands there as C{${NAME}} is used.
    """
    secrets = [PREFIX + name + end for name in SECRETS for end in ("", "_FILE")]
    known = [*(name for leaf in leaves() if (name := variable(leaf))), *secrets, *_ELSEWHERE]
    return [
        f"The variable {name} sets nothing{did_you_mean(name, known, upper=True)}."
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known and f"${{{name}" not in mentioned
    ]


def secret(environ: Mapping[str, str], name: str, read: Callable[[str], tuple[int, str]]) -> str | None:
    """The secret of that name, or C{None} where it is not set.

    The first that is set counts: C{LLMPROXY_<name>}, C{LLMPROXY_<name>_FILE}, C{<name>}, C{<name>_FILE}.

    @param read: Takes a path, returns the file's mode and its text; raises L{OSError} or L{UnicodeDecodeError}.
    @raise SettingsError: The file cannot be read, is empty, or is open to others than its owner.
    """
    for variable in (PREFIX + name, name):
        if environ.get(variable):
            return environ[variable]
        path = environ.get(f"{variable}_FILE")
        if path:
            return _from_file(f"{variable}_FILE", path, read)
    return None


def _from_file(variable: str, path: str, read: Callable[[str], tuple[int, str]]) -> str:
    try:
        mode, text = read(path)
    except OSError as e:
        raise _error(variable, f"{path} cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise _error(variable, f"{path} is not text in UTF-8") from e
    if mode & 0o077:
        raise _error(variable, f"{path} is open to others than its owner, mode {mode & 0o777:04o} (chmod 600 {path})")
    if not text.strip():
        raise _error(variable, f"{path} is empty")
    return text.strip()


def _error(variable: str, message: str) -> SettingsError:
    return SettingsError([Problem.at(Location(variable), (), message)])
