"""Management keys through the real daemon: roles, projects, revocation, the audit log, restarts."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.processes import run_command
from tests.support.stack import MANAGEMENT, Stack, eventually


def call(url: str, secret: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        url + path,
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {secret}"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text or b"{}") if text[:1] in (b"{", b"") else text
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.loads(e.read())


def test_keys(tmp_path: Path) -> None:
    """A team lead's key manages its own project only, in every process; revoked it opens nothing; the store has no key,
    and the audit log says who did what."""
    with Stack(tmp_path) as stack, stack.another("second") as second:
        other = stack.manage("POST", "/manage/projects", {"name": "Other"})["id"]
        body = {"name": "Lead", "role": "operator", "projects": [stack.project]}
        issued = stack.manage("POST", "/manage/keys", body)
        lead = issued["key"]
        for url in (stack.url, second.url):
            status, listed = call(url, lead, "GET", "/manage/projects")
            assert (status, [each["id"] for each in listed["data"]]) == (200, [stack.project])
        status, token = call(stack.url, lead, "POST", "/manage/tokens", {"project_id": stack.project})
        assert status == 201
        assert call(stack.url, lead, "POST", "/manage/tokens", {"project_id": other})[0] == 404
        assert call(stack.url, lead, "GET", "/metrics")[0] == 403
        viewer = stack.manage("POST", "/manage/keys", {"name": "Prometheus", "role": "viewer"})["key"]
        assert call(stack.url, viewer, "GET", "/metrics")[0] == 200
        assert call(stack.url, viewer, "POST", "/manage/projects", {"name": "x"})[0] == 403
        assert eventually(lambda: stack.manage("GET", f"/manage/keys/{issued['id']}")["last_used_at"])
        assert stack.ask("GET", "/v1/models", token=token["token"]).status == 200
        assert stack.ask("GET", "/v1/models", token=lead).status == 401
        stack.manage("DELETE", f"/manage/keys/{issued['id']}")
        for url in (stack.url, second.url):
            assert call(url, lead, "GET", "/manage/projects")[0] == 401
        entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        created = [each for each in entries if each["action"] == "token.create" and each["outcome"] == "success"]
        assert [each["actor"] for each in created] == ["management", f"key:{issued['id']}"]
        for file in tmp_path.rglob("*"):
            if file.is_file():
                assert lead.encode() not in file.read_bytes(), file


LISTS = (
    *("tokens", "usage", "usage?group_by=token", "requests", "audit", "alerts", "activity", "activity/top"),
    *("usage?format=csv", "usage?format=focus"),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("keys")) as stack:
        yield stack


def narrowed(path: str, **query: str) -> str:
    return f"/manage/{path}{'&' if '?' in path else '?'}{urlencode(query)}"


def llmproxy(stack: Stack, *command: str) -> tuple[int, str, str]:
    env = {"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT}
    done = run_command(["llmproxy", "--url", stack.url, "--output", "json", *command], timeout=60, env=env)
    return done.returncode, done.stdout, done.stderr


def listed(stack: Stack, secret: str, path: str) -> tuple[int, Any]:
    """What a list says. One that ends leaves its place to the next a moment after its last byte."""
    return eventually(lambda: (reply := call(stack.url, secret, "GET", path))[0] != 503 and reply)


def test_lists_of_a_project_by_its_name(shared: Stack) -> None:
    """Or by its id, in each list and report; a name of another's project is as unknown as none at all."""
    made = [shared.manage("POST", "/manage/projects", {"name": name})["id"] for name in ("Søk & Co", "Twin", "Twin")]
    tokens = [shared.manage("POST", "/manage/tokens", {"project_id": each})["id"] for each in made]
    body = {"name": "Lead", "role": "operator", "projects": [made[0]]}
    lead = shared.manage("POST", "/manage/keys", body)["key"]
    for path in LISTS:
        by_id = listed(shared, MANAGEMENT, narrowed(path, project=made[0]))
        assert by_id == listed(shared, MANAGEMENT, narrowed(path, project="Søk & Co")), path
        assert by_id[0] == 200 and by_id == listed(shared, MANAGEMENT, narrowed(path, project_id=made[0])), path
        assert listed(shared, lead, narrowed(path, project="Søk & Co"))[0] == 200, path
        for wrong in ("Twin", "twin", "Søk", made[1]):
            assert listed(shared, lead, narrowed(path, project=wrong))[0] == 422, (path, wrong)
        for query in ({"project": "nobody"}, {"project": ""}, {"project": "Twin", "project_id": made[0]}):
            assert listed(shared, MANAGEMENT, narrowed(path, **query))[0] == 422, (path, query)
    twins = listed(shared, MANAGEMENT, narrowed("tokens", project="Twin"))[1]["data"]
    assert {each["id"] for each in twins} == {*tokens[1:]}
    for command in (("token", "list"), ("usage", "report"), ("usage", "export"), ("audit", "list"), ("alert", "list")):
        by_name = llmproxy(shared, *command, "--project", "Søk & Co")
        assert by_name[0] == 0, by_name
    assert by_name == llmproxy(shared, *command, "--project", made[0])
    assert llmproxy(shared, *command, "--project", "nobody")[0] == 1
    tagged = json.loads(llmproxy(shared, "token", "list", "--project", "Søk & Co")[1])["data"]
    assert [each["id"] for each in tagged] == [tokens[0]]


def test_what_has_no_tag(shared: Stack) -> None:
    """Is not changed for somebody who names one; for whoever names none, or any, it is."""
    key = shared.manage("POST", "/manage/keys", {"name": "Tagged", "role": "viewer"})["id"]
    for path, method, body in (
        (f"/manage/keys/{key}", "DELETE", None),
        ("/manage/logging", "PATCH", {"level": "info"}),
    ):
        sent = None if body is None else json.dumps(body).encode()
        fields = {"If-Match": '"3"', "Content-Type": "application/json"}
        late = shared.ask(method, path, sent, fields, token=MANAGEMENT)
        assert (late.status, late.header("x-llmproxy-error")) == (412, "precondition_failed"), path
        assert shared.ask(method, path, sent, {**fields, "If-Match": "*"}, token=MANAGEMENT).status in (200, 204), path
