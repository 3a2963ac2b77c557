"""Whatever is done to a chain of entries is found, and named."""

from __future__ import annotations

import json
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base.audit_chain import ChainedEntry, ChainLink, ChainReport, chained, parse_chained, verify

KEY = b"k" * 32


def chain(count: int, key: bytes = KEY, last: ChainLink | None = None) -> tuple[list[str], ChainLink]:
    lines, link = [], last or ChainLink()
    for number in range(count):
        line, link = chained(json.dumps({"action": f"act {number}", "details": {"x": '"seq":7}'}}), link, key)
        lines.append(line)
    return lines, link


class ChainTests(TestCase):
    def verify(self, lines: list[str], **more: object) -> ChainReport:
        places = [(f"line {number}", line) for number, line in enumerate(lines, 1)]
        return verify(lambda: places, KEY, **more)  # type: ignore[arg-type]

    def problem(self, lines: list[str], said: str, **more: object) -> None:
        self.assertEqual(self.verify(lines, **more).problem, said)

    def test_whole(self) -> None:
        """Every line is JSON, and says what it said before."""
        lines, head = chain(5)
        report = self.verify(lines, head=head, first=1)
        self.assertEqual((report.problem, report.entries, report.last), ("", 5, head))
        self.assertEqual([json.loads(line)["action"] for line in lines], [f"act {n}" for n in range(5)])

    def test_altered(self) -> None:
        for number in range(5):
            for old, new in (("act", "fact"), ('"seq":', '"seq":1'), ('"hash":"', '"hash":"0')):
                lines, head = chain(5)
                lines[number] = lines[number].replace(old, new, 1) if old == "act" else lines[number].replace(old, new)
                self.assertIn(f"line {number + 1}", self.verify(lines, head=head).problem)
        lines, head = chain(5)
        lines[2] = json.dumps({"action": "x"})
        self.problem(lines, "line 3 was altered: it is in no chain", head=head)

    def test_removed(self) -> None:
        lines, head = chain(6)
        self.problem([*lines[:2], *lines[3:]], "entry 3 is missing before line 3, entry 4", head=head)
        self.problem([*lines[:2], *lines[4:]], "entries 3 to 4 are missing before line 3, entry 5", head=head)
        self.problem(lines[:-2], "entries 5 to 6 are missing at the end", head=head)
        self.problem(lines[1:], "entry 1 is missing before line 1, entry 2", first=1)
        self.problem(lines[1:], "", head=head)
        self.problem([], "entries 1 to 6 are missing at the end", head=head)

    def test_reordered(self) -> None:
        lines, head = chain(5)
        lines[1], lines[2] = lines[2], lines[1]
        self.problem(lines, "line 2, entry 3, is out of order: entry 2 should stand here", head=head)
        lines, head = chain(5)
        self.problem([*lines[:3], lines[0], *lines[3:]], "line 4, entry 1, is out of order: entry 4 should stand here")

    def test_made_without_the_key(self) -> None:
        """Whoever has not the key cannot write a chain anew, nor an entry into it."""
        forged, _ = chain(5, b"x" * 32)
        self.problem(forged, "line 1, entry 1, was altered")
        lines, head = chain(3)
        other, end = chain(3)
        self.problem(
            [*lines, *chain(1, KEY, ChainLink(3, other[0][-66:-2]))[0]],
            "line 4, entry 4, does not follow the entry before it",
        )
        self.problem(lines, "entry 3 was replaced", head=ChainLink(3, "0" * 64))
        self.assertEqual((head, end), (end, head))

    def test_what_is_no_tampering(self) -> None:
        """Entries of a version without a chain, before the first; what a crash has broken off."""
        lines, head = chain(3)
        report = self.verify(['{"action":"old"}', *lines[:1], lines[1][:30], "", *lines[1:]], head=head)
        self.assertEqual((report.problem, report.entries, report.unchained, report.unfinished), ("", 3, 1, 2))

    @given(st.text(), st.integers(0, 10**15))
    def test_any_text(self, text: str, seq: int) -> None:
        """What is chained is found again as it was."""
        entry = json.dumps({"x": text}, ensure_ascii=False).replace("\n", "")
        line, link = chained(entry, ChainLink(seq, "a" * 64), KEY)
        self.assertEqual(parse_chained(line), ChainedEntry(entry, link.seq, "a" * 64, link.hash))
