"""A head's field lines, C{b"Name: value"}, with their names beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class SharedNames(list[bytes]):
    """Names that many heads have in common, so that what follows from them alone is worked out once.

    @ivar passing: Which lines pass to the client, by whoever asks; see L{llmproxy.http.fields.incoming}.
    @ivar shape: What else these heads have in common, for whoever has found that.
    """

    __slots__ = ("passing", "shape")

    def __init__(self, names: Iterable[bytes]) -> None:
        super().__init__(names)
        self.shape: Any = None
        self.passing: dict[tuple[bool, bytes], tuple[Any, int]] = {}


class FieldLines(list[bytes]):
    """Lines as they came; nobody need take them apart again to find one.

    Whoever adds or removes a line makes a plain list of them first: the names would not follow.

    @ivar names: The name of each line, in lower case.
    """

    __slots__ = ("names",)

    def __init__(self, lines: Iterable[bytes], names: list[bytes]) -> None:
        super().__init__(lines)
        self.names = names

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> FieldLines:
        """These lines, which may have their names with them already."""
        if isinstance(lines, cls):
            return lines
        listed = list(lines)
        return cls(listed, [line.partition(b":")[0].lower() for line in listed])

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field of this name, which is given in lower case, or C{None}."""
        names = self.names
        return self[names.index(name)][len(name) + 1 :].strip(b" \t") if name in names else None

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name, which is given in lower case, in order."""
        count = self.names.count(name)
        if not count:
            return []
        end = len(name) + 1
        if count == 1:
            return [self[self.names.index(name)][end:].strip(b" \t")]
        return [line[end:].strip(b" \t") for line, its in zip(self, self.names, strict=True) if its == name]
