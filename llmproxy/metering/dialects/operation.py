"""What one endpoint of a provider does with a request: the value that reservation, metering and ledger share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Members = Mapping[str, Any]
Units = dict[str, int | float]
Path = tuple[str, ...]


class MediaTokens(NamedTuple):
    """Tokens of input that media count for at most, where they are not text.

    @ivar image: One picture; C{page}: one page of a document.
    @ivar audio_second: One second of sound; C{video_second}: one of film, with its sound.
    """

    image: int = 1600
    page: int = 3000
    audio_second: int = 32
    video_second: int = 300


def no_further_units(model: str, members: Members) -> Units | None:
    """What a request is billed that is billed for its tokens alone."""
    return {}


def unknown_units(model: str, members: Members) -> Units | None:
    """What a request is billed of which nobody can tell beforehand."""
    return None


class ProviderOperation(NamedTuple):
    """One kind of request.

    Paths of members lead from the request's top: C{("generationConfig", "maxOutputTokens")}.

    @ivar name: Such as C{chat}, C{messages}, C{speech}; C{""} for one that nobody knows.
    @ivar paths: How the paths end that lead to it, by segments; C{*} stands for one: C{chat/completions},
        C{models/*:generateContent}.
    @ivar takes_text: Whether a request there is text that counts as input.
    @ivar makes_text: Whether it makes text that counts as output. What neither takes nor makes text is never estimated.
    @ivar maxima: Members that bound the tokens of output of one choice; the greatest of those that are there holds.
    @ivar choices: Members that say how many choices are made.
    @ivar takes_model: Whether a request there names a model, be it in its body or its path.
    @ivar billed_by_request: What it bills instead of tokens, where its response reports no usage, by the model and the
        request's own top-level members: units by name (L{prices} has what they cost), C{{}} for nothing, and C{None}
        where the request does not tell it.
    @ivar at_most: What it can bill beside, or instead of, the tokens of its text at most, told likewise: the calls of
        tools that it offers, the tokens of pictures. C{None}: there is no bound that is known. Where this is not set,
        it is C{billed_by_request}.
    @ivar requests: Those of a batch, told by its own members: the model of each and its members. C{None} where they
        stand elsewhere, as in a file.
    @ivar deferred: The id under which what a response announces can be fetched later, and its usage with it; C{""}
        where the response tells all.
    @ivar deferred_in_background: Whether that is so only of requests that ask for C{background}.
    @ivar also: What stands in events that report calls billed by themselves, beside those that report usage.
    @ivar mark: What stands in every event that reports usage.
    @ivar free: Whether nothing there is ever billed.
    @ivar media: What pictures, sound and films count for in its input.
    """

    name: str = ""
    paths: tuple[str, ...] = ()
    takes_text: bool = False
    makes_text: bool = False
    maxima: tuple[Path, ...] = ()
    choices: tuple[Path, ...] = ()
    takes_model: bool = True
    billed_by_request: Callable[[str, Members], Units | None] = no_further_units
    at_most: Callable[[str, Members], Units | None] | None = None
    requests: Callable[[Members], Sequence[tuple[str, Members]] | None] | None = None
    deferred: Callable[[Members], str] | None = None
    deferred_in_background: bool = False
    also: bytes = b""
    mark: bytes = b'_tokens"'
    free: bool = False
    media: MediaTokens = MediaTokens()


UNKNOWN_OPERATION = ProviderOperation(billed_by_request=unknown_units, takes_model=False)
READ_OPERATION = ProviderOperation("read", takes_model=False, free=True)
"""What every request but a POST is: what shows a usage shows that of an earlier request once more."""


def is_storage(operation: ProviderOperation) -> bool:
    """Whether it only keeps what is sent: it is billed nothing, and names no model."""
    return operation.free and not operation.takes_model


def requests_in_file(members: Members) -> None:
    """The requests of a batch that stand in a file, which nobody reads here."""
    return None


def member(members: Members, path: Path) -> Any:
    """What stands at a path of members; C{None} where nothing does."""
    value: Any = members
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def whole_number(value: Any) -> int | None:
    """A count as clients write it, forms included; C{None} for what is none."""
    if isinstance(value, str) and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)


def word(value: Any, default: str) -> str:
    """A name in a request; C{default} where it has none."""
    return value if isinstance(value, str) and value else default
