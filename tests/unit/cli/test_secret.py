"""Where secrets come from, and where they never go."""

from __future__ import annotations

from tests.unit.cli.daemon import TOKEN, DaemonTestCase

NO_TOKEN = {"LLMPROXY_MANAGEMENT_TOKEN": None}


class ManagementTokenTests(DaemonTestCase):
    async def test_from_file(self) -> None:
        """The file that is named counts before all else."""
        path = self.file("mine", TOKEN + "\n")
        option, command = ("--management-token-file", path), ("project", "list")
        for arguments in ((*option, *command), (*command, *option)):
            await self.ok(*arguments, environ={"LLMPROXY_MANAGEMENT_TOKEN": "wrong"})

    async def test_from_environment(self) -> None:
        """Four variables, as the daemon knows them."""
        path = self.file("mine", TOKEN)
        for variable, value in {
            "LLMPROXY_MANAGEMENT_TOKEN": TOKEN,
            "LLMPROXY_MANAGEMENT_TOKEN_FILE": path,
            "MANAGEMENT_TOKEN": TOKEN,
            "MANAGEMENT_TOKEN_FILE": path,
        }.items():
            await self.ok("project", "list", environ={**NO_TOKEN, variable: value})

    async def test_from_state_directory(self) -> None:
        """Without any of these it is the one that the daemon made."""
        self.file("management-token", TOKEN)
        await self.ok("project", "list", environ=NO_TOKEN)

    async def test_none(self) -> None:
        """Without any token the command says where it looked."""
        said = await self.fails(77, "project", "list", environ=NO_TOKEN)
        self.assertIn("LLMPROXY_MANAGEMENT_TOKEN", said)

    async def test_out_of_reach(self) -> None:
        """Where it cannot even be seen whether there is one, such as in another user's directory, that is said."""
        said = await self.fails(78, "project", "list", environ={**NO_TOKEN, "LLMPROXY_STATE_DIR": "x" * 300})
        self.assertIn("management-token cannot be read: File name too long.", said)

    async def test_wrong(self) -> None:
        """A token that the server does not accept ends with 77, and is not repeated."""
        said = await self.fails(77, "project", "list", environ={"LLMPROXY_MANAGEMENT_TOKEN": "wrong-one"})
        self.assertNotIn("wrong-one", said)

    async def test_open_to_others(self) -> None:
        """A token's file that others can read is refused, from wherever it is named."""
        path = self.file("management-token", TOKEN, 0o644)
        self.assertIn("chmod 600", await self.fails(78, "project", "list", environ=NO_TOKEN))
        self.assertIn("chmod 600", await self.fails(78, "project", "list", "--management-token-file", path))
        environ = {**NO_TOKEN, "MANAGEMENT_TOKEN_FILE": path}
        self.assertIn("chmod 600", await self.fails(78, "project", "list", environ=environ))

    async def test_unfit(self) -> None:
        """What cannot be a token is not sent."""
        for text in ("", "a b", "a\nX-Evil: 1", "ü"):
            await self.fails(78, "project", "list", "--management-token-file", self.file("mine", text))
        await self.fails(78, "project", "list", "--management-token-file", str(self.dir / "absent"))


class ProviderKeyTests(DaemonTestCase):
    async def test_on_the_command_line(self) -> None:
        """A key itself among the arguments is refused, and not shown again."""
        for text in ("sk-proj-secret", "openai=sk-proj-secret", "openai=", "OPENAI=env:X", "secret=", "env:a-secret"):
            said = await self.fails(2, "project", "create", "--name", "x", "--api-key", text)
            self.assertIn("never the key itself", said)
            self.assertNotIn("secret", said)
        self.assertEqual(self.store.projects, {})

    async def test_unfit(self) -> None:
        """What is empty or no key is not sent, and not shown."""
        for stdin in ("", "\n", "a secret\n", "ü\n"):
            said = await self.fails(2, "project", "create", "--name", "x", "--api-key", "-", stdin=stdin)
            self.assertNotIn("secret", said)
        await self.fails(2, "project", "create", "--name", "x", "--api-key", "env:NOT_SET_ANYWHERE")

    async def test_file_open_to_others(self) -> None:
        """A key's file that others can read is refused."""
        path = self.file("key", "sk-1", 0o644)
        said = await self.fails(78, "project", "create", "--name", "x", "--api-key", f"openai=@{path}")
        self.assertIn("chmod 600", said)

    async def test_twice(self) -> None:
        """An API that is named several times has several keys, in this order."""
        keys = ("--api-key", "openai=env:PATH", "--api-key", "openai=-")
        await self.ok("project", "create", "--name", "x", *keys, stdin="sk-second")
        (project,) = self.store.keys
        self.assertEqual(self.store.further[project], {"openai": ("sk-second",)})
