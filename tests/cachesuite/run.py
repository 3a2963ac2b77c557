#!/usr/bin/env python3
"""Runs the public cache test suite (npm C{http-cache-tests}) against the daemon, and prints what passed.

Needs node and npm, which fetches the suite. C{make cache-tests} calls it; C{ARGS='--only ID,ID'} for some of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.support.processes import HOST, Daemon, free_port  # noqa: E402

PACKAGE = "http-cache-tests@0.4.5"
SETTINGS = """\
state_dir: {home}/state
apis:
  suite:
    base_url: http://{host}:{origin}
    allowed_endpoints: ["/**"]
    allowed_methods: [GET, HEAD, POST, PUT, DELETE]
    circuit_breaker: {{failures: 0}}
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
audit: {{file: ""}}
logging: {{access: false}}
cache: {{{cache}}}
"""
MANAGEMENT = "management-token-of-the-cache-suite"


def fetched(folder: Path) -> Path:
    """The suite, fetched where it is not there yet."""
    suite = folder / "node_modules" / "http-cache-tests"
    if not suite.exists():
        subprocess.run(
            [
                "npm",
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--prefix",
                str(folder),
                PACKAGE,
            ],
            check=True,
        )
    return suite


@contextmanager
def suite_server(suite: Path, port: int, log: Path) -> Iterator[None]:
    """The suite's own origin server."""
    environ = {
        **os.environ, "npm_config_protocol": "http", "npm_config_port": str(port),
        "npm_config_pidfile": str(log.with_suffix(".pid")),
    }  # fmt: skip
    with log.open("wb") as out:
        server = subprocess.Popen(["node", "server/server.mjs"], cwd=suite, env=environ, stdout=out, stderr=out)
    try:
        for _ in range(200):
            if "Listening" in log.read_text():
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"The suite's server did not start:\n{log.read_text()}")
        yield
    finally:
        server.terminate()
        server.wait(10)


def token_of(daemon: Daemon) -> str:
    """A project and a token, made as an operator makes them."""
    import urllib.request

    def manage(path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {MANAGEMENT}", "Content-Type": "application/json"}
        request = urllib.request.Request(daemon.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.loads(answer.read()))

    project = manage("/manage/projects", {"name": "suite", "api_keys": {"suite": "sk-suite-0123456789"}})
    return str(manage("/manage/tokens", {"project_id": project["id"], "name": "suite"})["token"])


def results(suite: Path, cache: str, categories: str, only: str) -> list[dict[str, Any]]:
    """Every test with what became of it.

    @param categories: Those to be run, or with C{-} before them those not to be run.
    """
    with tempfile.TemporaryDirectory(prefix="cachesuite-") as folder:
        home = Path(folder)
        origin, port = free_port(), free_port()
        config = home / "apis.yaml"
        config.write_text(SETTINGS.format(home=home, host=HOST, origin=origin, port=port, cache=cache))
        daemon = Daemon(
            "llmproxy", "--config", str(config), port=port, log=home / "llmproxy.log",
            env={"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": "a key for the cache suite's run"},
        )  # fmt: skip
        with suite_server(suite, origin, home / "suite.log"), daemon:
            ran = subprocess.run(
                ["node", "--no-warnings", str(HERE / "suite.mjs"), str(suite), f"http://{HOST}:{origin}", daemon.url,
                 token_of(daemon), categories, only],
                capture_output=True, text=True, timeout=900,
            )  # fmt: skip
            if ran.returncode:
                raise SystemExit(ran.stdout + ran.stderr + daemon.output())
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def table(found: list[dict[str, Any]]) -> str:
    """A row for each category, in Markdown."""
    rows = ["| category | required | optimal | checks answered yes |", "|---|---|---|---|"]
    for name in [*dict.fromkeys(test["suite"] for test in found), ""]:
        mine = [test for test in found if name in ("", test["suite"])]
        cells = [_cell([t for t in mine if t["kind"] == kind]) for kind in ("required", "optimal")]
        checks = [t for t in mine if t["kind"] == "check"]
        cells.append(f"{sum(t['result'] == 'yes' for t in checks)} of {len(checks)}" if checks else "")
        rows.append(f"| {name or '**all**'} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(tests: list[dict[str, Any]]) -> str:
    if not tests:
        return ""
    counted = Counter(test["result"] for test in tests)
    other = len(tests) - counted["pass"] - counted["fail"]
    return f"{counted['pass']} pass, {counted['fail']} fail" + (f", {other} not run" if other else "")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="", help="ids of tests, with commas")
    options.add_argument("--cache", default="heuristics: true", help="the settings under cache:")
    options.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "llmproxy-cache-suite")
    options.add_argument("--json", type=Path, help="write every result there")
    chosen = options.parse_args()
    if shutil.which("npm") is None:
        raise SystemExit("npm is needed to fetch the suite, and node to run it.")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    suite = fetched(chosen.folder)
    # Every request carries a token; what HTTP says about that only applies where answers are shared across tenants.
    found = results(suite, chosen.cache, "-auth", chosen.only)
    found += results(suite, f"{chosen.cache}, scope: shared", "auth", chosen.only)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    print(table(found), "\n")
    for test in found:
        if test["kind"] != "check" and test["result"] != "pass":
            print(f"{test['kind']:8} {test['result']:10} {test['id']}: {test['said']}")
    reused = [
        test["id"] for test in found if test["forbids"] and test["result"] == "fail" and "from cache" in test["said"]
    ]
    forbidding = [test for test in found if test["forbids"]]
    print(f"\nReused what must not be reused: {len(reused)} of {len(forbidding)}", *reused)
    return 1 if reused else 0


if __name__ == "__main__":
    sys.exit(main())
