"""C{make demo}: a simulated provider, a daemon in front of it, a project, a token, and one response streamed through.

Everything is started as a user would start it, as processes of their own, on loopback; state goes to C{.demo/}.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

HOME = Path(".demo")
KEYS = {"openai": "sk-sim-openai", "anthropic": "sk-sim-anthropic", "google": "sk-sim-google"}
SETTINGS = """\
# Written by `make demo`.
default_api: openai
state_dir: {home}/data
apis:
  openai:
    provider: openai
    base_url: {provider}
    allowed_endpoints: [/v1/chat/completions, /v1/responses, /v1/embeddings, /v1/models]
  anthropic:
    provider: anthropic
    base_url: {provider}
    allowed_endpoints: [/v1/messages, /v1/messages/count_tokens]
  google:
    provider: google
    base_url: {provider}
    allowed_endpoints: ["/v1/models/*", "/v1beta/models/*"]
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/data/llmproxy.db"}}
events: {{sinks: [{{type: file, path: {home}/data/events.jsonl}}]}}
audit: {{file: {home}/data/audit.jsonl}}
"""
QUESTION = {
    "model": "gpt-4o-mini",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "Why do proxies like streams?"}],
}
SNIPPETS = """
In a second terminal, while this one serves:

  curl -N {url}/v1/chat/completions \\
    -H "Authorization: Bearer {token}" -H "Content-Type: application/json" \\
    -d '{{"model": "gpt-4o-mini", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'

  # OpenAI's SDK (pip install openai)
  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{token}")
  hello = [{{"role": "user", "content": "Hello"}}]
  print(client.chat.completions.create(model="gpt-4o-mini", messages=hello).choices[0].message.content)

  # Anthropic's SDK (pip install anthropic)
  from anthropic import Anthropic
  client = Anthropic(base_url="{url}/anthropic", api_key="{token}")
  hello = [{{"role": "user", "content": "Hello"}}]
  print(client.messages.create(model="claude-sonnet-5-5", max_tokens=64, messages=hello).content[0].text)
"""


def main() -> None:
    arguments = argparse.ArgumentParser(prog="make demo", description=__doc__)
    arguments.add_argument("--once", action="store_true", help="end after the sample")
    once = arguments.parse_args().once
    with ExitStack() as stack:
        try:
            token, url = prepare(stack)
            ask(url, token)
        except (OSError, RuntimeError, ValueError) as e:
            sys.exit(f"demo: {e}\nThe logs are in {HOME}/*.log")
        print(SNIPPETS.format(url=url, token=token))
        if not once:
            print(f"Serving on {url} until Ctrl-C. Logs, events and the audit trail are in {HOME}/.", flush=True)
            with suppress(KeyboardInterrupt):
                signal.sigwait({signal.SIGINT, signal.SIGTERM})


def prepare(stack: ExitStack) -> tuple[str, str]:
    """Start both servers, make a project and a token; the token and the daemon's address."""
    (HOME / "data").mkdir(parents=True, exist_ok=True)
    provider, port = free_port(), free_port(8080)
    url = f"http://127.0.0.1:{port}"
    (HOME / "apis.yaml").write_text(
        SETTINGS.format(home=HOME, provider=f"http://127.0.0.1:{provider}", port=port), encoding="utf-8"
    )
    say(f"starting a simulated provider on 127.0.0.1:{provider}")
    stack.enter_context(running("llmproxy-simulator", "--listen", f"tcp:{provider}:interface=127.0.0.1", port=provider))
    say(f"starting llmproxy on 127.0.0.1:{port}")
    stack.enter_context(running("llmproxy", "--config", str(HOME / "apis.yaml"), port=port))
    wait_ready(url)
    secret = os.environ.get("LLMPROXY_MANAGEMENT_TOKEN") or os.environ.get("MANAGEMENT_TOKEN")
    management = secret or (HOME / "data" / "management-token").read_text(encoding="utf-8").strip()
    project = post(f"{url}/manage/projects", management, {"name": "Demo", "api_keys": KEYS})
    say(f"made project {project['id']}")
    token = post(f"{url}/manage/tokens", management, {"project_id": project["id"], "name": "demo", "expires_in": "24h"})
    say(f"made token {token['prefix']}…, good for 24 hours")
    return str(token["token"]), url


def ask(url: str, token: str) -> None:
    """Stream one chat completion and print it as it arrives."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(
        "POST",
        "/v1/chat/completions",
        json.dumps(QUESTION),
        {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "X-Sim-Events": "12",
            "X-Sim-Delay": "0.05",
        },
    )
    answer = connection.getresponse()
    print(f"\nHTTP/1.1 {answer.status} {answer.reason}")
    for name, value in answer.getheaders():
        print(f"{name}: {value}")
    print()
    if answer.status != 200:
        raise RuntimeError(f"the answer was {answer.status}: {answer.read(2000)!r}")
    ended = False
    for line in answer:
        text = line.decode("utf-8").strip()
        if text == "data: [DONE]":
            ended = True
        elif text.startswith("data: "):
            for choice in json.loads(text[6:]).get("choices", []):
                print(choice["delta"].get("content") or "", end="", flush=True)
    connection.close()
    print()
    if not ended:
        raise RuntimeError("the stream broke off before data: [DONE]")


@contextmanager
def running(plugin: str, *arguments: str, port: int) -> Iterator[None]:
    """A twistd process while the context lasts."""
    twistd = Path(sys.executable).with_name("twistd")
    with open(HOME / f"{plugin}.log", "wb") as log:
        process = subprocess.Popen(
            [str(twistd), "-n", f"--pidfile={HOME}/{plugin}.pid", plugin, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 30
        while not listening(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{plugin} did not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listening(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def free_port(wanted: int = 0) -> int:
    """C{wanted} if nobody listens there, else any free one."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", wanted))
        except OSError:
            s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_ready(url: str) -> None:
    until = time.monotonic() + 30
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > until:
            raise RuntimeError("the daemon did not become ready")
        time.sleep(0.05)


def post(url: str, management: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {management}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        made: dict[str, object] = json.load(answer)
        return made


def say(what: str) -> None:
    print(f"· {what}", flush=True)


if __name__ == "__main__":
    main()
