"""Who may do what: every route against every role, bound to projects and not."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from llmproxy.web.manage.openapi import OpenApi
from llmproxy.web.manage.roles import BOOTSTRAP, LEAST_ROLES, RANKS, UNLISTED, Principal, Scope
from llmproxy.web.manage.tree import ENDPOINTS
from tests.support.responses import Response
from tests.unit.web.manage.management import ManagementTestCase

BODIES = {
    "create_project": {"name": "New"},
    "update_project": {"concurrency": 3},
    "create_token": {"project_id": "{project}"},
    "update_token": {"name": "changed"},
    "purge_cache": {"project_id": "{project}"},
    "create_group": {"name": "New"},
    "update_group": {"concurrency": 3},
    "revoke_subject": {"id": "plugin:ada"},
    "restore_subject": {"id": "plugin:ada"},
    "create_key": {"name": "another", "role": "viewer"},
    "update_upstream": {"state": "draining"},
    "update_logging": {"level": "warn"},
}
GENERATED = "/manage/openapi.json"


class Route(NamedTuple):
    """One operation, and where it is."""

    name: str
    method: str
    path: str


ROUTES = [
    Route(each.name, each.method.decode(), endpoint.path)
    for endpoint in (*ENDPOINTS, OpenApi)
    for each in endpoint.operations.values()
]


class RolesTestCase(ManagementTestCase):
    """Two projects, each with a token."""

    def setUp(self) -> None:
        super().setUp()
        self.mine, self.other = self.project(name="Mine"), self.project(name="Other")
        self.tokens = {each: self.token(project_id=each) for each in (self.mine, self.other)}

    def call(self, route: Route, secret: str, project: str) -> Response:
        """Do it with what belongs to this project."""
        named = {"{project}": project}
        body = BODIES.get(route.name)
        given = None if body is None else {name: named.get(str(value), value) for name, value in body.items()}
        path = route.path.replace("/tokens/{id}", f"/tokens/{self.tokens[project]}")
        path = path.replace("{id}", self.path_id(route, project)).replace("{number}", "0")
        return self.ask(route.method, path, given, token=secret)

    def path_id(self, route: Route, project: str) -> str:
        return project if route.path.startswith("/manage/projects/") else "key-1" if "keys" in route.path else "nobody"


class RouteTests(RolesTestCase):
    def test_every_operation_is_in_the_table(self) -> None:
        """And the table has nothing else, but for the metrics and the sessions of the admin pages."""
        elsewhere = {"get_metrics", "list_sessions", "end_session"}
        self.assertEqual({route.name for route in ROUTES} | elsewhere, set(LEAST_ROLES))

    def test_whoever_changes_something_is_no_viewer(self) -> None:
        for endpoint in (*ENDPOINTS, OpenApi):
            for each in endpoint.operations.values():
                if each.action or each.method != b"GET":
                    self.assertNotEqual(LEAST_ROLES[each.name].role, "viewer", each.name)

    def test_every_route_by_every_role(self) -> None:
        """A role below the least one is refused with 403, whatever the route; one that suffices is not."""
        secrets = {role: self.key(role) for role in RANKS}
        for route in ROUTES:
            for role, secret in secrets.items():
                reply = self.call(route, secret, self.mine)
                enough = RANKS[role] >= RANKS[LEAST_ROLES[route.name].role]
                if enough:
                    self.assertIn(reply.status, (200, 201, 204, 404, 409), (route, role, reply.body))
                    self.assertNotIn(b"role_not_allowed", reply.body)
                else:
                    self.assertEqual(
                        (reply.status, reply["x-llmproxy-error"]), (403, "role_not_allowed"), (route, role)
                    )
            self.keys.keys = {
                name: replace(key, deactivated_at=None) for name, key in list(self.keys.keys.items())[: len(RANKS)]
            }

    def test_every_route_by_somebody_bound(self) -> None:
        """What belongs to another project is not there for him: neither shown, nor listed, nor changed."""
        for role in RANKS:
            secret = self.key(role, self.mine)
            for route in ROUTES:
                before = (dict(self.store.projects), dict(self.store.tokens))
                reply = self.call(route, secret, self.other)
                rule = LEAST_ROLES[route.name]
                if rule.scope is Scope.WHOLE or RANKS[role] < RANKS[rule.role]:
                    self.assertEqual(reply["x-llmproxy-error"], "role_not_allowed", (route, role))
                elif rule.scope in (Scope.PROJECT, Scope.TOKEN):
                    self.assertEqual(reply.status, 404, (route, role))
                elif route.path != GENERATED:
                    self.assertIn(reply.status, (200, 403, 404), (route, role, reply.body))
                self.assertNotIn(
                    self.other.encode(), reply.body.replace(b"There is no project " + self.other.encode(), b"")
                )
                self.assertNotIn(b"Other", reply.body)
                self.assertEqual((self.store.projects, self.store.tokens), before, (route, role))

    def test_of_others_as_if_it_were_not_there(self) -> None:
        """Whoever is bound cannot tell what belongs to others from what nobody has."""
        secret = self.key("operator", self.mine)
        for path, there, nobody in (
            ("/manage/projects/{}", self.other, "nobody"),
            ("/manage/tokens/{}", self.tokens[self.other], "nobody"),
        ):
            replies = [self.ask("GET", path.format(each), token=secret) for each in (there, nobody)]
            said = [r.json["error"]["message"].replace(i, "x") for r, i in zip(replies, (there, nobody), strict=True)]
            self.assertEqual([reply.status for reply in replies], [404, 404])
            self.assertEqual(said[0], said[1])

    def test_lists_of_somebody_bound(self) -> None:
        """Has his projects and their tokens, whatever he asks for; usage and activity are theirs too."""
        secret = self.key("viewer", self.mine)
        for path, ids in (
            ("/manage/projects", [self.mine]),
            ("/manage/tokens", [self.tokens[self.mine]]),
            (f"/manage/tokens?project_id={self.mine}", [self.tokens[self.mine]]),
            (f"/manage/tokens?project_id={self.other}", []),
        ):
            reply = self.ask("GET", path, token=secret)
            self.assertEqual([each["id"] for each in reply.json["data"]], ids, path)
        self.ask("GET", "/manage/usage", token=secret)
        self.ask("GET", f"/manage/usage?project_id={self.other}", token=secret)
        self.ask("GET", f"/manage/usage?format=csv&project_id={self.mine}", token=secret)
        self.assertEqual([question.projects for question in self.usage.asked], [(self.mine,), (), (self.mine,)])

    def test_a_team_lead(self) -> None:
        """Changes the limits and tokens of his project; its keys, its name and whether it counts are not his."""
        secret = self.key("operator", self.mine)
        path = f"/manage/projects/{self.mine}"
        self.assertEqual(self.ask("PATCH", path, {"budget_usd": "5/day"}, token=secret).status, 200)
        self.assertEqual(self.last().actor, "key:key-1")
        made = self.ask("POST", "/manage/tokens", {"project_id": self.mine}, token=secret)
        self.assertEqual(made.status, 201)
        self.assertEqual(self.ask("DELETE", f"/manage/tokens/{made.json['id']}", token=secret).status, 204)
        for body in ({"api_key": "sk-1"}, {"active": False}, {"name": "x"}, {"concurrency": 1, "api_keys": {}}):
            self.refused(self.ask("PATCH", path, body, token=secret), 403, "limits")
        admin = self.key("admin", self.mine)
        self.assertEqual(self.ask("PATCH", path, {"api_key": "sk-1", "name": "x"}, token=admin).status, 200)

    def test_refused_changes_are_audited(self) -> None:
        """With who tried."""
        self.ask("POST", "/manage/projects", {"name": "x"}, token=self.key("viewer"))
        entry = self.last()
        self.assertEqual((entry.action, entry.actor, entry.outcome), ("project.create", "key:key-1", "failure"))
        self.assertEqual(entry.details["error"], "role_not_allowed")


class PrincipalTests(ManagementTestCase):
    def test_may(self) -> None:
        """What pages ask before they show a button."""
        lead = Principal("Lead", "operator", ("p1",))
        self.assertTrue(lead.may("create_token", "p1"))
        self.assertTrue(lead.may("create_token"))
        self.assertFalse(lead.may("create_token", "p2"))
        self.assertFalse(lead.may("create_project"))
        self.assertFalse(lead.may("list_keys"))
        self.assertTrue(lead.may("get_openapi", "p2"))
        self.assertTrue(BOOTSTRAP.may("create_token", "p2"))

    def test_what_is_in_no_table(self) -> None:
        """Is for an admin of everything."""
        self.assertEqual(UNLISTED.role, "admin")
        self.assertTrue(BOOTSTRAP.may("something_new"))
        for principal in (Principal("", "operator"), Principal("", "admin", ("p1",))):
            self.assertFalse(principal.may("something_new", "p1"))
