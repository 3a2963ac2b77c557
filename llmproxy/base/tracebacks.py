"""Errors without the frames that they came through."""

from __future__ import annotations

from traceback import clear_frames


def drop_frames(error: BaseException) -> None:
    """Forget through which frames an error came, and those that it was made of. Whoever logs it has done so.

    The frames know the error, and all that was in hand there, such as a request's body: only the collector would find
    that nobody needs them.
    """
    met: list[BaseException] = []
    following: list[BaseException | None] = [error]
    while following:
        each = following.pop()
        if each is not None and each not in met:
            met.append(each)
            clear_frames(each.__traceback__)  # somebody else, such as a Deferred that was cancelled, may keep it
            each.__traceback__ = None
            following += (each.__cause__, each.__context__)
