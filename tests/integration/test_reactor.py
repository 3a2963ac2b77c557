"""The daemon runs on the lean reactor where nobody chose another, and as well on any other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.processes import HOST, free_port
from tests.support.stack import ENCRYPTION, MANAGEMENT, SETTINGS


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        ((), "llmproxy.wire.reactor.LeanEPollReactor"),
        pytest.param(
            ("--reactor=epoll",),
            "twisted.internet.epollreactor.EPollReactor",
            marks=pytest.mark.long("1 s: a reactor that is chosen"),
        ),
        pytest.param(
            ("--reactor=asyncio",),
            "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
            marks=pytest.mark.long("1 s: a reactor that is chosen"),
        ),
    ],
)
def test_which_reactor(tmp_path: Path, chosen: tuple[str, ...], name: str) -> None:
    """twistd says which it is; the daemon is ready and refuses a wrong token."""
    port, log = free_port(), tmp_path / "llmproxy.log"
    config = tmp_path / "apis.yaml"
    config.write_text(SETTINGS.format(home=tmp_path, provider=f"http://{HOST}:1", port=port, more=""))
    twistd = str(Path(sys.executable).with_name("twistd"))
    command = [sys.executable, twistd, *chosen, "-n", "--pidfile=", "llmproxy", "--config", str(config)]
    env = {**os.environ, "LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env, cwd=tmp_path)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://{HOST}:{port}/v1/models", timeout=5)
            except urllib.error.HTTPError as refused:
                assert refused.code == 401
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, log.read_text()
                time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(30)
    assert name in log.read_text()
