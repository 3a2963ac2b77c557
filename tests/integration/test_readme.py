"""The README's examples, run as they stand there against the started daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import Stack

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"\*\*(\w+)\*\*\n\n```python\n(.*?)```", README, re.DOTALL)
CURL = re.findall(r"```sh\n(curl .*?)```", README, re.DOTALL)


AS_OPENAI = pytest.mark.long("1 s: the library of another provider, most of it spent on importing that")
SDKS = [pytest.param(*each, id=each[0], marks=() if each[0] == "OpenAI" else AS_OPENAI) for each in PYTHON]


@pytest.mark.parametrize(("name", "code"), SDKS)
def test_sdk(stack: Stack, tmp_path: Path, name: str, code: str) -> None:
    script = tmp_path / "example.py"
    script.write_text("import os\n" + code.replace("http://127.0.0.1:8080", stack.url))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60,
        env={**os.environ, "LLMPROXY_TOKEN": stack.token}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_there_is_an_example_for_each_provider() -> None:
    assert [name for name, _ in PYTHON] == ["OpenAI", "Anthropic", "Gemini", "Mistral"]
    assert all(len(code.strip().splitlines()) <= 6 for _, code in PYTHON)


def test_curl(stack: Stack) -> None:
    assert len(CURL) == 1
    done = subprocess.run(
        ["sh", "-c", CURL[0].replace("http://127.0.0.1:8080", stack.url)], capture_output=True, text=True, timeout=60,
        env={**os.environ, "LLMPROXY_TOKEN": stack.token}, check=False,
    )  # fmt: skip
    assert done.stdout.rstrip().endswith("data: [DONE]"), done.stderr
