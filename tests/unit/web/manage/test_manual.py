"""C{docs/management.md}: its examples work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from twisted.internet.threads import deferToThread

from llmproxy.web.manage.views import ProjectView
from tests.unit.cli.daemon import TOKEN, DaemonTestCase

MANUAL = Path(__file__).parents[4] / "docs" / "management.md"


class ExamplesTests(DaemonTestCase):
    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```", MANUAL.read_text(), re.MULTILINE | re.DOTALL)

    @unittest.skipUnless(shutil.which("curl") and shutil.which("bash"), "needs curl and bash")
    async def test_every_example(self) -> None:
        """Every example, run in the manual's order by a shell, is answered with success."""
        script = "\n".join(self.blocks("sh")).replace("http://127.0.0.1:8080", self.url)
        script = (
            script.replace("PROJECT_ID", "proj-1")
            .replace("TOKEN_ID", "tok-1")
            .replace("KEY_ID", "key-1")
            .replace("curl -sS", "curl -sS -f")
        )
        (self.dir / "data").mkdir()
        self.file("data/management-token", TOKEN + "\n")
        done = await deferToThread(
            subprocess.run,
            ["bash", "-e", "-c", script],
            cwd=self.dir,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        acts = [entry.action for entry in self.audit.entries]
        self.assertEqual(
            acts,
            [
                "project.create",
                "project.deactivate",
                "project.activate",
                "key.create",
                "key.revoke",
                "subject.revoke",
                "subject.restore",
                "token.create",
                "token.update",
                "token.update",
                "token.revoke",
                "project.tokens.revoke",
                "group.create",
                "project.update",
                "cache.purge",
                "cache.purge",
                "upstream.update",
                "upstream.update",
                "logging.update",
                "logging.update",
                "settings.reload",
            ],
        )

    def test_answers(self) -> None:
        """The answer that is shown is of the shape that is sent."""
        (shown,) = self.blocks("json")
        ProjectView.model_validate(json.loads(shown), strict=True)
