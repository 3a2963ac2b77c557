"""C{llmproxy chat}: a conversation through the proxy, with what it costs and how the limits stand."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

import click

from llmproxy.cli.chat_stream import FORMATS, ChatClient, TurnSummary
from llmproxy.cli.client import check_url
from llmproxy.cli.errors import NotAuthorized
from llmproxy.cli.output import echo
from llmproxy.cli.secret import client_token
from llmproxy.cli.session import DEFAULT_URL, CommandSession


@click.command()
@click.option("--model", required=True, help="The model, as the provider calls it.")
@click.option("--api", default="", help="The API by its name in the settings; left out: the default API.")
@click.option("--format", "chat_format", type=click.Choice(FORMATS), default="openai", show_default=True,
              help="The format that the API speaks.")  # fmt: skip
@click.option("--system", default="", help="Instructions that precede the conversation (openai).")
@click.option("--max-tokens", default=4096, show_default=True, type=click.IntRange(min=1),
              help="Longest response (anthropic).")  # fmt: skip
@click.option("--token-file", type=click.Path(), help="File with the token, readable by its owner only.")
@click.option("--url", envvar="LLMPROXY_URL", default=None, help=f"Where the daemon is.  [default: {DEFAULT_URL}]")
def chat(
    model: str, api: str, chat_format: str, system: str, max_tokens: int, token_file: str | None, url: str | None
) -> None:
    """Chat through the proxy. Each line of input is a message; an empty line or Ctrl-D ends it.

    The token is taken from --token-file, else from LLMPROXY_TOKEN. After each response standard error says what it
    used, what that costs by the public price list, and how the token's limits stand.
    """
    session = click.get_current_context().find_object(CommandSession) or CommandSession()
    client = ChatClient(
        check_url(url or session.url), client_token(token_file, os.environ), api, chat_format, model, max_tokens
    )
    messages = [{"role": "system", "content": system}] if system else []
    total = 0.0
    while text := _line():
        messages.append({"role": "user", "content": text})
        turn = TurnSummary()
        try:
            for piece in client.stream(messages, turn):
                echo(_on_terminal(piece), nl=False)
            echo()
        except click.ClickException as e:
            if not sys.stdin.isatty() or isinstance(e, NotAuthorized):
                raise
            e.show()
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": turn.text})
        cost = _cost(turn, model, chat_format)
        total += cost or 0.0
        click.echo(summary_line(turn, cost, total), err=True)


def summary_line(turn: TurnSummary, cost: float | None, total: float) -> str:
    """What a turn used, as one line."""
    used = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in turn.units.items()) or "usage not reported"
    price = "price unknown" if cost is None else f"${cost:.6f} (${total:.6f} in all)"
    return " · ".join([used, price, *_limits(turn.limits)])


def _limits(fields: Mapping[str, str]) -> list[str]:
    """C{41 of 60 requests left}, for requests and tokens, by OpenAI's or Anthropic's names."""
    values = {name.lower(): value for name, value in fields.items()}
    found = []
    for unit in ("requests", "tokens"):
        for limit, rest in (
            (f"x-ratelimit-limit-{unit}", f"x-ratelimit-remaining-{unit}"),
            (f"anthropic-ratelimit-{unit}-limit", f"anthropic-ratelimit-{unit}-remaining"),
        ):
            if limit in values and rest in values:
                found.append(f"{values[rest]} of {values[limit]} {unit} left this minute")
    return found


def _cost(turn: TurnSummary, model: str, chat_format: str) -> float | None:
    from llmproxy.metering.prices import Prices  # a third of a second, which no other command is to wait for

    prices, at, answered = Prices(), time.time(), turn.model or model
    providers = ("anthropic",) if chat_format == "anthropic" else ("openai", "mistral", "google")
    costs = (prices.cost("", each, answered, model, turn.units, at) for each in providers if turn.units)
    return next((cost for cost in costs if cost is not None), None)


def _line() -> str:
    """The next message; C{""} at the end."""
    if sys.stdin.isatty():
        try:
            return str(click.prompt("you", default="", show_default=False, prompt_suffix="> ", err=True)).strip()
        except click.Abort:
            click.echo(err=True)
            return ""
    return sys.stdin.readline().strip()


def _on_terminal(text: str) -> str:
    """Without what would steer the terminal; lines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
