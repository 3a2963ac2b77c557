"""Journals that somebody has damaged, removed or truncated, under a daemon that runs and before one that starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmproxy.ledger.journal import MAX_DAMAGED_FILES
from tests.integration.test_ledger import entered, lines, own
from tests.support.stack import MANAGEMENT, Stack, eventually

__all__ = ["own"]
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}).encode()


def ask(stack: Stack, many: int, port: int = 0) -> None:
    for _ in range(many):
        assert stack.ask("POST", "/v1/chat/completions", BODY, port=port or stack.daemon.port).status == 200


def segment(stack: Stack) -> Path:
    (path,) = (stack.home / "state" / "ledger").glob("*/00000001.segment")
    return path


def metric(stack: Stack, name: str) -> float:
    text = stack.ask("GET", "/metrics", headers={"Authorization": f"Bearer {MANAGEMENT}"}).body.decode()
    (value,) = (line.split()[1] for line in text.splitlines() if line.startswith(f"llmproxy_{name} "))
    return float(value)


def ready(stack: Stack) -> tuple[int, str]:
    answer = stack.ask("GET", "/ready")
    return answer.status, answer.json["checks"]["ledger_files"]


def flip(path: Path) -> None:
    """One bit of the record in the middle."""
    raw = bytearray(path.read_bytes())
    end = len(raw.rstrip(b"\0"))
    raw[end // 2] ^= 1
    path.write_bytes(raw)


def no_lock(path: Path) -> None:
    (path.parent / "lock").unlink()


def cut(path: Path) -> None:
    """Within the last record."""
    os.truncate(path, len(path.read_bytes().rstrip(b"\0")) - 20)


def no_magic(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"XXXX")


ALSO = pytest.mark.long("1 s: another damage")


@pytest.mark.parametrize(
    ("damage", "lost", "kept"),
    [
        (flip, 1, True),
        pytest.param(cut, 1, True, marks=ALSO),
        pytest.param(no_magic, 0, True, marks=ALSO),
        (no_lock, 0, False),
    ],
)
def test_a_journal_that_was_left_behind(tmp_path: Path, damage: Callable[[Path], None], lost: int, kept: bool) -> None:
    """All that can be read is entered; what cannot is counted, said, and kept as it is."""
    with Stack(tmp_path, further="ledger: {interval: 60s}\n") as stack:
        ask(stack, 10)
        stack.ask("GET", "/v1/models")  # once this is answered, the ten before are settled
        path = segment(stack)
        stack.daemon.kill()
        damage(path)
        raw = path.read_bytes()
        stack.further = ""
        stack.daemon = stack.another("second")
        with stack.daemon:
            eventually(lambda: not path.exists(), 20)
            assert len([line for line in lines(stack) if line["outcome"] == "exact"]) >= 10 - lost
            assert metric(stack, "ledger_damaged_total") == kept
            files = list((stack.home / "state" / "ledger").glob("*.damaged"))
            assert [file.read_bytes() for file in files] == [raw] * kept
            assert ready(stack) == (200, "damaged" if kept else "ok")
            assert ("cannot be read" in stack.daemon.output()) == kept


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 9), lambda path: os.truncate(path, 0), Path.unlink])
def test_the_live_file(own: Stack, damage: Callable[[Path], None]) -> None:
    """Truncated or removed under the daemon: it lives, says so, and enters what comes from then on."""
    ask(own, 3)
    entered(own, 3)
    path = segment(own)
    damage(path)
    ask(own, 3)
    eventually(lambda: metric(own, "ledger_damaged_total") >= 1)
    eventually(lambda: "goes on in another file" in own.daemon.output())
    ask(own, 3)
    eventually(lambda: len(lines(own)) == 9, 10)
    assert own.daemon.stop() == 0
    assert len(lines(own)) == 9


def test_lines_that_were_not_entered_yet(tmp_path: Path) -> None:
    """Are lost with the live file, which is counted and said; no other is, and none is entered twice."""
    with Stack(tmp_path, further="ledger: {interval: 8s}\n") as stack:
        ask(stack, 3)
        entered(stack, 3)
        ask(stack, 2)  # within an interval
        waiting = 5 - len(lines(stack))
        os.truncate(segment(stack), 9)
        eventually(lambda: "goes on in another file" in stack.daemon.output(), 30)
        ask(stack, 3)
        assert metric(stack, "ledger_damaged_total") >= 1
        assert ready(stack) == (200, "damaged")
        assert stack.daemon.stop() == 0
        written = lines(stack)
        assert 8 - waiting <= len(written) <= 8
        assert len({line["request_id"] for line in written}) == len({line["id"] for line in written}) == len(written)
        assert waiting == 0 or "cannot be read" in stack.daemon.output()


def test_more_damaged_files_than_are_kept(tmp_path: Path) -> None:
    """The oldest are removed, counted and logged; the others are for the operator."""
    folder = tmp_path / "state" / "ledger"
    folder.mkdir(parents=True)
    for number in range(MAX_DAMAGED_FILES + 2):
        path = folder / f"{number:03}-00000001.damaged"
        path.write_bytes(b"x" * 5000)
        os.utime(path, (number, number))
    with Stack(tmp_path) as stack:
        eventually(lambda: metric(stack, "ledger_damaged_files_removed_total") == 2, 20)
        left = sorted(path.name for path in folder.glob("*.damaged"))
        assert left == [f"{number:03}-00000001.damaged" for number in range(2, MAX_DAMAGED_FILES + 2)]
        assert "000-00000001.damaged was removed" in stack.daemon.output()
        assert ready(stack) == (200, "damaged")
