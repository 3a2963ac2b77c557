"""Makes a daemon fail where nobody has foreseen it, while a file exists: named by FAULTS, after the function.

Python imports a module of this name at its start, where the folder is on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

FUNCTIONS = (
    ("llmproxy.store.changes", "since"),
    ("llmproxy.ledger.service", "next_batch"),
    ("llmproxy.web.admin.formats", "relative"),
)


def failing(function: Callable[..., Any], flag: str) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        if os.path.exists(flag):
            raise ZeroDivisionError(f"injected into {function.__name__}")
        return function(*args, **kwargs)

    return called


if folder := os.environ.get("FAULTS", ""):
    for module_name, name in FUNCTIONS:
        module = importlib.import_module(module_name)
        setattr(module, name, failing(getattr(module, name), os.path.join(folder, name)))
