"""What stands in the journal can be read back, whatever the fields hold."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.ledger.records import (
    AnnouncedResult,
    Deferral,
    DroppedLine,
    HeldBudget,
    LedgerLineOpening,
    Settlement,
    decode,
    encode_announcement,
    encode_drop,
    encode_opening,
    encode_settlement,
    unsettled,
)
from llmproxy.model import LedgerLine

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["\x1f", "\0", "\ud800", '"', "\\"]
)
COUNT = st.integers(0, 2**62)
LINES = st.builds(
    LedgerLine,
    id=TEXT,
    at=st.floats(0, 2e9),
    duration=st.floats(0, 1e6),
    request_id=TEXT,
    model=TEXT,
    answered=TEXT,
    upstream_status=st.none() | st.integers(100, 599),
    stream=st.booleans(),
    input_tokens=COUNT,
    cost_usd=st.none() | st.floats(0, 1e9),
)
RESERVATIONS = st.builds(
    LedgerLineOpening, TEXT, st.floats(0, 2e9), TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, COUNT, COUNT, uses=st.integers(0, 1)
)


def storable(value: Any) -> Any:
    return value.replace("\ud800", "?") if isinstance(value, str) else value


class RecordTests(SynchronousTestCase):
    @given(LINES)
    def test_lines(self, line: LedgerLine) -> None:
        """Every field as it was, but half a surrogate pair, which is replaced."""
        self.assertEqual(decode(encode_settlement(line)), Settlement(LedgerLine(*map(storable, line))))
        self.assertEqual(decode(encode_settlement(line, -1, 1)), Settlement(LedgerLine(*map(storable, line)), -1, 1))
        deferral = Deferral("resp", (HeldBudget("token:t:budget_usd:2026", "usd", 10**12, 1.5),))
        told = Settlement(LedgerLine(*map(storable, line)), 0, 0, deferral)
        self.assertEqual(decode(encode_settlement(line, deferral=deferral)), told)
        self.assertEqual(decode(encode_drop(line.id)), DroppedLine(storable(line.id)))
        self.assertEqual(decode(encode_announcement(line.id, deferral)), AnnouncedResult(storable(line.id), deferral))

    @given(RESERVATIONS)
    def test_reservations(self, reservation: LedgerLineOpening) -> None:
        """The same, and the line of one that was never settled."""
        self.assertEqual(decode(encode_opening(reservation)), LedgerLineOpening(*map(storable, reservation)))
        self.assertEqual(
            decode(encode_opening(reservation._replace(uses=0))),
            LedgerLineOpening(*map(storable, reservation))._replace(uses=0),
        )
        line = reservation.line(0.5)
        self.assertEqual((line.id, line.input_tokens), (reservation.id, reservation.estimated_input_tokens))
        self.assertEqual(line.cost_usd, 0.5 if reservation.estimated_input_tokens else None)
        self.assertEqual((line.outcome, line.error), ("truncated", "process_ended"))

    @given(st.binary(max_size=60))
    def test_anything(self, raw: bytes) -> None:
        """What another version wrote, or nobody."""
        for record in (raw, *(kind + raw for kind in (b"S", b"R", b"C") if raw[:1] != b"[")):
            self.assertIsNone(decode(record))
        broken = (b"S{}", b"S[]", b"R[1]", b"S7", b"", b'S"  "', b'R"0123456789"', b'C["a", 1, 1]', b'C[["a", 1.0]]')
        self.assertEqual({decode(record) for record in broken}, {None})

    def test_of_a_later_version(self) -> None:
        """Fields that were added behind are left out; those that are missing have their defaults."""
        line = LedgerLine("id", 1.0, request_id="r")
        longer = b"S" + json.dumps([*line, "more"]).encode()
        self.assertEqual(decode(longer), Settlement(line))
        self.assertEqual(decode(b'S["id", 1.0]'), Settlement(LedgerLine("id", 1.0)))

    def test_of_an_earlier_version(self) -> None:
        """The uses of what it reserved were counted in another way."""
        raw = b'R["id", 1.0, "r", "p", "t", "a", "/", "m", 3, 1]'
        self.assertEqual(decode(raw), LedgerLineOpening("id", 1.0, "r", "p", "t", "a", "/", "m", 3, 1, uses=0))

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"))))
    def test_what_is_open(self, told: list[tuple[bool, str]]) -> None:
        """What was reserved and not settled after that."""
        expected: set[str] = set()
        raw = []
        for settles, name in told:
            raw.append(
                encode_settlement(LedgerLine(name, 0.0))
                if settles
                else encode_opening(LedgerLineOpening(name, 0.0, "", "", "", "", "", "", 0, 0))
            )
            expected = expected - {name} if settles else expected | {name}
        self.assertEqual(set(unsettled(map(decode, raw))), expected)
