"""C{llmproxy init}: from nothing to a daemon that can be started, with a first project and a first token."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from llmproxy.cli.client import ManagementClient, management_path
from llmproxy.cli.daemon import DEFAULT_SETTINGS, twistd_command
from llmproxy.cli.errors import Misconfigured, Unreachable
from llmproxy.cli.output import echo
from llmproxy.cli.secret import KEY_SOURCES, management_token, provider_keys
from llmproxy.cli.session import naming_lost_secret
from llmproxy.config.load import load, parse
from llmproxy.config.problems import SettingsError

START_SECONDS = 120.0  # within which a daemon must be ready
STOP_SECONDS = 60.0
POLL_SECONDS = 0.1
ADDRESS = "127.0.0.1:8080"


def example_settings() -> str:
    """The settings that the package carries."""
    return files("llmproxy.config").joinpath("example.yaml").read_text("utf-8")


def example_apis() -> list[str]:
    return list(parse(example_settings(), "example.yaml", {}).apis)


def settings_text(api: str, listen: str, state_dir: str) -> str:
    """The example with these in it; C{listen} is C{host:port}."""
    host, _, port = listen.rpartition(":")
    text = example_settings()
    for pattern, by in (
        (r"^# yaml-language-server:.*\n#\n", ""),
        (r"^default_api: .*", f"default_api: {api}\nstate_dir: {_quoted(state_dir)}"),
        (
            r'"tcp:8080:interface=127\.0\.0\.1"\].*',
            f'"tcp:{port}:interface={host.strip("[]").replace(":", chr(92) * 2 + ":")}"]',
        ),
        (r"sqlite:///data/", f"sqlite:///{state_dir}/"),
        (r"path: data/", f"path: {state_dir}/"),
        (r"file: data/", f"file: {state_dir}/"),
    ):
        text, count = re.subn(pattern, by.replace(chr(92), chr(92) * 2), text, flags=re.MULTILINE)
        assert count, pattern
    return text


def _quoted(text: str) -> str:
    return (
        text if re.fullmatch(r"[A-Za-z0-9./_-]+", text) else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


@click.command()
@click.option("--config", default=DEFAULT_SETTINGS, show_default=True, help="The settings file to write.")
@click.option("--api", help="The API that clients get by default: openai, anthropic, …  [openai]")
@click.option("--listen", metavar="HOST:PORT", help=f"Where to listen.  [{ADDRESS}]")
@click.option("--state-dir", metavar="DIRECTORY", help="Where to keep database, keys and logs.  [data]")
@click.option("--project", help="The first project's name.  [default]")
@click.option("--api-key", "source", metavar="SOURCE", help=f"Its provider key: {KEY_SOURCES}. Left out: none yet.")
@click.option("--token", help="The first token's name.  [first]")
@click.option("--token-file", type=click.Path(), help="Write the token there, mode 0600, and do not print it.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the defaults for what is not given.")
@click.option("--force", is_flag=True, help="Replace a settings file that is there.")
def init(config: str, yes: bool, force: bool, token_file: str | None, source: str | None, **given: str | None) -> None:
    """Set up llmproxy for the first time: settings, state directory, keys, and a first project with a token.

    Asks for what is not given, on a terminal. Nothing that is there is replaced without --force.
    """
    path = Path(config)
    if path.exists() and not force:
        raise Misconfigured(f"{path} is there already. Name another file with --config, or use --force.")
    if token_file is not None and Path(token_file).exists():
        raise Misconfigured(f"{token_file} is there already: name another file.")
    answers = _answers(given, ask=not yes and sys.stdin.isatty())
    api = answers["api"]
    key = _key(api, source, _ask_for_key)
    asks = source is None and not yes and sys.stdin.isatty()
    if asks and click.confirm(f"Store a provider key for {api} now?", default=True):
        typed = _ask_for_key(f"Provider key for {api} (an empty line: later)")
        key = _key(api, "prompt", lambda _: typed) if typed else {}
    text = settings_text(answers["api"], answers["listen"], answers["state_dir"])
    try:
        parse(text, str(path), os.environ)
    except SettingsError as e:
        raise Misconfigured(str(e)) from e
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as e:
        raise Misconfigured(f"{path} cannot be written: {e.strerror}.") from e
    click.echo(f"Wrote {path}.", err=True)
    with _daemon(str(path)) as client:
        project = client.request("POST", management_path("projects"), {"name": answers["project"], "api_keys": key})
        body = {"project_id": project["id"], "name": answers["token"]}
        token = client.request("POST", management_path("tokens"), body)
    _tell(path, answers, token, token_file, has_key=bool(key))


def _answers(given: Mapping[str, str | None], ask: bool) -> dict[str, str]:
    """What is given, what is answered, or the default."""
    apis = example_apis()
    questions: dict[str, tuple[str, str, Callable[[str], str]]] = {
        "api": ("Which provider do clients get by default", "openai", lambda text: _one_of(text, apis)),
        "listen": ("Where to listen", ADDRESS, _address),
        "state_dir": ("Where to keep database, keys and logs", "data", _directory),
        "project": ("Name of the first project", "default", str),
        "token": ("Name of the first token", "first", str),
    }
    answers = {}
    for name, (question, default, check) in questions.items():
        value = given.get(name)
        if value is None:
            value = click.prompt(question, default=default, value_proc=check, err=True) if ask else default
        answers[name] = check(value)
    return answers


def _one_of(text: str, apis: list[str]) -> str:
    if text not in apis:
        raise click.UsageError(f"{text} is none of {', '.join(apis)}.")
    return text


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise click.UsageError("An address is written HOST:PORT, such as 127.0.0.1:8080.")
    return text


def _directory(text: str) -> str:
    if not text or not text.isprintable() or text != text.strip() or any(c in text for c in "\"'#$%?{}:"):
        raise click.UsageError("A directory's name must be plain.")
    return text.rstrip("/") or "/"


def _key(api: str, source: str | None, prompt: Callable[[str], str]) -> dict[str, str]:
    if source is None:
        return {}
    return {api: str(provider_keys((f"{api}={source}",), os.environ, sys.stdin, prompt)[api])}


def _ask_for_key(text: str) -> str:
    """What is typed, which is not shown; C{""} for an empty line."""
    return str(click.prompt(text, default="", show_default=False, hide_input=True, err=True)).strip()


@contextmanager
def _daemon(config: str) -> Iterator[ManagementClient]:
    """The daemon itself with these settings, on a port of its own, for as long as it takes.

    It makes the state directory, the database, the encryption key and the management token as it always does.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = load(config, os.environ)
    with tempfile.TemporaryFile() as log:
        listen = ("--listen", f"tcp:{port}:interface=127.0.0.1")
        process = subprocess.Popen(twistd_command(config, listen), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            client = _ready(process, f"http://127.0.0.1:{port}", settings.state_dir)
            if client is None:
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()[-20:]
                raise Misconfigured("The daemon does not start with these settings:\n" + "\n".join(said))
            yield client
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(process: subprocess.Popen[bytes], url: str, state_dir: str) -> ManagementClient | None:
    """Its management API, once it answers; C{None} where it ended or does not."""
    environ = {"LLMPROXY_STATE_DIR": state_dir, **os.environ}
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            client = ManagementClient(url, management_token(None, environ))
            client.request("GET", management_path("projects"))
            return client
        except (Unreachable, Misconfigured, click.ClickException):
            time.sleep(POLL_SECONDS)
    return None


def _tell(path: Path, answers: Mapping[str, Any], token: Mapping[str, str], file: str | None, has_key: bool) -> None:
    if file is None:
        with naming_lost_secret("token", token["id"], f"llmproxy token rotate {token['id']}, with the daemon running"):
            echo(token["token"])
        click.echo("This is the first token. Keep it now: it is not shown again.", err=True)
    else:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as kept:
            kept.write(token["token"] + "\n")
        click.echo(f"The first token is in {file}.", err=True)
    click.echo(
        f"Keys and the management token are in {answers['state_dir']}/: keep a copy of encryption-key.", err=True
    )
    if not has_key:
        said = f"llmproxy project update {token['project_id']} --api-key {answers['api']}=prompt"
        click.echo(f"The project has no provider key yet. With the daemon running: {said}", err=True)
    click.echo(f"Start it with: llmproxy run --config {path}", err=True)
