"""C{llmproxy import litellm}."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

import yaml
from click.testing import CliRunner, Result

from llmproxy.cli import main
from llmproxy.config.load import parse

CONFIG = """\
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      rpm: 60
  - model_name: fast
    litellm_params:
      model: gpt-4o-mini
      api_key: sk-in-the-file
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: os.environ/ANTHROPIC_API_KEY}
  - model_name: local
    litellm_params: {model: openai/llama, api_base: "http://10.0.0.5:8000/v1"}
  - model_name: azure-gpt
    litellm_params: {model: azure/gpt, api_base: os.environ/AZURE_API_BASE}
  - model_name: titan
    litellm_params: {model: bedrock/amazon.titan}
litellm_settings:
  fallbacks: [{gpt-4o: [claude]}]
  odd: 1
general_settings:
  master_key: sk-master
"""
KEYS = """\
{"keys": [
  {"key_alias": "it's a team", "max_budget": 20.0, "budget_duration": "30d", "rpm_limit": 60, "models": ["gpt-4o"],
   "spend": 3.5},
  {"key_alias": "old", "blocked": true},
  "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"
]}
"""


class ImportTests(unittest.TestCase):
    def take(self, *arguments: str, config: str = CONFIG, keys: str = KEYS) -> Result:
        with tempfile.TemporaryDirectory() as directory:
            files = [Path(directory) / "config.yaml", Path(directory) / "keys.json"]
            for path, text in zip(files, (config, keys), strict=True):
                path.write_text(text)
            result = CliRunner().invoke(main, ["import", "litellm", str(files[0]), "--keys", str(files[1]), *arguments])
        self.assertNotIn("Traceback", result.output)
        return result

    def test_settings(self) -> None:
        """The settings are right, and hold what the source allowed."""
        result = self.take()
        self.assertEqual(result.exit_code, 0, result.output)
        parse(result.stdout, "a.yaml", {})
        apis = yaml.safe_load(result.stdout)["apis"]
        self.assertEqual(
            {name: (api["provider"], api["base_url"], api["param_whitelist"]["model"]) for name, api in apis.items()},
            {
                "openai": ("openai", "https://api.openai.com", ["gpt-4o", "gpt-4o-mini"]),
                "anthropic": ("anthropic", "https://api.anthropic.com", ["claude-sonnet-4-5"]),
                "openai-2": ("generic", "http://10.0.0.5:8000", ["llama"]),
            },
        )
        for secret in ("sk-in-the-file", "sk-master", "88dc28d0"):
            self.assertNotIn(secret, result.output)

    def test_commands(self) -> None:
        """What makes the project and the tokens, fit for a shell."""
        commands = json.loads(self.take("--output", "json").stdout)["commands"]
        self.assertEqual(
            commands,
            [
                "llmproxy project create --name litellm --api-key openai=env:OPENAI_API_KEY"
                " --api-key anthropic=env:ANTHROPIC_API_KEY --api-key openai-2=prompt",
                "llmproxy token create --project litellm --name 'it'\"'\"'s a team' --rpm 60"
                " --budget-usd 20/month --model gpt-4o",
            ],
        )

    def test_each_entry_by_line(self) -> None:
        """Everything that is there is accounted for, with its line and the reason."""
        notes = json.loads(self.take("--output", "json").stdout)["data"]
        found = {(Path(note["file"]).name, note["line"], note["taken"], note["entry"]) for note in notes}
        for wanted in (
            ("config.yaml", 2, True, "model_list[0]"),
            ("config.yaml", 6, False, "model_list[0].litellm_params.rpm"),
            ("config.yaml", 7, False, "model_list[1].model_name"),
            ("config.yaml", 10, False, "model_list[1].litellm_params.api_key"),
            ("config.yaml", 16, False, "model_list[4].litellm_params.api_base"),
            ("config.yaml", 18, False, "model_list[5].litellm_params.model"),
            ("config.yaml", 20, False, "litellm_settings.fallbacks"),
            ("config.yaml", 21, False, "litellm_settings.odd"),
            ("config.yaml", 23, False, "general_settings.master_key"),
            ("keys.json", 2, True, "it's a team"),
            ("keys.json", 2, False, "it's a team: spend"),
            ("keys.json", 4, False, "old"),
            ("keys.json", 0, False, "keys[2]"),
        ):
            self.assertIn(wanted, found)

    def test_where_to_find_it_here(self) -> None:
        """What is not taken and is there in another place is told where; what has keys of several variables has all."""
        config = """\
model_list:
  - litellm_params: {model: gpt-4o, api_key: os.environ/ONE, timeout: 300, max_retries: 2}
  - litellm_params: {model: text-completion-openai/gpt-3.5-turbo-instruct, api_key: os.environ/TWO}
  - litellm_params: {model: dall-e-3}
  - litellm_params: {model: vertex_ai/gemini-2.5-pro}
litellm_settings: {num_retries: 5, request_timeout: 600, context_window_fallbacks: [], max_budget: 100}
files_settings: [{custom_llm_provider: azure}]
router_settings: {routing_strategy: usage-based-routing-v2, redis_host: os.environ/REDIS_HOST}
general_settings: {pass_through_endpoints: [{path: /v1/rerank}]}
"""
        imported = json.loads(self.take("--output", "json", config=config).stdout)
        (project, *_) = imported["commands"]
        self.assertEqual(
            project, "llmproxy project create --name litellm --api-key openai=env:ONE --api-key openai=env:TWO"
        )
        (api,) = yaml.safe_load(imported["settings"])["apis"].values()
        self.assertIn("/v1/images/generations", api["allowed_endpoints"])
        self.assertIn("/v1/completions", api["allowed_endpoints"])
        details = {note["entry"]: note["detail"] for note in imported["data"]}
        for entry, said in (
            ("model_list[0].litellm_params.timeout", "apis.NAME.timeouts"),
            ("model_list[0].litellm_params.max_retries", "apis.NAME.retries"),
            ("model_list[3].litellm_params.model", "credentials of its own"),
            ("litellm_settings.num_retries", "apis.NAME.retries"),
            ("litellm_settings.request_timeout", "apis.NAME.timeouts"),
            ("litellm_settings.context_window_fallbacks", "never sent to another provider"),
            ("litellm_settings.max_budget", "group"),
            ("files_settings", "allowed_endpoints"),
            ("router_settings.routing_strategy", "nothing is routed"),
            ("router_settings.redis_host", "redis.url"),
            ("general_settings.pass_through_endpoints", "allowed_endpoints"),
        ):
            self.assertIn(said, details[entry])

    def test_a_provider_without_a_model(self) -> None:
        """Is not taken for a model without a name."""
        for model in ("azure/", '"openai/ "', '""'):
            config = CONFIG.replace("model: openai/llama", f"model: {model}")
            result = self.take("--output", "json", config=config)
            found = {(note["line"], note["taken"], note["detail"]) for note in json.loads(result.stdout)["data"]}
            self.assertIn((14, False, "it names no model"), found, found)

    def test_wrong(self) -> None:
        """What is no such file is said to be none."""
        self.assertEqual(self.take(config="a: [").exit_code, 78)
        no_mapping = self.take(config="- a")
        self.assertEqual((no_mapping.exit_code, "must be a mapping" in no_mapping.stderr), (78, True))
        self.assertEqual(self.take(keys="{}").exit_code, 78)
        self.assertEqual(self.take(config="model_list: []").exit_code, 1)
        self.assertEqual(self.take(config=CONFIG.replace("http://10.0.0.5:8000/v1", "nowhere")).exit_code, 78)

    def test_odd_names(self) -> None:
        """A name cannot leave the comment that its command stands in."""
        result = self.take(keys='[{"key_alias": "x\\nevil: 1", "max_budget": "much", "rpm_limit": 1}]')
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertNotIn("evil", yaml.safe_load(result.stdout))
