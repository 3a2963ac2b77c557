from __future__ import annotations

from unittest import TestCase

from llmproxy.access_policy import AccessPolicy
from llmproxy.web.admin.pages.policies import POLICY_FIELDS, policy_facts, policy_inputs, policy_values
from llmproxy.web.manage.policy_bodies import PolicyView, policy_json

POLICY = AccessPolicy(
    apis=("openai",),
    methods=("GET", "POST"),
    endpoints=("GET /v1/models", "/v1/chat/completions"),
    ips=("10.0.0.0/8",),
    max_output_tokens=4096,
    param_whitelist=(("temperature", ("0", "0.5")), ("user", ("a b", "c=d, e"))),
    required_params=("user", "a|b"),
    required_headers=("X-Team",),
    header_values=(("X-Team", ("core",)),),
)


class PolicyForm(TestCase):
    def test_every_rule_has_a_field(self) -> None:
        self.assertEqual({field.name for field in POLICY_FIELDS}, set(PolicyView.model_fields))

    def test_there_and_back(self) -> None:
        """What a form shows is what it sends, rule by rule."""
        for policy in (POLICY, AccessPolicy()):
            there = policy_json(policy)
            form = {each.field.name: each.text for each in policy_inputs(there, {})}
            self.assertEqual(policy_values(form), there)

    def test_as_people_write(self) -> None:
        """What is not in the form is not sent; what is no number stays, for the API to say so."""
        found = policy_values(
            {
                "endpoints": "GET  /v1/models /v1/a,\nPOST /v1/b",
                "max_output_tokens": "4,096",
                "header_values": "\n X-Team = core \nX-Team=data\nnothing",
            }
        )
        self.assertEqual(
            found,
            {
                "endpoints": ["GET /v1/models", "/v1/a", "POST /v1/b"],
                "max_output_tokens": 4096,
                "header_values": {"X-Team": ["core", "data"], "nothing": [""]},
            },
        )
        self.assertEqual(policy_values({"max_output_tokens": "many"}), {"max_output_tokens": "many"})

    def test_refused_text_stays(self) -> None:
        shown = {each.field.name: each.text for each in policy_inputs(policy_json(POLICY), {"apis": "nobody"})}
        self.assertEqual((shown["apis"], shown["methods"]), ("nobody", "GET, POST"))

    def test_facts(self) -> None:
        """What is set, and what is asked for in any case."""
        self.assertEqual(policy_facts(policy_json(AccessPolicy())), [])
        facts = dict(policy_facts(policy_json(POLICY), ("models",)))
        self.assertEqual(facts["Models"], "all")
        self.assertEqual(facts["Parameters may be"], "temperature=0, temperature=0.5, user=a b, user=c=d, e")
        self.assertNotIn("", facts.values())
