"""The management API as it describes itself."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import skipUnless

import jsonschema
import pytest

from llmproxy.web.manage.openapi import OpenApi
from llmproxy.web.manage.roles import LEAST_ROLES, Scope
from llmproxy.web.manage.tree import ENDPOINTS
from tests.unit.web.manage.management import ManagementTestCase

MANUAL = Path(__file__).parents[4] / "docs" / "management.md"


class OpenApiTests(ManagementTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.document = self.ask("GET", "/manage/openapi.json").json

    def schema(self, name: str) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{name}", "components": self.document["components"]}

    def test_every_operation(self) -> None:
        """Every path and method that is served is described, and nothing else."""
        served = {
            (endpoint.path, method.decode().lower())
            for endpoint in (*ENDPOINTS, OpenApi)
            for method in endpoint.operations
        }
        described = {
            (path, method) for path, item in self.document["paths"].items() for method in item if method != "parameters"
        }
        self.assertEqual(described, served)
        self.assertEqual(self.document["openapi"], "3.1.0")

    @skipUnless(find_spec("openapi_spec_validator"), "needs openapi-spec-validator, of the test extra")
    @pytest.mark.long("4 s: the validator goes over the whole document")
    def test_valid(self) -> None:
        """It is an OpenAPI 3.1 document, to the letter of the specification."""
        validator = import_module("openapi_spec_validator").OpenAPIV31SpecValidator
        self.assertEqual([str(error.message) for error in validator(self.document).iter_errors()], [])
        self.document["paths"]["/manage/version"]["get"]["responses"] = {"200": {}}
        self.assertIsNotNone(next(validator(self.document).iter_errors(), None))

    def test_every_operation_says_who_may(self) -> None:
        """The least role, as the table has it."""
        for item in self.document["paths"].values():
            for method, described in item.items():
                if method != "parameters":
                    rule = LEAST_ROLES[described["operationId"]]
                    self.assertEqual(described["x-least-role"], rule.role)
                    self.assertEqual(described["x-bound-keys"], rule.scope is not Scope.WHOLE)

    def test_every_reference_leads_somewhere(self) -> None:
        """A client generator finds all it is pointed to."""
        for name in re.findall(r'"#/components/schemas/([^"]+)"', str(self.document).replace("'", '"')):
            self.assertIn(name, self.document["components"]["schemas"])

    def test_answers_are_as_described(self) -> None:
        """What is answered fits what was promised."""
        project = self.ask("POST", "/manage/projects", {"name": "Team", "api_key": "sk-1"}).json
        token = self.ask("POST", "/manage/tokens", {"project_id": project["id"], "expires_in": "1h"}).json
        for name, answer in {
            "ProjectView": project,
            "TokenIssued": token,
            "ProjectList": self.ask("GET", "/manage/projects").json,
            "TokenList": self.ask("GET", "/manage/tokens").json,
            "CacheView": self.ask("GET", "/manage/cache").json,
            "Purged": self.ask("POST", "/manage/cache/purge", {"all": True}).json,
            "TokenView": self.ask("GET", f"/manage/tokens/{token['id']}").json,
            "Refusal": self.ask("GET", "/manage/tokens/nobody").json,
        }.items():
            jsonschema.validate(answer, self.schema(name))

    def test_bodies_are_as_described(self) -> None:
        """What the description refuses is refused here."""
        for body in ({}, {"name": "x", "naem": "y"}, {"name": "x", "api_keys": {"openai": "a b"}}, {"name": 5}):
            with self.assertRaises(jsonschema.ValidationError):
                jsonschema.validate(body, self.schema("ProjectCreate"))
            self.assertEqual(self.ask("POST", "/manage/projects", body).status, 422)

    def test_open_to_all(self) -> None:
        """Is nothing, this description included."""
        for path, item in self.document["paths"].items():
            for method in item:
                if method != "parameters":
                    self.assertEqual(
                        self.ask(method.upper(), path.replace("{id}", "x").replace("{number}", "0"), token=None).status,
                        401,
                        path,
                    )

    def test_manual(self) -> None:
        """Every path, with its methods, is in the manual."""
        manual = MANUAL.read_text()
        for endpoint in (*ENDPOINTS, OpenApi):
            for method in endpoint.operations:
                self.assertIn(f"`{method.decode()} {endpoint.path}`", manual)

    def test_elsewhere(self) -> None:
        """There is nothing between the paths."""
        for path in ("/manage", "/manage/", "/manage/projects/", "/manage/tokens/a/b", "/manage//projects"):
            self.refused(self.ask("GET", path), 404)
