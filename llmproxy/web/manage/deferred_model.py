"""The base of what the management API reads and writes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class DeferredModel(BaseModel):
    """A model whose validator is made when it is first used: most daemons answer most kinds of calls never.

    To make all of them takes a fifth of a second at the start, and 3 MB for good.
    """

    model_config = ConfigDict(defer_build=True)
