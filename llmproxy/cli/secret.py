"""Where the command line takes secrets from: never from its arguments, which all users of a machine can read."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TextIO

import click

from llmproxy.cli.errors import Misconfigured, NotAuthorized
from llmproxy.config.problems import SettingsError
from llmproxy.config.secret_variables import secret

KEY_SOURCES = "@FILE, - (standard input), env:VARIABLE, or prompt"


def management_token(given: str | None, environ: Mapping[str, str]) -> str:
    """The management token: from the file that is given, else from the environment, else from the state directory."""
    if given is not None:
        return _token(_owned(Path(given)))
    try:
        named = secret(environ, "MANAGEMENT_TOKEN", _mode_and_text)
    except SettingsError as e:
        raise Misconfigured(str(e)) from e
    if named is not None:
        return _token(named)
    kept = Path(environ.get("LLMPROXY_STATE_DIR") or "data") / "management-token"
    try:
        return _token(_owned(kept))
    except Misconfigured as e:
        if not isinstance(e.__cause__, FileNotFoundError):
            raise
        raise NotAuthorized(
            f"No management token: set LLMPROXY_MANAGEMENT_TOKEN or --management-token-file; {kept} is not there."
        ) from e


def client_token(given: str | None, environ: Mapping[str, str]) -> str:
    """The token that clients present: from the file that is given, else from C{LLMPROXY_TOKEN}."""
    if given is not None:
        return _token(_owned(Path(given)), "token")
    if not environ.get("LLMPROXY_TOKEN"):
        raise NotAuthorized("No token: set LLMPROXY_TOKEN or --token-file (llmproxy token create makes one).")
    return _token(environ["LLMPROXY_TOKEN"], "token")


def provider_keys(
    given: Iterable[str], environ: Mapping[str, str], stdin: TextIO, prompt: Callable[[str], str]
) -> dict[str, str | list[str]]:
    """Provider keys by API name (C{""} for the default API), each from where C{[API=]SOURCE} says. An API that is named
    several times has them in this order.

    What is neither is refused without being shown: it may be the key.
    """
    keys: dict[str, list[str]] = {}
    for text in given:
        api, source = _parts(text)
        keys.setdefault(api, []).append(_key(api, _read(api, source, environ, stdin, prompt)))
    return {api: several if len(several) > 1 else several[0] for api, several in keys.items()}


def key_reference(text: str) -> tuple[str, str]:
    """The API's name (C{""} for the default API) and the reference in C{[API=]REFERENCE}; it goes as it is."""
    match = re.fullmatch(r"(?:([a-z0-9][a-z0-9_-]*)=)?([a-z][a-z0-9_-]*:[\x21-\x7e]+)", text)
    if match is None:
        raise click.UsageError("--api-key-ref takes [API=]REFERENCE: env:NAME, file:/path, or <plugin>:<name>.")
    return match[1] or "", match[2]


def _parts(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?:([a-z0-9][a-z0-9_-]*)=)?(@.+|-|env:[A-Za-z_][A-Za-z0-9_]*|prompt)", text, re.DOTALL)
    if match is None:
        raise click.UsageError(
            "--api-key takes [API=]SOURCE, never the key itself, which every user of this machine could read there."
            f" SOURCE is {KEY_SOURCES}."
        )
    return match[1] or "", match[2]


def _read(api: str, source: str, environ: Mapping[str, str], stdin: TextIO, prompt: Callable[[str], str]) -> str:
    if source == "-":
        return stdin.readline()
    if source == "prompt":
        return prompt(f"Provider key for {api or 'the default API'}")
    if source.startswith("env:"):
        return environ.get(source[4:], "")
    return _owned(Path(source[1:]))


def _key(api: str, text: str) -> str:
    key = text.strip()
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", key):
        where = api or "the default API"
        raise click.UsageError(f"What --api-key names for {where} is empty, or no key: visible ASCII, no spaces.")
    return key


def _token(text: str, what: str = "management token") -> str:
    token = text.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise Misconfigured(f"The {what} is empty, or holds something other than visible ASCII.")
    return token


def _owned(path: Path) -> str:
    """What a secret's file holds; refused where others than its owner may read it."""
    try:
        mode, text = _mode_and_text(str(path))
    except OSError as e:
        raise Misconfigured(f"{path} cannot be read: {e.strerror or e}.") from e
    except UnicodeDecodeError as e:
        raise Misconfigured(f"{path} is not text in UTF-8.") from e
    if mode & 0o077:
        raise Misconfigured(f"{path} is open to others than its owner. Run: chmod 600 {path}")
    return text


def _mode_and_text(path: str) -> tuple[int, str]:
    """Permissions (0 for a pipe, which has no other reader) and text."""
    with open(path, encoding="utf-8") as file:
        mode = Path(path).stat().st_mode
        return (stat.S_IMODE(mode) if stat.S_ISREG(mode) else 0), file.read(64 * 1024)
