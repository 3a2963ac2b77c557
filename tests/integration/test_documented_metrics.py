"""Each metric of docs/observability.md is one that a daemon shows which has the part that it tells of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.oidc_server import OidcServer
from tests.support.proxy_case import FAST_PATH
from tests.support.redis_server import RedisServer
from tests.support.settings_stack import SettingsStack
from tests.support.stack import MANAGEMENT, eventually

ALERTS = "whsec_" + "c2VjcmV0" * 4
PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
OF_SEVERAL = {"base_url": None, "upstreams": [{"base_url": "http://127.0.0.1:9"}, {"base_url": "http://127.0.0.1:19"}]}


def shown(stack: SettingsStack) -> set[str]:
    page = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    return set(re.findall(r"^# TYPE (llmproxy_\w+) ", page, re.MULTILINE))


def test_by_a_daemon_with_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERTS", ALERTS)
    monkeypatch.delenv(FAST_PATH, raising=False)  # which is one of the parts, also where the other tests do without
    with OidcServer(tmp_path / "oidc.log") as issuer, RedisServer(tmp_path / "redis") as redis:
        oidc = {"issuer": issuer.issuer, "audience": ["llmproxy"]}
        everywhere, alone = tmp_path / "everywhere", tmp_path / "alone"
        everywhere.mkdir()
        alone.mkdir()
        with SettingsStack(
            everywhere,
            {"pool": {**OF_SEVERAL, "probe": {"path": "/v1/models", "interval": "1s"}, "cache": {"ttl": "1m"}}},
            server={"workers": 2},
            redis={"url": redis.url},
            cache={"backend": "redis"},
            limits={"backend": "redis"},
            auth={"oidc": oidc},
            management={"oidc": {**oidc, "roles": {"admin": ["admin"]}}},
            alerts={"webhook": {"url": "http://127.0.0.1:9/", "secret": "env:ALERTS"}},
        ) as stack:
            eventually(lambda: stack.ask("GET", "/v1/models").status == 200)
            found = shown(stack)
        with SettingsStack(alone, cache={"backend": "memory"}) as stack:
            assert stack.ask("GET", "/v1/models").status == 200
            found |= shown(stack)
    documented = set(re.findall(r"^\| `(llmproxy_\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert found == documented
