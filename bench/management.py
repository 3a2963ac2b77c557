#!/usr/bin/env python3
"""Asks the management API whatever its own OpenAPI document allows, and much that it does not, with schemathesis.

Needs `pip install schemathesis`, which is part of no extra. Further arguments are schemathesis' own; without any, the
run takes some two minutes and accepts no answer above 499 and none that the document does not describe.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from endurance import daemon
from systems import HOST

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,unsupported_method,allow_header_conformance"
)  # not ignored_auth, which takes 429 after 20 wrong tokens for a fault; not use_after_free: what is deleted is deactivated


def main() -> None:
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which("schemathesis")
    if program is None:
        sys.exit("management: schemathesis is missing (pip install schemathesis)")
    with tempfile.TemporaryDirectory(prefix="llmproxy-management-") as home, daemon(Path(home)) as target:
        url = f"http://{HOST}:{target.port}/manage/openapi.json"
        chosen = sys.argv[1:] or ["--checks", CHECKS, "--max-examples", "200", "--continue-on-failure"]
        done = subprocess.run(
            [program, "run", url, "-H", f"Authorization: Bearer {target.management}", *chosen],
            cwd=home, timeout=14400, check=False,
        )  # fmt: skip
        print(f"Tracebacks in the daemon's log: {target.tracebacks}")
        sys.exit(done.returncode or bool(target.tracebacks))


if __name__ == "__main__":
    main()
