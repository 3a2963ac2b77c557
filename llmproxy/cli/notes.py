"""The options for labels and metadata, of tokens and projects alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

LABEL = click.option("--label", "labels", multiple=True, help="A word to find it by; may be given again.")
METADATA = click.option(
    "--metadata", multiple=True, metavar="NAME=TEXT", help="A free text by a free name; may be given again."
)

WITH_LABEL = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL",
    help="Those with this label only, or with NAME=TEXT in their metadata; may be given again: all must fit.",
)


def notes(options: Mapping[str, Any]) -> dict[str, Any]:
    """What of these options the management API is to be sent."""
    body: dict[str, Any] = {}
    if options.get("labels"):
        body["labels"] = list(options["labels"])
    if options.get("metadata"):
        pairs = [text.partition("=") for text in options["metadata"]]
        if not all(name and equals and value for name, equals, value in pairs):
            raise click.UsageError("Metadata is written NAME=TEXT.")
        body["metadata"] = {name: value for name, _, value in pairs}
    return body
