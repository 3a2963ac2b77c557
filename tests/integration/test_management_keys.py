"""Management keys through the real daemon: roles, projects, revocation, the audit log, restarts."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.stack import Stack, eventually


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
