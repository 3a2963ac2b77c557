"""How many examples a property is tried on: a part of them in the suite, all of them by C{make fuzz}."""

from __future__ import annotations

import os

from hypothesis import settings

EXAMPLES_VARIABLE = "HYPOTHESIS_EXAMPLES"  # for each property at least
# A run of the suite is to be short, also in CI.
SUITE_PART = 5
LEAST = 50


def examples(count: int) -> settings:
    """For a property that needs more examples than others: so many by C{make fuzz}, a fifth of them in the suite."""
    wanted = int(os.environ.get(EXAMPLES_VARIABLE, "0"))
    in_suite = max(min(count, LEAST), count // SUITE_PART)
    return settings(max_examples=max(count, wanted) if wanted else in_suite, deadline=None)
