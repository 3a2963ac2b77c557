"""Of projects and tokens: each status that the document tells occurs, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmproxy.errors import StoreUnavailable
from tests.support.responses import Response
from tests.unit.web.manage.management import ManagementTestCase

OPERATIONS = {
    "list_projects": ("GET", "/manage/projects", None),
    "create_project": ("POST", "/manage/projects", {"name": "New"}),
    "get_project": ("GET", "/manage/projects/{project}", None),
    "update_project": ("PATCH", "/manage/projects/{project}", {"max_output_tokens": 5, "methods": ["POST"]}),
    "deactivate_project": ("DELETE", "/manage/projects/{project}", None),
    "list_tokens": ("GET", "/manage/tokens?label=team=core", None),
    "create_token": ("POST", "/manage/tokens", {"project_id": "{project}", "required_params": ["user"]}),
    "get_token": ("GET", "/manage/tokens/{token}", None),
    "update_token": ("PATCH", "/manage/tokens/{token}", {"header_values": {"X-Team": ["core"]}}),
    "revoke_token": ("DELETE", "/manage/tokens/{token}", None),
}
CHANGES = ("POST", "PATCH", "DELETE")


class Statuses(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.documented: dict[str, set[str]] = {}
        for path in self.ask("GET", "/manage/openapi.json").json["paths"].values():
            for method, described in path.items():
                if method != "parameters":
                    self.documented[described["operationId"]] = set(described["responses"])

    def occurring(self, name: str) -> dict[str, Callable[[], Response]]:
        """How to get each status that is not a success."""
        method, template, body = OPERATIONS[name]
        project = self.project()
        token = self.token(project_id=project)

        def filled(value: Any) -> Any:
            if isinstance(value, dict):
                return {each: filled(part) for each, part in value.items()}
            return value.replace("{project}", project).replace("{token}", token) if isinstance(value, str) else value

        path, given = filled(template), filled(body)

        def call(sent: Any = given, at: str = path, **more: Any) -> Response:
            return self.ask(method, at, sent, **more)

        def guessing() -> Response:
            for _ in range(20):
                call(token="wrong", address="203.0.113.9")
            return call(token="wrong", address="203.0.113.9")

        def without_store() -> Response:
            def down(_: str) -> None:
                raise StoreUnavailable

            self.store.before = down
            return call()

        def in_conflict() -> Response:
            if name == "update_token":
                self.ask("DELETE", path)
            return call()

        ways: dict[str, Callable[[], Response]] = {
            "ok": call,
            "401": lambda: call(token=None),
            "405": lambda: self.ask("PUT", path, given),
            "413": lambda: call(b"x" * (1024 * 1024 + 1)),
            "429": guessing,
            "503": without_store,
        }
        if method in CHANGES:
            viewer = self.key("viewer")
            ways["403"] = lambda: call(token=viewer)
        if method in ("POST", "PATCH"):
            ways["400"] = lambda: call(b"no JSON")
            ways["422"] = lambda: call({**given, "max_output_tokens": 0})
        elif name.startswith("list_"):
            ways["422"] = lambda: call(at=path.partition("?")[0] + "?label=%00")
        elif method == "DELETE":
            ways["422"] = lambda: call(fields={"If-Match": "nonsense"})
        if "{" in template:
            ways["404"] = lambda: call(at=path.rpartition("/")[0] + "/nobody")
        elif name == "create_token":
            ways["404"] = lambda: call({**given, "project_id": "nobody"})
        if method in ("PATCH", "DELETE"):
            ways["412"] = lambda: call(fields={"If-Match": '"77"'})
        if name == "update_token":
            ways["409"] = in_conflict
        return ways

    def test_each(self) -> None:
        for name in OPERATIONS:
            documented = self.documented[name]
            success = {"create_project": "201", "create_token": "201"}.get(name, "200")
            success = "204" if OPERATIONS[name][0] == "DELETE" else success
            seen = set()
            for status, way in self.occurring(name).items():
                with self.subTest(operation=name, status=status):
                    reply = way()
                    self.assertEqual(str(reply.status), success if status == "ok" else status, reply.body)
                    self.assertIn(str(reply.status), documented)
                    seen.add(str(reply.status))
                self.store.before = lambda _: None
            # 400 for what is no HTTP; 403 for somebody whose identity provider knows him, and who may not sign in; 409
            # for those who change the same at once.
            elsewhere = {"400", "403", "409"}
            self.assertEqual(documented - seen - elsewhere, set(), name)
