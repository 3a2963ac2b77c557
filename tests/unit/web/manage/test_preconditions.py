"""C{ETag}, C{If-Match}, C{Idempotency-Key}; and what holds for lists and errors."""

from __future__ import annotations

from llmproxy.base.coroutines import deferred
from llmproxy.brief_record import parts_of
from llmproxy.errors import ChangedMeanwhile, StoreUnavailable
from llmproxy.errors.management import IdempotencyInProgress, IdempotencyKeyReused
from llmproxy.http.error_body import PROBLEM
from llmproxy.model import RequestRecord
from llmproxy.observability.recent_requests import RecentRequests
from llmproxy.observability.requests_of_workers import RequestsOfWorkers
from llmproxy.web.manage.endpoint import MAX_ATTEMPTS
from llmproxy.web.root import Root
from tests.unit.web.manage.management import ManagementTestCase


class MemoryCreations:
    """As the store keeps them."""

    def __init__(self) -> None:
        self.begun: dict[str, str] = {}
        self.answers: dict[str, str] = {}

    @deferred
    async def begin(self, name: str, fingerprint: str) -> str | None:
        if self.begun.setdefault(name, fingerprint) != fingerprint:
            raise IdempotencyKeyReused
        return self.answers.get(name)

    @deferred
    async def finish(self, name: str, answer: str) -> None:
        self.answers[name] = answer

    @deferred
    async def release(self, name: str) -> None:
        del self.begun[name]


class EntityTagTests(ManagementTestCase):
    def test_what_is_shown_has_a_tag(self) -> None:
        """The same when it is read again, another after a change; use does not change it."""
        project = self.project()
        token = self.token(project_id=project)
        for path in (f"/manage/projects/{project}", f"/manage/tokens/{token}"):
            first = self.ask("GET", path)
            self.assertEqual(self.ask("GET", path)["etag"], first["etag"])
            changed = self.ask("PATCH", path, {"name": "changed"})
            self.assertNotEqual(changed["etag"], first["etag"])
            self.assertEqual(self.ask("GET", path)["etag"], changed["etag"])

    def test_lost_update(self) -> None:
        """Of two who have read the same, the second to change it is told; with the new tag."""
        project = self.project()
        token = self.token(project_id=project)
        for path in (f"/manage/projects/{project}", f"/manage/tokens/{token}"):
            seen = {"If-Match": self.ask("GET", path)["etag"]}
            self.assertEqual(self.ask("PATCH", path, {"name": "first"}, fields=seen).status, 200)
            late = self.ask("PATCH", path, {"name": "second"}, fields=seen)
            self.refused(late, 412)
            self.assertEqual(
                (late["x-llmproxy-error"], self.ask("GET", path).json["name"]), ("precondition_failed", "first")
            )
            self.refused(self.ask("DELETE", path, fields=seen), 412)
            for value in ("*", '"x", {}'):
                value = value.format(late["etag"])
                self.assertEqual(self.ask("PATCH", path, {"concurrency": 3}, fields={"If-Match": value}).status, 200)
                late = self.ask("GET", path)
            self.refused(self.ask("PATCH", path, {"name": "x"}, fields={"If-Match": "3"}), 422, "If-Match")
            self.refused(self.ask("PATCH", path, {"name": "x"}, fields={"If-Match": f"W/{late['etag']}"}), 412)
            self.assertEqual(self.ask("DELETE", path, fields={"If-Match": late["etag"]}).status, 204)

    def test_changed_by_another_process(self) -> None:
        """What came between reading and writing stays; the change is made to that. At some point it is enough."""
        project, others = self.project(), [1, 2]

        def change(name: str) -> None:
            if name == "update_project" and others:
                others.pop()
                raise ChangedMeanwhile

        self.store.before = change
        self.assertEqual(self.ask("PATCH", f"/manage/projects/{project}", {"name": "New"}).status, 200)
        others += [0] * MAX_ATTEMPTS
        self.refused(self.ask("PATCH", f"/manage/projects/{project}", {"name": "Newer"}), 409)


class IdempotencyTests(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.creations = MemoryCreations()
        self.root = Root(manage=self.management(creations=self.creations))

    def test_repeated(self) -> None:
        """Created once; the second answer is the first, with the token, and says so."""
        project = self.project()
        bodies = {
            "/manage/projects": {"name": "x"},
            "/manage/tokens": {"project_id": project},
            "/manage/keys": {"name": "x", "role": "viewer"},
        }
        for path, body in bodies.items():
            fields = {"Idempotency-Key": "one"}
            first, second = (self.ask("POST", path, body, fields=fields) for _ in range(2))
            self.assertEqual((first.status, second.status, second.body), (201, 201, first.body))
            self.assertEqual((second["location"], second["idempotency-replayed"]), (first["location"], "true"))
            self.assertEqual(first.all("idempotency-replayed"), [])
            self.refused(self.ask("POST", path, {**body, "name": "y"}, fields=fields), 422)
            self.assertEqual(self.ask("POST", path, body, fields={"Idempotency-Key": "two"}).status, 201)
        self.assertEqual((len(self.store.projects), len(self.store.tokens), len(self.keys.keys)), (3, 2, 2))

    def test_everybody_has_keys_of_his_own(self) -> None:
        """What somebody else was answered is not shown."""
        fields, admin = {"Idempotency-Key": "one"}, self.key("admin")
        replies = [
            self.ask("POST", "/manage/projects", {"name": "x"}, fields=fields, token=s)
            for s in (admin, self.key("operator"))
        ]
        self.assertNotEqual(replies[0].json["id"], replies[1].json["id"])
        viewer = self.key("viewer")
        self.refused(self.ask("POST", "/manage/projects", {"name": "x"}, fields=fields, token=viewer), 403)

    def test_what_was_refused_may_be_tried_again(self) -> None:
        fields = {"Idempotency-Key": "one"}
        self.refused(self.ask("POST", "/manage/projects", {"nmae": "x"}, fields=fields), 422)
        self.assertEqual(self.ask("POST", "/manage/projects", {"name": "x"}, fields=fields).status, 201)

        def down(name: str) -> None:
            raise StoreUnavailable

        self.store.before = down
        self.refused(self.ask("POST", "/manage/projects", {"name": "y"}, fields={"Idempotency-Key": "two"}), 503)
        self.store.before = lambda name: None
        self.assertEqual(
            self.ask("POST", "/manage/projects", {"name": "y"}, fields={"Idempotency-Key": "two"}).status, 201
        )

    def test_what_is_no_key(self) -> None:
        for key in ("a b", "a" * 256):
            self.refused(self.ask("POST", "/manage/projects", {"name": "x"}, fields={"Idempotency-Key": key}), 422)
        self.assertEqual(self.store.projects, {})

    def test_under_way(self) -> None:
        @deferred
        async def begin(name: str, fingerprint: str) -> str | None:
            raise IdempotencyInProgress(retry_after=1.0)

        self.creations.begin = begin  # type: ignore[method-assign]
        reply = self.ask("POST", "/manage/projects", {"name": "x"}, fields={"Idempotency-Key": "one"})
        self.refused(reply, 409)
        self.assertEqual(reply["retry-after"], "1")


class ConventionTests(ManagementTestCase):
    def test_problems(self) -> None:
        """Errors are problems as RFC 9457 has them, with the members of this proxy's other errors."""
        for path in ("/manage/projects/nobody", "/manage/nothing"):
            reply = self.ask("GET", path)
            self.assertEqual(reply["content-type"], f"application/{PROBLEM}+json")
            shown = reply.json
            self.assertEqual(
                (shown["type"], shown["status"], shown["code"]), ("urn:llmproxy:error:not_found", 404, "not_found")
            )
            self.assertEqual((shown["detail"], shown["title"]), (shown["error"]["message"], "Not found"))
            self.assertEqual(shown["request_id"], reply["x-request-id"])

    def test_filters(self) -> None:
        """Of projects and tokens: active or not, and a part of the name."""
        one, two = self.project(name="Alpha"), self.project(name="Beta", active=False)
        for query, ids in (("active=true", [one]), ("active=false", [two]), ("search=BET", [two]), ("search=x", [])):
            reply = self.ask("GET", f"/manage/projects?{query}").json
            self.assertEqual(([each["id"] for each in reply["data"]], reply["total"]), (ids, len(ids)), query)
        token = self.token(project_id=one, name="laptop")
        self.assertEqual(
            self.ask("GET", f"/manage/tokens?search=lap&active=true&project_id={one}").json["data"][0]["id"], token
        )
        self.refused(self.ask("GET", "/manage/tokens?active=yes"), 422, "active")
        self.refused(self.ask("GET", f"/manage/tokens?search={'x' * 201}"), 422, "search")

    def test_pages_of_requests(self) -> None:
        """What has come since is not on the next page, and nothing is shown twice."""
        requests = RecentRequests(5)
        self.root = Root(manage=self.management(requests=RequestsOfWorkers(requests)))
        record = RequestRecord("r0", 0.0, 0.1, "POST", "/v1/chat/completions", 200, "complete", project_id="p1")
        for number in range(6):
            requests.observe_all([parts_of(record._replace(request_id=f"r{number}"))])
        first = self.ask("GET", "/manage/requests?limit=2").json
        requests.observe_all([parts_of(record._replace(request_id="late"))])
        second = self.ask("GET", f"/manage/requests?limit=2&cursor={first['next_cursor']}").json
        shown = [[each["request_id"] for each in reply["data"]] for reply in (first, second)]
        self.assertEqual(shown, [["r5", "r4"], ["r3", "r2"]])  # r1 was forgotten when the late one came
        self.assertIsNone(second["next_cursor"])
        self.refused(self.ask("GET", "/manage/requests?cursor=x"), 422)

    def test_version(self) -> None:
        reply = self.ask("GET", "/manage/version", token=self.key("viewer", self.project()))
        self.assertEqual((reply.status, reply.json["api"]), (200, "1"))
        self.assertRegex(reply.json["version"], r"^\d")
