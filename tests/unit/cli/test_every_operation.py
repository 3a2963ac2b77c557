"""Whatever the management API does, a command does."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from twisted.internet.defer import ensureDeferred
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from zope.interface import implementer

from tests.unit.cli.daemon import DaemonTestCase

LIMITS = (
    "--rpm 60 --tpm 1000 --concurrency 2 --budget-usd 5/day --budget-tokens 9/day --soft-budget-usd 1/day "
    "--soft-budget-tokens 5/day"
)
RULES = (
    "--api openai --method POST --endpoint /v1/models --model gpt-* --ip 10.0.0.0/8 --max-output-tokens 5 "
    "--allow-param temperature=0 --require-param user --allow-header X-Team=a --require-header X-Team "
    "--label batch --metadata user=ada"
)
WANTED = "--project Team --token tok-1 --api openai --model o3 --status 4xx --outcome refused --error rate_limited"
# In this order, each after all before it.
COMMANDS: dict[str, tuple[str, ...]] = {
    "create_group": (f"group create --name Company {LIMITS}", "group create --name Research --parent Company"),
    "list_groups": ("group list --search Comp",),
    "get_group": ("group show Company",),
    "update_group": (f"group update Research --name Science --no-parent {LIMITS}",),
    "delete_group": ("group delete Science",),
    "create_project": (f"project create --name Team --group Company --api-key openai=env:KEY {RULES} {LIMITS}",),
    "list_projects": ("project list --active --search Tea --label batch",),
    "get_project": ("project show Team",),
    "update_project": (
        f"project update Team --name Team --no-group --api-key anthropic=env:KEY {RULES} {LIMITS}",
        "project update Team --api-key env:KEY",
        "project deactivate Team",
        "project activate Team",
    ),
    "create_token": (
        f"token create --project Team --name laptop --expires-in 24h --max-requests 9 {RULES} {LIMITS}",
        "token create --project Team --expires-at 2027-01-31T12:00:00Z",
    ),
    "list_tokens": ("token list --project Team --inactive --search lap --label batch",),
    "get_token": ("token show tok-1",),
    "update_token": (
        f"token update tok-1 --name desk --expires-in 24h --max-requests 8 {RULES} {LIMITS}",
        "token update tok-1 --expires-at 2027-01-31T12:00:00Z",
    ),
    "revoke_token": ("token revoke tok-2",),
    "revoke_project_tokens": ("token revoke --project Team",),
    "create_key": ("key create --name Lead --role operator --project Team",),
    "list_keys": ("key list",),
    "get_key": ("key show key-1",),
    "revoke_key": ("key revoke key-1",),
    "list_sessions": ("session list",),
    "end_session": (f"session end {'b' * 32}",),
    "revoke_subject": (
        "subject revoke --issuer https://id.example.com ada --issued-before now --reason left",
        "subject revoke oidc:3d38e146:bob",
    ),
    "list_subjects": ("subject list",),
    "restore_subject": ("subject restore --issuer https://id.example.com ada", "subject restore oidc:3d38e146:bob"),
    "report_usage": (
        "usage report --by model --from 2026-11-01 --to 2026-12-01 --project Team",
        "usage export --format csv --project proj-1",
    ),
    "report_activity": ("activity --period 7d --project Team --api openai",),
    "report_most_active": ("activity --by model --period 7d --limit 5 --project Team --api openai",),
    "list_requests": (f"request list {WANTED}",),
    "list_alerts": ("alert list --project Team --owner token --id tok-1",),
    "list_audit": (
        "audit list --project Team --action token.create --actor management --outcome success --token tok-1 "
        "--search tok --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z",
    ),
    "verify_audit": ("audit verify --daemon",),
    "list_apis": ("api list",),
    "get_cache": ("cache stats",),
    "purge_cache": (
        "cache purge --all",
        "cache purge --api openai --project Team --token tok-1 --path /v1/models --header Accept=a --body -",
        "cache purge --api openai --project Team --token tok-1 --path /v1/models --method GET",
        "cache purge --api openai --project Team --token tok-1 --prefix /v1/models",
    ),
    "reload_settings": ("reload",),
    "list_settings": ("config show --daemon",),
    "get_logging": ("log-level",),
    "update_logging": ("log-level debug",),
    "list_upstreams": ("upstream list",),
    "update_upstream": ("upstream drain openai 0",),
    "get_version": ("version",),
    "get_openapi": ("openapi",),
}
# What another operation does as well, which then stands for it.
SAME = {"deactivate_project": "update_project", "report_project_usage": "report_usage"}
# What is not to be had without a store and finished requests; tests/integration shows what becomes of them.
IN_VAIN = {"get_request": ("request show req-1",), "rotate_token": ("token rotate tok-1 --grace 1h",)}
# What the commands have in another way: pages are followed, whatever their number; names stand for ids.
PAGES = {"limit", "offset", "cursor"}
ELSEWHERE = {
    "list_projects": {"id"},  # project show
    "list_groups": {"id"},  # group show
    "list_tokens": {"id"},  # token show
    "create_project": {"api_key", "active"},  # of the default API; project deactivate
    "create_token": {"duration_minutes"},  # --expires-in
    "update_token": {"duration_minutes"},
}


@implementer(IResource)
class RequestNotes:
    """Notes what is asked of another resource."""

    isLeaf = False

    def __init__(self, noted: IResource) -> None:
        self._noted = noted
        self.requests: list[tuple[str, str, dict[str, Any]]] = []

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        asked: Any = request
        body = json.loads(asked.content.read() or b"{}")
        asked.content.seek(0)
        self.requests.append((asked.method.decode(), asked.uri.decode(), body))
        return self._noted.getChildWithDefault(name, request)

    def putChild(self, path: bytes, child: IResource) -> None:
        raise NotImplementedError

    def render(self, request: IRequest) -> bytes:
        raise NotImplementedError


class EveryOperationTests(DaemonTestCase):
    cache_scope = "token"  # where a purge has all its options

    def setUp(self) -> object:  # type: ignore[override]
        super().setUp()
        return ensureDeferred(self.learn())

    def serve(self, resource: IResource) -> str:
        self.notes = RequestNotes(resource)
        return super().serve(self.notes)

    async def learn(self) -> None:
        self.document = json.loads(await self.ok("openapi"))
        self.operations = {
            operation["operationId"]: (method.upper(), path, operation)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
            if method != "parameters"
        }

    async def made(self, line: str, code: int) -> list[tuple[str, str, dict[str, Any]]]:
        """What a command that ends with this code asks for."""
        del self.notes.requests[:]
        done = await self.run_cli(*line.split(), environ={"KEY": "sk-1"}, stdin="a body")
        self.assertEqual(done.exit_code, code, f"llmproxy {line}: {done.output}")
        return list(self.notes.requests)

    def of_operation(self, name: str, requests: list[tuple[str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """The parameters and members of those requests that are of this operation."""
        method, path, _ = self.operations[name]
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", path)
        return [
            {**parse_qs(urlsplit(uri).query), **body}
            for asked, uri, body in requests
            if asked == method and re.fullmatch(pattern, urlsplit(uri).path)
        ]

    async def test_every_operation(self) -> None:
        """Each operation of the OpenAPI document has a command, with options for all its parameters and members."""
        self.assertEqual(set(self.operations), {*COMMANDS, *SAME, *IN_VAIN})
        self.assertLessEqual(set(SAME.values()), set(COMMANDS))
        lacking = {}
        for name, lines in {**COMMANDS, **IN_VAIN}.items():
            asked: set[str] = set()
            for line in lines:
                found = self.of_operation(name, await self.made(line, 1 if name in IN_VAIN else 0))
                self.assertTrue(found, f"llmproxy {line} does not ask for {name}")
                asked.update(*found)
            if missing := self.accepted(name) - asked - ELSEWHERE.get(name, set()):
                lacking[name] = missing
        self.assertEqual(lacking, {})

    def accepted(self, name: str) -> set[str]:
        """What may be said in the query and the body of an operation; pages are the command's own affair."""
        operation = self.operations[name][2]
        query = {each["name"] for each in map(self.resolved, operation.get("parameters", [])) if each["in"] == "query"}
        content = operation.get("requestBody", {}).get("content", {})
        body = self.resolved(content["application/json"]["schema"])["properties"] if content else {}
        if "project" in query:
            query.remove("project_id")
        return (query | set(body)) - PAGES

    def resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        """What a reference leads to."""
        if "$ref" not in value:
            return value
        target: dict[str, Any] = self.document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return target
