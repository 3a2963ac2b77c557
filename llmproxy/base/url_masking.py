"""URLs as messages may show them: without what lets somebody in.

What is masked need not be a good URL: those that are refused for their passwords are shown too. So nothing is parsed,
and in doubt more is masked than had to be.
"""

from __future__ import annotations

import re

MASK = "***"
_BEFORE_USERINFO = re.compile(r"[^:/?#]*:[/\\]*|[^/?#]*(?:/[^/?#]+)*//|[^:?#]*:", re.DOTALL)
_QUERY = re.compile(r"[?#]")
_QUERY_ITEM = re.compile(r"(^[?#]|&)([^=&]*=)?[^&]*")


def mask_url(url: str) -> str:
    """C{url} with C{***} for user and password, up to the last at sign, and for every value of the query."""
    has_place = ":/" in url or "//" in url
    before, at, after = url.rpartition("@")
    start = _BEFORE_USERINFO.match(before) if at else None
    if start is not None:
        if "?" in before or "#" in before:  # of a password, or of a query: either may go on behind the at sign
            return start[0] + MASK
        url = f"{start[0]}{MASK}@{after}"
    query = _QUERY.search(url) if has_place else None
    if query is None:
        return url
    return url[: query.start()] + _QUERY_ITEM.sub(rf"\1\2{MASK}", url[query.start() :])


def mask_urls(text: str) -> str:
    """A sentence with every URL in it masked, as far as the next white space."""
    return re.sub(r"\S+", lambda word: mask_url(word[0]), text) if "/" in text or "@" in text else text
