"""Many connections that guess at tokens, as a process of its own: C{python -m tests.support.flooding PORT …}."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections import Counter
from pathlib import Path

HOST = "127.0.0.1"


def flood(port: int, connections: int, seconds: float, token: str = "") -> subprocess.Popen[bytes]:
    """Start to guess; its output is how often each status was answered, as JSON.

    @param token: Sent by all, instead of a well-formed token that nobody has issued, another one with each request.
    """
    command = [sys.executable, "-m", "tests.support.flooding", str(port), str(connections), str(seconds), token]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=root)


def answers(flooding: subprocess.Popen[bytes], patience: float = 60.0) -> dict[str, int]:
    """What a flood has been answered, once it is over."""
    told, _ = flooding.communicate(timeout=patience)
    return dict(json.loads(told))


async def _guess(port: int, end: float, token: str, told: Counter[str]) -> None:
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        told["unconnected"] += 1
        return
    try:
        while time.monotonic() < end:
            sent = token or "sk-lp-" + urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
            writer.write(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {sent}\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await asyncio.wait_for(reader.readexactly(int(fields[b"content-length"])), 30)
            told[head[9:12].decode()] += 1
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as e:
        told[type(e).__name__] += 1
    finally:
        writer.close()


async def _flood(port: int, connections: int, seconds: float, token: str) -> Counter[str]:
    told: Counter[str] = Counter()
    end = time.monotonic() + seconds
    await asyncio.gather(*(_guess(port, end, token, told) for _ in range(connections)))
    return told


if __name__ == "__main__":
    port, connections, seconds, token = sys.argv[1:]
    print(json.dumps(asyncio.run(_flood(int(port), int(connections), float(seconds), token))))
