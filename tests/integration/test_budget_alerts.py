"""Alerts of budgets through the daemon: once, to everybody who is to know, whichever process notices."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST, free_port, run_command
from tests.support.redis_server import RedisServer
from tests.support.stack import MANAGEMENT, Stack, eventually
from tests.support.tls import TLSInFront
from tests.support.webhook_receiver import Delivery, WebhookReceiver
from tests.support.workers import WorkerStack
from tests.unit.wire.authority import Authority

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "max_tokens": 30, "messages": [{"role": "user", "content": "x"}]}).encode()
SECRET = "a secret that signs alerts"
ENV = {"ALERTS_SECRET": SECRET}
PATIENCE = 60.0


def alerts(url: str, **more: object) -> str:
    fields = {"url": url, "secret": "env:ALERTS_SECRET", **more}
    return f"\nalerts: {json.dumps({'webhook': fields})}\n"


def ask(stack: Stack, token: str | None = None, port: int | None = None) -> int:
    """The tokens that a request used; 0 where it was refused."""
    answer = stack.ask("POST", CHAT, BODY, token=token or stack.token, port=port or stack.daemon.port)
    assert answer.status in (200, 429), answer.body
    return int(answer.json["usage"]["total_tokens"]) if answer.status == 200 else 0


def issued(stack: Stack, **limits: Any) -> tuple[str, str]:
    made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, "name": "Alerted", **limits})
    return str(made["id"]), str(made["token"])


def listed(stack: Stack, owner_id: str) -> list[dict[str, Any]]:
    return list(stack.manage("GET", f"/manage/alerts?owner_id={owner_id}")["data"])


def thresholds(found: list[dict[str, Any]]) -> list[int | None]:
    return sorted((each["threshold"] for each in found), key=lambda each: each or 0)


def of(receiver: WebhookReceiver, owner_id: str) -> list[Delivery]:
    return [each for each in list(receiver.deliveries) if each.content["owner_id"] == owner_id]


def metric(stack: Stack, name: str) -> float:
    answer = stack.ask("GET", "/metrics", token=MANAGEMENT)
    found = re.search(rf"^llmproxy_{name}(?:{{[^}}]*}})? (\S+)$", answer.body.decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def shared(receiver: WebhookReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("alerts"), further=alerts(receiver.url), env=ENV) as stack:
        yield stack


def test_everybody_is_told_once(shared: Stack, receiver: WebhookReceiver) -> None:
    """Of each threshold: the management API, the audit log, the events, the log and the webhook, which is signed."""
    each = ask(shared)
    token_id, token = issued(shared, budget_tokens=f"{each * 100}/month")
    for _ in range(79):
        ask(shared, token)
    assert not listed(shared, token_id)
    for _ in range(3):
        ask(shared, token)
    [alert] = eventually(lambda: listed(shared, token_id), PATIENCE)
    assert (alert["type"], alert["threshold"], alert["soft"]) == ("budget.threshold", 80, False)
    assert (alert["owner"], alert["name"], alert["project_id"]) == ("token", "Alerted", shared.project)
    assert (alert["budget"], alert["period"], alert["allowed"]) == ("budget_tokens", "month", each * 100)
    assert each * 80 <= alert["spent"] <= each * 82
    assert alert["text"].endswith('of the token "Alerted" is spent (80 % reached).')
    while ask(shared, token):
        pass
    eventually(lambda: {None, 80} <= set(thresholds(listed(shared, token_id))), PATIENCE)
    ask(shared, token)
    eventually(lambda: all(each["delivered_at"] for each in listed(shared, token_id)), PATIENCE)
    found = listed(shared, token_id)
    deliveries = of(receiver, token_id)
    assert sorted(each.fields["webhook-id"] for each in deliveries) == sorted(each["id"] for each in found)
    assert all(each.is_signed_with(SECRET) and not each.is_signed_with("another") for each in deliveries)
    assert {each.content["type"] for each in deliveries} == {"budget.threshold", "budget.refusal"}

    def audited() -> list[dict[str, Any]]:
        entries = shared.manage("GET", f"/manage/audit?action=budget.alert&token_id={token_id}")["data"]
        return list(entries) if len(entries) >= len(found) else []

    entries = eventually(audited, PATIENCE)
    assert sorted(each["details"]["id"] for each in entries) == sorted(each["id"] for each in found)
    assert {(each["actor"], each["project_id"]) for each in entries} == {("proxy", shared.project)}

    def published() -> bool:
        return sorted(each["id"] for each in shared.events() if each.get("owner_id") == token_id) == sorted(
            each["id"] for each in found
        )

    eventually(published, PATIENCE)
    assert found[0]["text"] in shared.daemon.output().replace('\\"', '"')
    assert SECRET not in shared.daemon.output()
    assert metric(shared, "webhook_deliveries_total") >= len(found)


def test_a_reload(tmp_path: Path, receiver: WebhookReceiver) -> None:
    """Other thresholds count from then on; what a receiver that is away has not got goes to the new one; one whose
    secret is not there changes nothing."""

    def chosen(url: str, thresholds: str, **more: object) -> str:
        return alerts(url, **more).replace("{", f'{{"thresholds": {thresholds}, ', 1)

    first = chosen(f"http://{HOST}:{free_port()}/", "[50]")  # where nobody listens
    with Stack(tmp_path, further=first, env=ENV) as stack:
        settings = tmp_path / "llmproxy.yaml"
        before = settings.read_text()

        def reload(further: str) -> int:
            settings.write_text(before.replace(first, further))
            answer = stack.ask("POST", "/manage/reload", b"", token=MANAGEMENT)
            assert answer.status != 200 or not answer.json["needs_restart"], answer.body
            return answer.status

        each = ask(stack)
        token_id, token = issued(stack, budget_tokens=f"{each * 30}/month")
        for _ in range(18):
            ask(stack, token)
        eventually(lambda: thresholds(listed(stack, token_id)) == [50], PATIENCE)
        eventually(lambda: metric(stack, "webhook_failures_total"), PATIENCE)
        assert reload(chosen(receiver.url, "[50]", secret="env:NOT_SET")) == 422
        assert reload(chosen(receiver.url, "[20, 50]")) == 200
        ask(stack, token)
        eventually(lambda: thresholds(listed(stack, token_id)) == [20, 50], PATIENCE)
        eventually(lambda: len(of(receiver, token_id)) >= 2, PATIENCE)
        assert {delivery.content["threshold"] for delivery in of(receiver, token_id)} == {20, 50}
        assert reload("\nalerts: {thresholds: []}\n") == 200
        while ask(stack, token):
            pass
        assert thresholds(listed(stack, token_id)) == [20, 50]  # nothing is alerted meanwhile
        assert reload(chosen(receiver.url, "[20, 50]")) == 200
        assert not ask(stack, token)
        eventually(lambda: None in thresholds(listed(stack, token_id)), PATIENCE)


def test_a_soft_budget_only_warns(shared: Stack, receiver: WebhookReceiver) -> None:
    """Of a token, a project and a group; nothing is refused, also where no price is known."""
    group_id = shared.manage("POST", "/manage/groups", {"name": "Soft", "soft_budget_usd": "0.000001/day"})["id"]
    body = {"name": "Softer", "api_keys": dict(shared.keys), "group_id": group_id, "soft_budget_usd": "0.000001"}
    project_id = shared.manage("POST", "/manage/projects", body)["id"]
    made = shared.manage("POST", "/manage/tokens", {"project_id": project_id, "soft_budget_tokens": ["1/day", "5"]})
    for _ in range(4):
        assert ask(shared, made["token"])
    unpriced = BODY.replace(b"gpt-4o", b"nobody-prices-this")
    assert shared.ask("POST", CHAT, unpriced, token=made["token"]).status != 403
    for owner, owner_id, count in (("group", group_id, 3), ("project", project_id, 3), ("token", made["id"], 6)):
        found = eventually(lambda: len(listed(shared, owner_id)) == count and listed(shared, owner_id), PATIENCE)  # noqa: B023
        assert {each["soft"] for each in found} == {True}
        assert {each["owner"] for each in found} == {owner}
        assert {each["threshold"] for each in found} == {80, 95, 100}
        eventually(lambda: len(of(receiver, owner_id)) == count, PATIENCE)  # noqa: B023
    limits = shared.manage("GET", f"/manage/tokens/{made['id']}")["limits"]
    assert [(each["limit"], each["period"], each["allowed"]) for each in limits] == [
        ("soft_budget_tokens", "day", 1),
        ("soft_budget_tokens", "lifetime", 5),
    ]
    assert limits[0]["used"] > 1


def test_an_api_that_warns(tmp_path: Path) -> None:
    """An API's soft budgets are in the settings, C{soft_budget_usd} and C{soft_budget_tokens}."""
    with Stack(tmp_path, "limits: {soft_budget_usd: 0.000001/day, soft_budget_tokens: 1/month}") as stack:
        assert ask(stack) and ask(stack)
        found = eventually(lambda: len(listed(stack, "openai")) == 6 and listed(stack, "openai"), PATIENCE)
        assert {each["owner"] for each in found} == {"api"}
        assert {each["budget"] for each in found} == {"soft_budget_usd", "soft_budget_tokens"}


def test_not_again_after_a_restart_unless_changed(shared: Stack, receiver: WebhookReceiver) -> None:
    """What was alerted stays so in another process; a budget that is another now is alerted of anew."""
    token_id, token = issued(shared, soft_budget_tokens="1/day")
    ask(shared, token)
    eventually(lambda: len(of(receiver, token_id)) == 3, PATIENCE)
    with shared.another("later") as later:
        for _ in range(5):
            ask(shared, token, later.port)
        other_id, other = issued(shared, soft_budget_tokens="1/day")
        ask(shared, other, later.port)
        eventually(lambda: len(of(receiver, other_id)) == 3, PATIENCE)  # by then it has looked at the first one too
        assert len(listed(shared, token_id)) == 3
        shared.manage("PATCH", f"/manage/tokens/{token_id}", {"soft_budget_tokens": "2/day"})
        eventually(lambda: bool(ask(shared, token)) and len(listed(shared, token_id)) == 6, PATIENCE)
    assert len({each.fields["webhook-id"] for each in of(receiver, token_id)}) == len(of(receiver, token_id))


@pytest.mark.parametrize(
    "redis", [False, pytest.param(True, marks=pytest.mark.long("4 s: with counters in Redis, as without"))]
)
@pytest.mark.long("5 s: alerts of several workers, as of one process")
def test_several_workers_alert_once(tmp_path: Path, redis: bool) -> None:
    """Three workers that all spend of one budget; with limits in Redis likewise."""
    with WebhookReceiver() as receiver, RedisServer(tmp_path) as server:
        counted = f'limits: {{backend: redis}}\nredis: {{url: "{server.url}"}}\n' if redis else ""
        with WorkerStack(tmp_path, 3, further=alerts(receiver.url) + counted, env=ENV) as stack:
            token_id, token = issued(stack, soft_budget_tokens="100/day")
            with ThreadPoolExecutor(12) as many:
                assert all(many.map(lambda _: ask(stack, token), range(60)))
            eventually(lambda: len(of(receiver, token_id)) == 3, PATIENCE)
            with ThreadPoolExecutor(12) as many:
                assert all(many.map(lambda _: ask(stack, token), range(60)))
            second, token = issued(stack, soft_budget_tokens="1/day")
            for _ in range(6):
                ask(stack, token)
            eventually(lambda: len(of(receiver, second)) == 3, PATIENCE)
            assert len(of(receiver, token_id)) == 3
            assert thresholds(listed(stack, token_id)) == [80, 95, 100]


def test_a_receiver_that_fails(tmp_path: Path) -> None:
    """Is asked again with the same id after 500, and not after 400; what was never delivered, after a restart."""
    with WebhookReceiver() as receiver:
        receiver.statuses += [500, 503, 204, 400]
        with Stack(tmp_path, further=alerts(receiver.url, attempts=3), env=ENV) as stack:
            token_id, token = issued(stack, soft_budget_tokens="1/day")
            ask(stack, token)
            eventually(lambda: len(of(receiver, token_id)) == 5, PATIENCE)
            ids = [each.fields["webhook-id"] for each in of(receiver, token_id)]
            assert len(set(ids[:3])) == 1 and len(set(ids)) == 3
            assert metric(stack, "webhook_failures_total") == 3
            assert metric(stack, "webhook_dropped_total") == 1
            eventually(lambda: sum(each["delivered_at"] is not None for each in listed(stack, token_id)) == 2, PATIENCE)
            stack.daemon.stop()
            stack.daemon = stack.another("afterwards")
            with stack.daemon:
                eventually(lambda: all(each["delivered_at"] for each in listed(stack, token_id)), PATIENCE)
                assert [each.fields["webhook-id"] for each in of(receiver, token_id)][5:] == [ids[3]]


def test_whose_certificate_is_not_trusted(tmp_path: Path) -> None:
    """Gets nothing; one that the settings trust does. Requests go on meanwhile."""
    authority = Authority(tmp_path)
    authority.server("localhost")
    with WebhookReceiver() as receiver, TLSInFront(tmp_path / "server.pem", receiver.port) as port:
        url = f"https://localhost:{port}/alerts"
        with Stack(tmp_path, further=alerts(url, attempts=1), env=ENV) as stack:
            token_id, token = issued(stack, soft_budget_tokens="1/day")
            assert ask(stack, token)
            eventually(lambda: metric(stack, "webhook_dropped_total") == 3, PATIENCE)
            assert not receiver.deliveries
            stack.daemon.stop()
            stack.further = alerts(url, ca_file=str(authority.ca_file))
            stack.daemon = stack.another("trusting")
            with stack.daemon:
                eventually(lambda: len(of(receiver, token_id)) == 3, PATIENCE)


def test_no_thresholds(tmp_path: Path) -> None:
    """Nothing is alerted by such a process; by another on the same database, as soon as it sees that budget used."""
    with Stack(tmp_path, further="\nalerts: {thresholds: []}\n") as stack:
        token_id, token = issued(stack, soft_budget_tokens="1/day")
        assert ask(stack, token)
        eventually(lambda: stack.manage("GET", "/manage/usage")["data"], PATIENCE)
        stack.further = "\nalerts: {thresholds: [150]}\n"
        with stack.another("alerting") as other:
            assert not listed(stack, token_id)
            assert ask(stack, token, other.port)
            eventually(lambda: thresholds(listed(stack, token_id)) == [150], PATIENCE)


def test_a_receiver_that_never_answers(tmp_path: Path) -> None:
    """Is given up after C{timeout}; what does not fit into the queue meanwhile is dropped and counted."""
    with socket.create_server((HOST, 0)) as silent:
        url = f"http://{HOST}:{silent.getsockname()[1]}/"
        with Stack(tmp_path, further=alerts(url, timeout="500ms", queue_size=1, attempts=1), env=ENV) as stack:
            _, token = issued(stack, soft_budget_tokens="1/day")
            assert ask(stack, token)
            eventually(lambda: metric(stack, "webhook_dropped_total") == 3, PATIENCE)
            assert metric(stack, "webhook_failures_total") == 1
            assert "it did not answer in time" in stack.daemon.output()


def test_what_the_settings_refuse(tmp_path: Path) -> None:
    """A receiver without TLS over a network, unless C{allow_http}; no secret, or one that is not there."""
    api = "apis: {one: {base_url: 'http://127.0.0.1:1', allowed_endpoints: [/v1/models]}}\nstate_dir: data\n"
    config = tmp_path / "apis.yaml"

    def checked(further: str) -> tuple[int, str]:
        config.write_text(api + further)
        done = run_command(["llmproxy", "check-config", config], cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    network = "http://receiver.example.com/alerts"
    code, said = checked(alerts(network))
    assert code == 78 and "alerts.webhook: url must begin with https://" in said
    assert checked(alerts(network, allow_http=True))[0] == 0
    code, said = checked(alerts(network.replace("http:", "https:"), secret="in the clear"))
    assert code == 78 and "is no reference to a secret" in said
    with (
        pytest.raises(AssertionError, match="the variable ALERTS_SECRET is not set"),
        Stack(tmp_path, further=alerts(f"http://{HOST}:1/")),
    ):
        pass
