"""Every example of docs/library.md, run as it stands there."""

from __future__ import annotations

import base64
import json
import re
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.processes import HOST, Daemon, free_port, run_command, start_command
from tests.support.stack import Stack, eventually

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text(), re.DOTALL))
BASIC, SERVING = EXAMPLES["basic"].split("proxy = TransparentProxy(config, OneToken(), OneKey())\n")
JSON = {"Content-Type": "application/json"}
QUESTION = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'


@contextmanager
def serving(code: str, stack: Stack, home: Path) -> Iterator[tuple[str, Path]]:
    """A Python process that runs the code with the simulator's URL and a port of its own."""
    port = free_port()
    script, out = home / "example.py", home / "out"
    script.write_text(code)
    out.write_text("")
    process = start_command([script, stack.simulator.url, str(port)], out)
    try:
        eventually(lambda: answers(f"http://{HOST}:{port}/") or process.poll() is not None, 20)
        assert process.poll() is None, out.read_text()
        yield f"http://{HOST}:{port}", out
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as e:
        e.close()
        return True
    except OSError:
        return False
    return True


def ask(url: str, token: str = "my-token") -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        QUESTION,
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.load(e)


def test_the_basic_proxy(stack: Stack, tmp_path: Path) -> None:
    with serving(EXAMPLES["basic"], stack, tmp_path) as (url, _):
        status, answer = ask(url)
        assert status == 200 and answer["choices"]
        assert "Authorization: Bearer sk-sim-openai" in stack.last()["headers"]
        status, answer = ask(url, "another-token")
        assert (status, answer["code"]) == (401, "token_not_found")


def test_on_a_site_of_twisteds_own(stack: Stack, tmp_path: Path) -> None:
    plain = EXAMPLES["basic"].replace("from llmproxy.wire.server import Site", "from twisted.web.server import Site")
    with serving(plain, stack, tmp_path) as (url, _):
        status, answer = ask(url)
        assert status == 200 and answer["choices"]
        assert base64.b64decode(stack.last()["body"]) == QUESTION
        assert ask(url, "another-token")[1]["code"] == "token_not_found"
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        sent = {"Authorization": "Bearer my-token", "X-Sim-Events": "500", "X-Sim-Delay": "0,0.05"}
        connection.request("POST", "/v1/chat/completions", QUESTION[:-1] + b',"stream":true}', sent)
        assert connection.getresponse().read1(10).startswith(b"data:")
        connection.close()
        eventually(lambda: stack.last()["left_at"])


def test_a_logger_says_one_line_for_each_request(stack: Stack, tmp_path: Path) -> None:
    printing = "from twisted.logger import globalLogBeginner, textFileLogObserver\n"
    printing += "globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)\n"
    with serving(BASIC + printing + EXAMPLES["logger"] + SERVING, stack, tmp_path) as (url, out):
        ask(url)
        eventually(lambda: "POST /v1/chat/completions 200 complete" in out.read_text())


def test_observers_hear_of_each_request(stack: Stack, tmp_path: Path) -> None:
    inactive = BASIC.replace("defer.succeed(True)", "defer.succeed(False)")
    with serving(inactive + EXAMPLES["observers"] + SERVING, stack, tmp_path) as (url, out):
        status, answer = ask(url)
        assert (status, answer["code"]) == (403, "project_inactive")
        eventually(lambda: "request.refused denied" in out.read_text() and " 403\n" in out.read_text())


def test_metrics_are_a_snapshot(stack: Stack, tmp_path: Path) -> None:
    counting = "proxy = TransparentProxy(config, OneToken(), OneKey())\ndef tell():\n"
    counting += textwrap.indent(EXAMPLES["metrics"], "    ") + "    reactor.callLater(0.05, tell)\n"
    counting += "reactor.callLater(0.05, tell)\n"
    with serving(BASIC + counting + SERVING, stack, tmp_path) as (url, out):
        ask(url)
        # The look whether it is up was a request too, and refused.
        eventually(lambda: re.search(r"^2 1 0$", out.read_text(), re.MULTILINE))


@pytest.mark.long("2 s: keys that requests bring, through the library")
def test_keys_of_requests(stack: Stack, tmp_path: Path) -> None:
    """They can be made of Twisted's own requests, and of ours."""
    telling = EXAMPLES["keys"] + "class Telling(TransparentProxy):\n    def render(self, request):\n"
    telling += "        told(request)\n        return super().render(request)\n"
    telling += "proxy = Telling(config, OneToken(), OneKey())\n"
    plain = BASIC.replace("from llmproxy.wire.server import Site", "from twisted.web.server import Site")
    said = []
    for start in (BASIC, plain):
        with serving(start + telling + SERVING, stack, tmp_path) as (url, out):
            assert ask(url)[0] == 200
            said.append([line for line in out.read_text().splitlines() if "/v1/chat" in line])
    assert len(said[0]) == 2 and said[0][0].startswith("default/project-1/v1/chat/completions ")
    assert said[0] == said[1]


def test_the_real_store(stack: Stack, tmp_path: Path) -> None:
    code = BASIC + EXAMPLES["real"]
    code += "def started(result):\n    global proxy\n    _, proxy, token = result\n    print(token)\n"
    code += f"    {SERVING.splitlines()[0]}\n    {SERVING.splitlines()[1]}\n"
    code += (
        f"defer.Deferred.fromCoroutine(made('sqlite:///{tmp_path}/x.db')).addCallbacks(started, print)\nreactor.run()\n"
    )
    with serving(code, stack, tmp_path) as (url, out):
        status, answer = ask(url, out.read_text().split()[0])
        assert status == 200, answer


def test_a_plugin_of_ones_own(stack: Stack, tmp_path: Path) -> None:
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "stdout_plugin.py").write_text(EXAMPLES["plugin"])
    port = free_port()
    config = tmp_path / "apis.yaml"
    config.write_text(
        f"apis: {{a: {{base_url: '{stack.simulator.url}', allowed_endpoints: [/v1/x]}}}}\n"
        f"server: {{listen: ['tcp:{port}:interface=127.0.0.1']}}\n"
        f"events: {{sinks: [{{type: stdout}}]}}\n"
        f"state_dir: {tmp_path}/state\nstore: {{url: 'sqlite:///{tmp_path}/x.db'}}\naudit: {{file: {tmp_path}/audit}}\n"
    )
    with Daemon(
        "llmproxy", "--config", str(config), port=port, log=tmp_path / "log", env={"PYTHONPATH": str(tmp_path)}
    ) as daemon:
        request = urllib.request.Request(f"{daemon.url}/a/v1/x", headers={"X-Request-ID": "seen-by-the-plugin"})
        assert answers(request)  # type: ignore[arg-type]
        eventually(lambda: daemon.output().count("seen-by-the-plugin") >= 2)  # the access log's line, and the plugin's


def test_a_token_validator_of_ones_own(tmp_path: Path) -> None:
    """Its tokens are served beside ours, as far as its grants and the settings allow, and are in the ledger."""
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "listed_plugin.py").write_text(EXAMPLES["validator"])
    [settings] = re.findall(r"```yaml\n(auth:\n  validators:.*?)```", PAGE.read_text(), re.DOTALL)
    with Stack(tmp_path) as first:
        project = first.project
    env = {"PYTHONPATH": str(tmp_path)}
    with Stack(tmp_path, further=settings.replace("proj-1", project), env=env) as stack:
        for token, status in (("partner-token", 200), (stack.token, 200), ("partner-tokens", 401)):
            for _ in range(3):
                assert ask(stack.url, token)[0] == status
        other = QUESTION.replace(b"gpt-4o", b"o3")
        refused = stack.ask("POST", "/v1/chat/completions", other, JSON, token="partner-token")
        assert (refused.status, refused.header("x-llmproxy-error")) == (403, "model_not_allowed")
        refused = stack.ask("POST", "/mistral/v1/chat/completions", QUESTION, JSON, token="partner-token")
        assert (refused.status, refused.header("x-llmproxy-error")) == (403, "api_not_allowed")

        def counted() -> bool:
            rows = stack.manage("GET", "/manage/usage?group_by=token")["data"]
            return any(row["token_id"] == "partner" and row["requests"] >= 3 for row in rows)

        eventually(counted)
        stack.manage("PATCH", f"/manage/projects/{project}", {"active": False})
        refused = stack.ask("POST", "/v1/chat/completions", QUESTION, JSON, token="partner-token")
        assert (refused.status, refused.header("x-llmproxy-error")) == (403, "project_inactive")


def test_a_token_validator_that_refuses_its_settings(tmp_path: Path) -> None:
    """The daemon does not start, and says which setting is wrong."""
    for wrong, said in (
        ("{type: nobody}", "No plugin provides ITokenValidatorFactory as 'nobody'"),
        ("{type: oidc, issuer: 'https://id.example.com'}", "auth.validators[0]: "),
        ("{type: oidc, issuer: 'http://id.example.com', audience: [x]}", "issuer must begin with https://"),
        ("{type: oidc, issuer: 'https://id.example.com', audiense: [x]}", "audiense: is not a setting"),
    ):
        settings = tmp_path / "apis.yaml"
        settings.write_text(
            "apis: {a: {base_url: http://127.0.0.1:9, allowed_endpoints: [/x]}}\n"
            f"state_dir: {tmp_path}\naudit: {{file: {tmp_path}/audit.jsonl}}\nauth: {{validators: [{wrong}]}}\n"
        )
        done = run_command(["twistd", "-n", "llmproxy", "--config", settings], timeout=60, cwd=tmp_path)
        assert done.returncode == 78 and said in done.stderr, done.stderr
