"""A group whose commands are imported when they are called: most need a daemon's address and little else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import click


class CommandPlace(NamedTuple):
    """Where a command is.

    @ivar module: The module that has it as C{attribute}.
    @ivar help: The first line of its help: what lists and completions show of it.
    """

    module: str
    attribute: str
    help: str

    def load(self) -> click.Command:
        """The command itself."""
        command: click.Command = getattr(import_module(self.module), self.attribute)
        return command


class LateCommands(MutableMapping[str, click.Command]):
    """Commands by their names, imported when they are looked up."""

    def __init__(self, places: Mapping[str, CommandPlace]) -> None:
        self._places = dict(places)
        self._added: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        return self._added[name] if name in self._added else self._places[name].load()

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._added[name] = command

    def __delitem__(self, name: str) -> None:
        known = self._added.pop(name, None) or self._places.pop(name, None)
        if known is None:
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places | self._added)

    def __len__(self) -> int:
        return len(self._places | self._added)


class LateGroup(click.Group):
    """Lists and completes its commands without importing them."""

    def __init__(self, *args: Any, places: Mapping[str, CommandPlace], **more: Any) -> None:
        super().__init__(*args, **more)
        self.commands = LateCommands(places)
        self._places = places

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """As much of a command as lists show."""
        place = self._places.get(cmd_name)
        return super().get_command(ctx, cmd_name) if place is None else click.Command(cmd_name, help=place.help)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is to run, whole."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None or command.name is None else self.commands[command.name], rest
