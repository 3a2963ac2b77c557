"""Daemons that ignore settings: what the tests that show the effects of these must not survive.

Where C{IGNORED_SETTINGS} is set, L{tests.support.processes} starts such daemons; C{python -m tests.effects} does so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

VARIABLE = "IGNORED_SETTINGS"  # their paths, with spaces between them
# What stands in the place of a setting that has no default, or whose default does not go with the others.
INSTEAD: Mapping[str, Any] = {
    "apis.<name>.base_url": "http://127.0.0.1:1",
    "apis.<name>.allowed_endpoints": ["/**"],
    "apis.<name>.cache.ttl": "1s",
    "prices.0.model": "a-model-that-nobody-has",
    "ledger.max_bytes": "4GiB",
}
LIST_WITHOUT_DEFAULT = ("events.sinks.0.type",)  # without the whole item


def ignore(paths: Sequence[str]) -> None:
    """From now on whatever reads settings in this process reads them without those."""
    from llmproxy.config.model import Settings

    original: Callable[..., Settings] = Settings.model_validate

    def model_validate(tree: Any, *args: Any, **kw: Any) -> Settings:
        for path in paths:
            place = path.rpartition(".")[0] if path in LIST_WITHOUT_DEFAULT else path
            for each in (place, place.replace("auth.oidc.", "auth.validators.0.")):  # the same, as one of several
                _replace(tree, each.split("."), path)
        return original(tree, *args, **kw)

    Settings.model_validate = model_validate  # type: ignore[method-assign, assignment]


def ignore_as_told() -> None:
    """L{ignore} what the environment names."""
    if os.environ.get(VARIABLE):
        ignore(os.environ[VARIABLE].split())


def _replace(tree: Any, steps: list[str], path: str) -> None:
    step, *rest = steps
    if step == "<name>":
        for each in tree.values() if isinstance(tree, dict) else ():
            _replace(each, rest, path)
    elif step == "0":
        if isinstance(tree, list) and not rest:
            tree.clear()
        for each in tree if isinstance(tree, list) else ():
            _replace(each, rest, path)
    elif isinstance(tree, list):  # where one or several may stand
        for each in tree:
            _replace(each, steps, path)
    elif isinstance(tree, dict) and rest:
        _replace(tree.get(step), rest, path)
    elif isinstance(tree, dict):
        tree.pop(step, None)
        if path in INSTEAD:
            tree[step] = INSTEAD[path]


if __name__ == "__main__":  # in the place of twistd
    from twisted.scripts.twistd import run

    ignore_as_told()
    run()
