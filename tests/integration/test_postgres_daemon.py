"""Several workers whose store is on PostgreSQL: budgets, alerts, rotation, and a server that goes away."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import Engine, create_engine, text

from llmproxy.store.engines import parse_store_url
from tests.integration.test_budget_alerts import ENV, SECRET, alerts, issued, listed, of, thresholds
from tests.integration.test_groups import REQUESTS, Hierarchy
from tests.integration.test_token_rotation import code, rotated
from tests.support.admin_visitor import Visitor
from tests.support.postgres import PostgreSQL
from tests.support.stack import MANAGEMENT, Stack, eventually
from tests.support.webhook_receiver import WebhookReceiver
from tests.support.workers import WorkerStack

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "max_tokens": 30, "messages": [{"role": "user", "content": "x"}]}).encode()
PATIENCE = 60.0
WORKERS = 2


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def served(
    receiver: WebhookReceiver, postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerStack]:
    env = {**ENV, "LLMPROXY_STORE_URL": postgres.migrated()}
    with WorkerStack(tmp_path_factory.mktemp("served"), WORKERS, further=alerts(receiver.url), env=env) as stack:
        yield stack


@pytest.fixture
def database(served: WorkerStack) -> Iterator[Engine]:
    engine = create_engine(parse_store_url(served.env["LLMPROXY_STORE_URL"]))
    yield engine
    engine.dispose()


def ask(stack: Stack, token: str) -> tuple[int, int]:
    """Its status, and the tokens that it used."""
    answer = stack.ask("POST", CHAT, BODY, token=token)
    return answer.status, int(answer.json["usage"]["total_tokens"]) if answer.status == 200 else 0


def ready(stack: Stack) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{stack.url}/ready", timeout=20) as answer:
            return answer.status, str(json.load(answer)["checks"]["store"])
    except urllib.error.HTTPError as e:
        with closing(e):
            return e.code, str(json.load(e)["checks"]["store"])


def metric(stack: Stack, name: str) -> float:
    answer = stack.ask("GET", "/metrics", token=MANAGEMENT)
    return sum(
        float(each) for each in re.findall(rf"^llmproxy_{name}(?:{{[^}}]*}})? (\S+)$", answer.body.decode(), re.M)
    )


@pytest.mark.long("5 s: the same budgets of a tree on PostgreSQL")
def test_budgets_of_a_hierarchy(served: WorkerStack, capsys: pytest.CaptureFixture[str]) -> None:
    """An organisation, its teams and their projects: 500 requests at once, and no budget is ever spent above."""
    hierarchy = Hierarchy(served)
    hierarchy.spend(REQUESTS)
    eventually(hierarchy.is_counted, PATIENCE)
    eventually(hierarchy.is_reported, PATIENCE)
    with capsys.disabled():
        print(f"\non PostgreSQL, {hierarchy.figures}")


@pytest.mark.long("6 s: alerts of several workers on PostgreSQL, as on SQLite")
def test_alerts(served: WorkerStack, receiver: WebhookReceiver) -> None:
    """Each threshold once, whichever worker notices; delivered and signed."""
    each = ask(served, served.token)[1]
    token_id, token = issued(served, budget_tokens=f"{each * 60}/month")

    def asked_until_alerted() -> bool:
        with ThreadPoolExecutor(4) as some:
            list(some.map(lambda _: ask(served, token), range(4)))
        return 80 in thresholds(listed(served, token_id))

    eventually(asked_until_alerted, PATIENCE)

    def asked_until_used_up() -> bool:
        """A worker refuses for good only once no other holds a part of what is left."""
        refused = ask(served, token)[0] == 429
        return refused and {None, 80} <= set(thresholds(listed(served, token_id)))

    eventually(asked_until_used_up, PATIENCE)
    eventually(lambda: all(found["delivered_at"] for found in listed(served, token_id)), PATIENCE)
    found, deliveries = listed(served, token_id), of(receiver, token_id)
    assert max(Counter(thresholds(found)).values()) == 1
    assert sorted(each.fields["webhook-id"] for each in deliveries) == sorted(each["id"] for each in found)
    assert all(each.is_signed_with(SECRET) for each in deliveries)


@pytest.mark.long("8 s: a key rotated on PostgreSQL, as on SQLite")
def test_rotation(served: WorkerStack) -> None:
    """Both secrets are valid on every worker until the grace is over; without one the old stops."""
    token_id, old = issued(served)
    assert {code(served, old) for _ in range(9)} == {(200, "")}
    new = rotated(served, token_id, grace="10m")["token"]
    assert {code(served, secret) for _ in range(9) for secret in (old, new)} == {(200, "")}
    newest = rotated(served, token_id, grace="0s")["token"]
    eventually(lambda: all(code(served, new)[0] == 401 for _ in range(9)), PATIENCE)
    eventually(lambda: all(code(served, old)[0] == 401 for _ in range(9)), PATIENCE)
    assert {code(served, newest) for _ in range(9)} == {(200, "")}


class Client:
    """Asks all the time with one token."""

    def __init__(self, stack: Stack, token: str) -> None:
        self.statuses: Counter[int] = Counter()
        self._stack, self._token, self._over = stack, token, False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over:
            self.statuses[ask(self._stack, self._token)[0]] += 1
            time.sleep(0.01)  # others need a processor too

    def __enter__(self) -> Client:
        self._thread.start()
        eventually(lambda: self.statuses[200] > 20, PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join(PATIENCE)


def lines(database: Engine, token_id: str) -> int:
    with database.connect() as connection:
        counted = text("SELECT count(*) FROM ledger WHERE token_id = :token AND outcome <> 'rejected'")
        return int(connection.execute(counted, {"token": token_id}).scalar_one())


@pytest.mark.long("1 s: a store that is slow, as one that is away")
def test_slow(served: WorkerStack, database: Engine) -> None:
    """What it cannot write for a while waits in the journal; a known client's requests do not wait for it."""
    token_id, token = issued(served)
    with Client(served, token) as client, database.begin() as connection:
        connection.execute(text("LOCK TABLE ledger_lines, usage_by_period IN ACCESS EXCLUSIVE MODE"))
        before = client.statuses[200]
        eventually(lambda: client.statuses[200] > before + 30, PATIENCE)
    assert set(client.statuses) == {200}
    eventually(lambda: lines(database, token_id) == client.statuses[200], PATIENCE)


@pytest.mark.long("2 s: the server goes and comes back under load")
def test_restarted_while_it_serves(served: WorkerStack, database: Engine, postgres: PostgreSQL) -> None:
    """A known client goes on, or is told 503 once its token cannot be believed any more; C{/ready} and metrics say so;
    nothing is lost of what was served, and all goes on by itself."""
    token_id, token = issued(served)
    refusals = metric(served, "refusals_total")
    with Client(served, token) as client:
        database.dispose()
        with postgres.stopped():
            before = client.statuses[200]
            eventually(lambda: client.statuses[200] > before + 5, PATIENCE)
            eventually(lambda: ready(served)[0] == 503 and ready(served)[1] != "ok", PATIENCE)
            eventually(lambda: client.statuses[503] > 0, PATIENCE)
            eventually(lambda: metric(served, "refusals_total") > refusals, PATIENCE)
        eventually(lambda: ready(served) == (200, "ok"), PATIENCE)
        after = client.statuses[200]
        eventually(lambda: client.statuses[200] > after + 20, PATIENCE)
    assert set(client.statuses) == {200, 503}
    eventually(lambda: lines(database, token_id) == client.statuses[200], PATIENCE)


def test_admin_pages_while_the_store_is_away(served: WorkerStack, database: Engine, postgres: PostgreSQL) -> None:
    """Each says what happened, and leads to itself; a form changes nothing; afterwards one is signed in still."""
    visitor = Visitor(served.daemon.port)
    assert visitor.sign_in().status == 303
    csrf = visitor.csrf()
    database.dispose()
    with postgres.stopped():
        for path in ("", "projects", "requests", "settings", "upstreams"):
            reply = eventually(lambda path=path: (r := visitor.get(f"/admin/{path}")).status == 503 and r, PATIENCE)
            page = reply.body.decode()
            assert "The store does not answer" in page and f'href="/admin/{path}">Try again' in page
        sent = visitor.post("/admin/projects", {"name": "While it is away", "csrf": csrf})
        assert sent.status == 503 and b"nothing was changed" in sent.body
    eventually(lambda: visitor.get("/admin/projects").status == 200, PATIENCE)
    assert "While it is away" not in visitor.get("/admin/projects").body.decode()
