from __future__ import annotations

import json
from unittest import TestCase

from llmproxy.errors import Conflict, FieldProblem, Invalid
from llmproxy.web.admin.pages.form_problems import problem_text
from llmproxy.web.manage.bodies import ProjectChange, TokenChange, read
from llmproxy.web.manage.body_types import Body, BodyContext

KNOWN = BodyContext(("openai",), "openai", 1_794_992_800.0)


class FormProblems(TestCase):
    def refused(self, kind: type[Body], body: object) -> str:
        with self.assertRaises(Invalid) as caught:
            read(kind, json.dumps(body).encode(), KNOWN)
        return problem_text(caught.exception)

    def test_fields_are_called_as_in_the_form(self) -> None:
        for body, said in (
            ({"budget_usd": ["ten", "dollars"]},
             "Budget in dollars: is not a budget (try 20/month or 0.50/day; periods are day, month and lifetime)."),
            ({"budget_usd": ["5/day", "6/day"]},
             "Budget in dollars: there must be at most one budget for each period."),
            ({"requests_per_minute": "many"}, "Requests per minute: must be a whole number, such as 60."),
            ({"requests_per_minute": 0}, "Requests per minute: must be at least 1."),
            ({"tokens_per_minute": 10**20}, "Tokens per minute: must be at most 1,000,000,000,000."),
            ({"name": ""}, "Name: must not be empty."),
            ({"name": "x" * 201}, "Name: must have at most 200 characters."),
            ({"metadata": {"a b": "x"}}, "Metadata: must be written otherwise, such as owner=ada, a line each."),
            ({"concurrency": "x", "labels": ["?"]},
             "Labels: must be written otherwise, such as batch, team:search. "
             "Concurrent requests: must be a whole number, such as 10."),
        ):  # fmt: skip
            for kind in (ProjectChange, TokenChange):
                self.assertEqual(self.refused(kind, body), f"Nothing was saved. {said}")

    def test_what_is_of_no_field_is_said_as_it_is(self) -> None:
        for error in (
            Conflict("There is one of that name."),
            Invalid("Something is wrong."),
            Invalid("nowhere: is wrong", [FieldProblem("is wrong", "pointer", "#/nowhere")]),
            Invalid("cursor: is wrong", [FieldProblem("is wrong", "parameter", "cursor")]),
        ):
            self.assertEqual(problem_text(error), error.message)
