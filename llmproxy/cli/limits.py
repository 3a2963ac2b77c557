"""The options that set limits, for tokens and projects alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

LIMIT_NAMES = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "concurrency": "concurrency",
    "budget-usd": "budget_usd",
    "budget-tokens": "budget_tokens",
    "soft-budget-usd": "soft_budget_usd",
    "soft-budget-tokens": "soft_budget_tokens",
}
_LISTS = ("budget_usd", "budget_tokens", "soft_budget_usd", "soft_budget_tokens")
_OPTIONS = (
    click.option("--rpm", "requests_per_minute", type=click.IntRange(min=1), help="Requests allowed in any minute."),
    click.option("--tpm", "tokens_per_minute", type=click.IntRange(min=1), help="Tokens allowed in any minute."),
    click.option("--concurrency", type=click.IntRange(min=1), help="Concurrent requests allowed."),
    click.option(
        "--budget-usd",
        multiple=True,
        metavar="USD[/PERIOD]",
        help="Dollars to be spent: 20/month, 2/day, or 100 for its lifetime; may be given again for another period.",
    ),
    click.option(
        "--budget-tokens",
        multiple=True,
        metavar="N[/PERIOD]",
        help="Tokens to be used: 1000000/day; may be given again for another period.",
    ),
    click.option(
        "--soft-budget-usd", multiple=True, metavar="USD[/PERIOD]", help="Dollars to warn at; nothing is refused."
    ),
    click.option(
        "--soft-budget-tokens", multiple=True, metavar="N[/PERIOD]", help="Tokens to warn at; nothing is refused."
    ),
)


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def remove_limit_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that lifts limits."""
    return click.option(
        "--remove-limit",
        "lifted",
        multiple=True,
        type=click.Choice(list(LIMIT_NAMES)),
        help="Lift this limit; may be given again.",
    )(command)


def limit_values(options: Mapping[str, Any], lifted: tuple[str, ...] = ()) -> dict[str, Any]:
    """What of the options the management API is to be sent."""
    body: dict[str, Any] = {LIMIT_NAMES[name]: [] if LIMIT_NAMES[name] in _LISTS else None for name in lifted}
    for name in LIMIT_NAMES.values():
        value = options.get(name)
        if value not in (None, ()):
            body[name] = list(value) if name in _LISTS else value
    return body
