"""The options that say which requests are allowed, for tokens and projects alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

_LISTS = ("apis", "methods", "endpoints", "models", "ips", "required_params", "required_headers")
_VALUES = ("param_whitelist", "header_values")
_OPTIONS = (
    click.option("--api", "apis", multiple=True, help="Allow this API only; may be given again."),
    click.option("--method", "methods", multiple=True, help="Allow this method only; may be given again."),
    click.option("--endpoint", "endpoints", multiple=True, help="Allow this endpoint only; may be given again."),
    click.option("--model", "models", multiple=True, help="Allow models like this glob only; may be given again."),
    click.option("--ip", "ips", multiple=True, help="Allow this address or network only; may be given again."),
    click.option("--max-output-tokens", type=click.IntRange(min=1), help="The most output that a request may ask for."),
    click.option(
        "--allow-param",
        "param_whitelist",
        multiple=True,
        metavar="NAME=GLOB",
        help="What a parameter of the body may be; may be given again, for the same one too.",
    ),
    click.option(
        "--require-param",
        "required_params",
        multiple=True,
        metavar="NAME[|NAME]",
        help="A parameter of the body that must be there, or one of several; may be given again.",
    ),
    click.option(
        "--allow-header",
        "header_values",
        multiple=True,
        metavar="NAME=GLOB",
        help="What a header field may be; may be given again, for the same one too.",
    ),
    click.option(
        "--require-header",
        "required_headers",
        multiple=True,
        metavar="NAME",
        help="A header field that must be there; may be given again.",
    ),
)
POLICY_FIELDS = (*_LISTS, *_VALUES, "max_output_tokens")
# What lifts each of them, in the management API's words.
LIFTED_POLICIES: Mapping[str, tuple[str, Any]] = {
    "apis": ("apis", []),
    "methods": ("methods", []),
    "endpoints": ("endpoints", []),
    "models": ("models", []),
    "ips": ("ips", []),
    "max-output-tokens": ("max_output_tokens", None),
    "params": ("param_whitelist", {}),
    "required-params": ("required_params", []),
    "headers": ("header_values", {}),
    "required-headers": ("required_headers", []),
}


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def remove_rule_option(rules: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option that lifts rules of these names."""
    return click.option(
        "--remove-rule",
        "unruled",
        multiple=True,
        type=click.Choice(rules),
        help="Lift this rule; may be given again.",
    )


def policy_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """What of the options the management API is to be sent."""
    body: dict[str, Any] = {name: list(options[name]) for name in _LISTS if options.get(name)}
    if options.get("max_output_tokens") is not None:
        body["max_output_tokens"] = options["max_output_tokens"]
    for name in _VALUES:
        for text in options.get(name) or ():
            named, equals, glob = text.partition("=")
            if not (named and equals and glob):
                raise click.UsageError(f"{text}: what is allowed is written NAME=GLOB.")
            body.setdefault(name, {}).setdefault(named, []).append(glob)
    return body
