"""Problem details (RFC 9457): what exactly is wrong with a request, for programs."""

from __future__ import annotations

from typing import Any

from tests.unit.web.manage.management import ManagementTestCase


class ProblemTests(ManagementTestCase):
    def faults(self, method: str, path: str, body: object = None, **fields: str) -> list[tuple[str, str]]:
        """Where they are: the kind of place, and its name."""
        reply = self.ask(method, path, body, fields={name.replace("_", "-"): value for name, value in fields.items()})
        self.assertIn(reply.status, (400, 422), reply.body)
        self.assertEqual(reply["content-type"], "application/problem+json")
        errors: list[dict[str, Any]] = reply.json["errors"]
        self.assertTrue(all(each.get("detail") for each in errors), errors)
        return [(kind, each[kind]) for each in errors for kind in each if kind != "detail"]

    def test_members_of_a_body(self) -> None:
        """Each by a JSON pointer that resolves in what was sent, or names the member that is missing."""
        for body, pointers in (
            ({}, ["#/name"]),
            ({"name": 5, "concurrency": "x", "bogus": 1}, ["#/concurrency", "#/name", "#/bogus"]),
            ({"name": "x", "labels": ["fine", "not fine!"]}, ["#/labels/1"]),
            ({"name": "x", "metadata": {"ok": ""}}, ["#/metadata/ok"]),
            ({"name": "x", "api_key": "sk 1"}, ["#/api_key"]),
            ({"name": "x", "api_keys": {"openai": ["sk-1", "sk 2"]}}, ["#/api_keys/openai/1"]),
            ({"name": "x", "api_key": "sk-1", "api_keys": {"openai": "sk-1"}}, ["#/api_key"]),
            ({"name": "x", "budget_usd": "much"}, ["#/budget_usd"]),
            ({"name": "x", "budget_usd": ["1/day", "much"]}, ["#/budget_usd/1"]),
            ([], ["#"]),
        ):
            found = self.faults("POST", "/manage/projects", body)
            self.assertEqual(sorted(found), sorted(("pointer", each) for each in pointers), body)

    def test_a_secret_in_the_wrong_place(self) -> None:
        """Is not repeated: the pointer leads to what it is in."""
        reply = self.ask("POST", "/manage/projects", {"name": "x", "api_keys": {"sk-proj-secret!": "openai"}})
        self.assertEqual([each["pointer"] for each in reply.json["errors"]], ["#/api_keys"])
        self.assertNotIn(b"sk-proj", reply.body)

    def test_a_body_that_is_none(self) -> None:
        for body in (b"", b"{", b'{"name": "x", "name": "y"}'):
            self.assertEqual(self.faults("POST", "/manage/projects", body), [("pointer", "#")])

    def test_what_does_not_exist(self) -> None:
        """Of what a body names: the member that names it."""
        project = self.project()
        token = {"project_id": project, "endpoints": ["/v1/unheard-of"]}
        self.assertEqual(self.faults("POST", "/manage/tokens", token), [("pointer", "#/endpoints")])
        key = {"name": "x", "role": "viewer", "projects": ["unheard-of"]}
        self.assertEqual(self.faults("POST", "/manage/keys", key), [("pointer", "#/projects")])
        for time in ("0862-12-09T23:52:11Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
            body = {"id": "plugin:ada", "issued_before": time}
            self.assertEqual(self.faults("POST", "/manage/subjects/revoke", body), [("pointer", "#/issued_before")])
        subject = {"issuer": "https://elsewhere.example.com", "sub": "ada"}
        self.assertEqual(self.faults("POST", "/manage/subjects/revoke", subject), [("pointer", "#/issuer")])

    def test_parameters(self) -> None:
        """Of the query, by their names."""
        for path, name in (
            ("/manage/projects?limit=0", "limit"),
            ("/manage/projects?offset=-1", "offset"),
            ("/manage/projects?active=maybe", "active"),
            ("/manage/projects?bogus=1", "bogus"),
            ("/manage/projects?limit=1&limit=2", "limit"),
            ("/manage/usage?group_by=colour", "group_by"),
            ("/manage/usage?from=yesterday", "from"),
            ("/manage/usage?format=xml", "format"),
            ("/manage/activity?period=ever", "period"),
            ("/manage/requests?status=9", "status"),
            ("/manage/audit?since=yesterday", "since"),
            ("/manage/audit?search=" + "x" * 300, "search"),
            ("/manage/alerts?owner=nobody", "owner"),
        ):
            self.assertEqual(self.faults("GET", path), [("parameter", name)], path)

    def test_header_fields(self) -> None:
        project = self.project()
        path = f"/manage/projects/{project}"
        self.assertEqual(self.faults("PATCH", path, {"name": "x"}, If_Match="x"), [("header", "If-Match")])

    def test_other_refusals_have_none(self) -> None:
        self.assertNotIn("errors", self.ask("GET", "/manage/projects/unheard-of").json)
