"""L{llmproxy.config.schema}: what editors know of the settings file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from unittest import TestCase

import yaml
from jsonschema import Draft202012Validator

from llmproxy.config.schema import schema

ETC = Path(__file__).parents[3] / "etc"
API = {"base_url": "https://x", "allowed_endpoints": ["/v1/models"]}


class Schema(TestCase):
    validator: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.validator = Draft202012Validator(schema())  # half a second

    def faults(self, settings: Any) -> list[str]:
        return [fault.json_path for fault in self.validator.iter_errors(settings)]

    def test_the_file_is_up_to_date(self) -> None:
        """If this fails: C{python -m llmproxy.config.schema > etc/apis.schema.json}."""
        self.assertEqual(json.loads((ETC / "apis.schema.json").read_text("utf-8")), schema())

    def test_it_is_a_schema(self) -> None:
        """Of the draft that it says."""
        Draft202012Validator.check_schema(schema())

    def test_the_shipped_settings(self) -> None:
        """They follow it, and tell an editor where it is."""
        text = (ETC / "apis.yaml").read_text("utf-8")
        self.assertTrue(text.startswith("# yaml-language-server: $schema=apis.schema.json\n"))
        self.assertEqual(self.faults(yaml.safe_load(text)), [])

    def test_faults(self) -> None:
        """What a person gets wrong is underlined."""
        for settings, path in (
            ({}, "$"),
            ({"apis": {}}, "$.apis"),
            ({"apis": {"x": API}, "on": 1}, "$"),
            ({"apis": {"metrics": API}}, "$.apis"),
            ({"apis": {"X": API}}, "$.apis"),
            ({"apis": {"x": {**API, "timeouts": {"idle": 30}}}}, "$.apis.x.timeouts.idle"),
            ({"apis": {"x": {**API, "timeouts": {"idle": "fast"}}}}, "$.apis.x.timeouts.idle"),
            ({"apis": {"x": {**API, "provider": "opnai"}}}, "$.apis.x.provider"),
            ({"apis": {"x": {**API, "allowed_methods": ["get"]}}}, "$.apis.x.allowed_methods[0]"),
            ({"apis": {"x": {**API, "base_url": "ftp://x"}}}, "$.apis.x.base_url"),
            ({"apis": {"x": API}, "server": {"max_connections": 0}}, "$.server.max_connections"),
            ({"apis": {"x": API}, "server": {"max_head_bytes": "big"}}, "$.server.max_head_bytes"),
            ({"apis": {"x": API}, "cache": {"enabled": "yes"}}, "$.cache.enabled"),
        ):
            self.assertEqual(self.faults(settings), [path], settings)

    def test_ways_to_say_it(self) -> None:
        """Units, zeros and variables are all right."""
        api = {**API, "timeouts": {"idle": "1m30s", "request": 0, "connect": "${T}"}, "base_url": "${BASE}"}
        server = {
            "max_connections": "${N:-2}",
            "max_head_bytes": 5,
            "max_request_bytes": "1 MiB",
            "debug_headers": "${D}",
        }
        sinks = [{"type": "mine", "anything": {"at": "all"}}]
        self.assertEqual(self.faults({"apis": {"x": api}, "server": server, "events": {"sinks": sinks}}), [])
