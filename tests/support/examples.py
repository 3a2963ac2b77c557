"""How many examples a property is tried on: all of them in CI and by C{make fuzz}, a part of them at a desk."""

from __future__ import annotations

import os

from hypothesis import settings

WANTED = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))  # for each property at least
PROFILE_EXAMPLES = WANTED or (100 if os.environ.get("CI") else 15)  # for one that asks for no more
# A run at a desk is to be short; what it leaves out is tried by every CI run.
DESK_PART = 10
LEAST = 25


def examples(count: int) -> settings:
    """For a property that needs more examples than the profile has: so many in CI, a tenth of them elsewhere."""
    at_desk = max(min(count, LEAST), count // DESK_PART)
    chosen = count if os.environ.get("CI") else at_desk
    return settings(max_examples=max(count, WANTED) if WANTED else chosen, deadline=None)
