"""The list of prices, C{genai-prices}, without the HTTP client that it would fetch newer ones with.

That client is imported with the package, takes 1 MB and a fiftieth of a second, and nobody here uses it: prices are
those of the installed version. While the package is imported, another module has its place, which imports the client as
soon as somebody uses that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_HTTP_CLIENT = "httpx2"


class _LateModule(ModuleType):
    """Is imported at its first use."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


@contextmanager
def _late(name: str) -> Iterator[None]:
    """Meanwhile, an import of this module gives one that is imported at its first use."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _LateModule(name)
    try:
        yield
    finally:
        del sys.modules[name]


with _late(_HTTP_CLIENT):
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.data_units import unit_data
    from genai_prices.types import (
        ArrayMatch,
        ModelInfo,
        ModelPrice,
        PriceVariant,
        Provider,
        StartDateConstraint,
        TieredPrices,
        TimeOfDateConstraint,
        UsageExtractor,
    )
    from genai_prices.units import UnitDef, UnitRegistry

__all__ = [
    "ArrayMatch",
    "ModelInfo",
    "ModelPrice",
    "PriceVariant",
    "Provider",
    "StartDateConstraint",
    "TieredPrices",
    "TimeOfDateConstraint",
    "UnitDef",
    "UnitRegistry",
    "UsageExtractor",
    "get_snapshot",
    "unit_data",
]
