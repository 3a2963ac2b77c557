"""L{llmproxy.cli.late_group}, and what C{llmproxy} has in it."""

from __future__ import annotations

import subprocess
import sys
import unittest

import click
from click.testing import CliRunner

from llmproxy.cli import PLACES, audit, main
from llmproxy.cli.late_group import CommandPlace, LateCommands, LateGroup

# What takes long to import, and what no command that only asks a daemon needs.
HEAVY = ("twisted", "sqlalchemy", "pydantic", "cryptography", "genai_prices", "yaml", "prometheus_client")


class LateGroupTests(unittest.TestCase):
    def test_help(self) -> None:
        """What the list says of a command is what it says itself."""
        for name, place in (PLACES | audit.PLACES).items():
            command = place.load()
            self.assertEqual(command.name, name)
            said = " ".join((command.help or "").strip().partition("\n\n")[0].split())
            self.assertEqual(place.help, said, name)

    def test_listed(self) -> None:
        """With and without its commands imported, the help is the same."""
        whole = click.Group("llmproxy", commands=dict(main.commands), params=main.params, help=main.help)
        late, early = (CliRunner().invoke(each, ["--help"], prog_name="llmproxy") for each in (main, whole))
        self.assertEqual(late.stdout, early.stdout)
        self.assertIn("check-config", late.stdout)

    def test_unknown(self) -> None:
        """Is wrong usage, and does not import anything."""
        result = CliRunner().invoke(main, ["tokens"])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("No such command", result.output)

    def test_commands(self) -> None:
        """They are a mapping as a group has one; a command may be added and removed."""
        commands = LateCommands({"chat": CommandPlace("llmproxy.cli.chat", "chat", "x")})
        mine = click.Command("mine")
        commands["mine"] = mine
        self.assertEqual((list(commands), len(commands)), (["chat", "mine"], 2))
        self.assertIs(commands["mine"], mine)
        self.assertEqual(commands["chat"].name, "chat")
        del commands["mine"], commands["chat"]
        with self.assertRaises(KeyError):
            del commands["chat"]
        self.assertEqual(list(commands), [])

    def test_added(self) -> None:
        """A command that somebody adds to the group is listed and runs."""
        group = LateGroup("g", places={"chat": CommandPlace("llmproxy.cli.chat", "chat", "Chat.")})
        group.add_command(click.Command("mine", callback=lambda: click.echo("ran"), help="Mine."))
        self.assertRegex(CliRunner().invoke(group, ["--help"]).stdout, r"chat  +Chat\.\n +mine  +Mine\.")
        self.assertEqual(CliRunner().invoke(group, ["mine"]).stdout, "ran\n")

    def test_what_is_imported(self) -> None:
        """A list of tokens, and the help, take a tenth of a second: nothing of the daemon is imported for them."""
        program = (
            "import sys\nfrom llmproxy.cli import main\n"
            "for line in sys.stdin:\n"
            "    main(line.split(), prog_name='llmproxy', standalone_mode=False)\n"
            f"    print(line.strip(), *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
        )
        asking = ("", "token list ", "project list ", "health ", "audit list ", "audit ", "run ")
        lines = [f"{command}--help" for command in asking]
        done = subprocess.run(
            [sys.executable, "-c", program],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertEqual(done.stderr.splitlines(), lines)
        self.assertIn("Usage: llmproxy token list", done.stdout)
