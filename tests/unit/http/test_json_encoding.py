from __future__ import annotations

from unittest import TestCase

from llmproxy.http.json_encoding import json_encoding


class Encodings(TestCase):
    def test_those_that_json_has_had(self) -> None:
        for name in ("utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le"):
            self.assertEqual(json_encoding('{"a":1}'.encode(name)), name)

    def test_plain(self) -> None:
        for text in ('{"a":1}', "1", "", '{"ü":1}'):
            self.assertEqual(json_encoding(text.encode()), "", text)
