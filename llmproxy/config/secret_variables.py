"""Secrets of the environment, which stand in no file of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmproxy.config.problems import Location, Problem, SettingsError

PREFIX = "LLMPROXY_"
SECRETS = ("MANAGEMENT_TOKEN", "ENCRYPTION_KEY", "OIDC_CLIENT_SECRET")


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
