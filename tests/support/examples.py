"""How many examples a property is tried on: all of them in CI and where one is given, a part of them at a desk."""

from __future__ import annotations

import os

from hypothesis import settings

# A run at a desk is to be short; what it leaves out is tried by every CI run.
DESK_PART = 5
LEAST = 50


def examples(count: int) -> settings:
    """For a property that needs more examples than the profile has: so many in CI, a fifth of them elsewhere."""
    at_desk = max(min(count, LEAST), count // DESK_PART)
    return settings(max_examples=count if os.environ.get("CI") else at_desk, deadline=None)
