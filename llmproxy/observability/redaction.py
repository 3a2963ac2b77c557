"""Masks secrets in text that leaves the process: logs, events, audit entries."""

from __future__ import annotations

import json
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import merge
from operator import attrgetter
from threading import Lock
from typing import Any, AnyStr
from urllib.parse import quote

from llmproxy.base.attribution import redacted
from llmproxy.base.memo import BoundedMemo
from llmproxy.base.token_format import TOKEN_PART_PATTERN, TOKEN_PREFIX
from llmproxy.model import RequestRecord

MASK = "[redacted]"
MIN_SECRET_CHARACTERS = 6  # to mask a shorter one would garble everything and protect nothing
HEAD_CHARACTERS = 6  # characters of a secret that are looked for; none that is masked is shorter

MAX_NEEDLES_IN_TURN = 8
MAX_HEADS_IN_PATTERN = 64

SCHEME = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr](?:[ \t+:]|%20|\\t)+")
# Every alternative begins with a plain letter, for which the expression can look ahead quickly.
JWT_HEAD = "eyJ"  # how every JWT begins: {" in base64url
PATTERNS = (
    TOKEN_PART_PATTERN,
    JWT_HEAD + r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    *(first + SCHEME.pattern[4:] + r"[A-Za-z0-9._~+/=-]{16,}" for first in "Bb"),
)
MAX_MEMO_CLEAN = 1024
MAX_MEMO_TEXTS = 4096
MAX_MEMO_CHARACTERS = 128  # of a text that is remembered; as many as the id of a request has at most
# Of a record: what a client may choose, and what a provider may repeat of that.
FREE_TEXT = ("request_id", "method", "path", "model", "client", "user_agent", "answered", "attribution")

_HEX = re.compile("[0-9a-f-]+")
_free_text = attrgetter(*FREE_TEXT)


class Redactor:
    """Knows secrets by value and masks them wherever they stand, also as JSON or a URL would write them.

    Besides those it was told of, it masks everything that looks like a token of this proxy or a JWT, or follows
    C{Bearer}.

    @ivar version: Another number after each secret that is added.
    @ivar masks_hex: Whether one of them was ever of nothing but lower-case hexadecimal digits and hyphens; else nothing
        is masked in a text of these.
    """

    def __init__(self, secrets: Iterable[str] = (), limit: int = 10_000) -> None:
        """
        @param secrets: This process's own; they are never forgotten.
        @param limit: How many of those that are added later are remembered; then the one that was added longest ago is
            forgotten.
        """
        self._limit = limit
        self._own = frozenset(secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS)
        self._secrets: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._forms: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()
        self._heads: Counter[str] = Counter()
        self._pattern: re.Pattern[str] | None = None
        self._needles: tuple[str, ...] = ()
        self.version = 0
        self.masks_hex = False
        # Free texts of records, and short texts, that hold none of the secrets known so far.
        self._clean: BoundedMemo[tuple[str, ...], None] = BoundedMemo(MAX_MEMO_CLEAN)
        self._clean_texts: BoundedMemo[str, None] = BoundedMemo(MAX_MEMO_TEXTS)
        self._lock = Lock()  # keys come from the store's threads too
        for secret in self._own:
            self._count(_forms(secret), 1)

    def add(self, secret: str) -> None:
        """Mask this value from now on; nothing happens where it has less than C{MIN_SECRET_CHARACTERS} characters."""
        if len(secret) < MIN_SECRET_CHARACTERS or secret in self._own:
            return
        with self._lock:
            if secret in self._secrets:
                self._secrets.move_to_end(secret)
                return
            self._secrets[secret] = forms = _forms(secret)
            if not all(_head(form) in self._heads for form in forms):
                self._pattern = None
            self._count(forms, 1)
            if len(self._secrets) > self._limit:
                self._count(self._secrets.popitem(last=False)[1], -1)
            # At last: what another thread still finds clean without this secret goes into memos that nobody reads.
            self._clean = BoundedMemo(MAX_MEMO_CLEAN)
            self._clean_texts = BoundedMemo(MAX_MEMO_TEXTS)
            self.version += 1

    def redact(self, text: AnyStr) -> AnyStr:
        """The same text, with every secret in it masked."""
        clean = self._clean_texts
        if text in clean:  # a request's id comes by several times
            return text
        if isinstance(text, bytes):
            return self._masked(text.decode("latin-1")).encode("latin-1")
        needles = self._needles
        if self._pattern is not None and len(needles) <= MAX_NEEDLES_IN_TURN:  # as L{_masked} does it: usual texts are
            for needle in needles:  # clean, and many are like none before
                if needle in text:
                    break
            else:
                if "bearer" not in text.lower():
                    return text
        masked = self._masked(text)
        if masked is text and len(text) <= MAX_MEMO_CHARACTERS:
            clean[text] = None
        return masked

    def record(self, record: RequestRecord) -> RequestRecord:
        """The same record, with every secret masked that a client may have put into it."""
        values = _free_text(record)
        # All but the request's id are the same for most requests of a client.
        request_id, rest = values[0], values[1:]
        clean = self._clean  # another thread that adds a secret begins a new one
        if rest in clean and self.redact(request_id) is request_id:
            return record
        text = "\0".join(values)
        if self._masked(text) is text:
            clean[rest] = None
            return record
        masked: dict[str, Any] = {name: self._masked(value) for name, value in zip(FREE_TEXT, values, strict=True)}
        masked["attribution"] = redacted(record.attribution, self._masked)
        return record._replace(**masked)

    def _count(self, forms: tuple[str, ...], by: int) -> None:
        counts: tuple[tuple[Counter[Any], Callable[[str], object]], ...] = (
            (self._forms, str),
            (self._lengths, len),
            (self._heads, _head),
        )
        for counter, of in counts:
            for key in map(of, forms):
                counter[key] += by
                if not counter[key]:
                    del counter[key]
        self.masks_hex = self.masks_hex or any(map(_HEX.fullmatch, forms))

    def _masked(self, text: str) -> str:
        pattern = self._pattern or self._compiled()
        if not self._may_hold(text, pattern):
            return text
        out: list[str] = []
        done = 0
        for start, end in self._found(text, pattern):
            if start >= done:
                out += (text[done:start], MASK)
                done = end
        if not done:
            return text
        out.append(text[done:])
        return "".join(out)

    def _found(self, text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
        """Where secrets start and end, from left to right."""
        if len(self._needles) <= MAX_HEADS_IN_PATTERN:
            return self._matched(text, pattern)
        # One expression for so many would stop at almost every character.
        heads, matches = self._heads, self._matched(text, pattern)
        known = (
            (at, end)
            for at in [at for at in range(len(text) - HEAD_CHARACTERS + 1) if text[at : at + HEAD_CHARACTERS] in heads]
            if (end := self._known(text, at))
        )
        return merge(matches, known, key=lambda span: (span[0], -span[1]))

    def _matched(self, text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
        at = 0
        while match := pattern.search(text, at):
            start, end = self._secret(text, match)
            if end:
                yield start, end
                at = end
            else:
                at = match.start() + 1

    def _compiled(self) -> re.Pattern[str]:
        with self._lock:
            self._pattern = pattern = _pattern(self._heads)
            self._needles = (TOKEN_PREFIX, JWT_HEAD, *self._heads)
        return pattern

    def _may_hold(self, text: str, pattern: re.Pattern[str]) -> bool:
        """Whether it is worth looking for secrets; C{False} for most texts."""
        needles = self._needles
        if len(needles) <= MAX_NEEDLES_IN_TURN:  # then looking for each is much faster than one expression for all
            for needle in needles:
                if needle in text:
                    return True
            return "bearer" in text.lower()
        if len(needles) <= MAX_HEADS_IN_PATTERN or len(text) > MAX_MEMO_CHARACTERS:
            return True
        heads = [text[at : at + HEAD_CHARACTERS] for at in range(len(text) - HEAD_CHARACTERS + 1)]
        return not self._heads.keys().isdisjoint(heads) or pattern.search(text) is not None

    def _secret(self, text: str, match: re.Match[str]) -> tuple[int, int]:
        """Where the secret at this match starts and ends, or zeros where it only looked like one."""
        start, end = match.span()
        if end - start <= HEAD_CHARACTERS:
            return start, self._known(text, start)
        if scheme := SCHEME.match(text, start):
            start = scheme.end()
        return start, max(end, self._known(text, start))

    def _known(self, text: str, start: int) -> int:
        """Where the longest known secret that starts here ends, or zero."""
        if text[start : start + HEAD_CHARACTERS] not in self._heads:
            return 0
        return max((start + n for n in tuple(self._lengths) if text[start : start + n] in self._forms), default=0)


def _head(form: str) -> str:
    return form[:HEAD_CHARACTERS]


def _pattern(heads: Collection[str]) -> re.Pattern[str]:
    """Finds where a secret may start; the heads of very many are looked up one by one instead."""
    starts = [re.escape(head) for head in sorted(heads)] if len(heads) < MAX_HEADS_IN_PATTERN else []
    return re.compile("|".join([*PATTERNS, *starts]))


def _forms(secret: str) -> tuple[str, ...]:
    """How the secret may be written: as it is, in JSON, in a URL, and as UTF-8 that was read as Latin-1."""
    written = {secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote(secret)}
    written.add(secret.encode("utf-8", "surrogatepass").decode("latin-1"))
    return tuple(written)
