"""Which budgets a line of the ledger is charged to: how what was taken of them in advance is accounted for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from llmproxy.budgets import nano
from llmproxy.calendar_periods import Calendar
from llmproxy.model import LedgerLine

# As L{limits.plan.rules} and L{limits.limiter} make them.
_KEY = re.compile(r"(token|project|api):(.*):(budget_usd|budget_tokens):(lifetime|(?:day|month):[0-9-]+)", re.DOTALL)


def charges(budgets: Iterable[str], lines: Sequence[LedgerLine]) -> Mapping[str, int]:
    """What these lines charge to those of the budgets that hold for them, in nano-dollars or tokens, by key.

    A line is charged to the period in which its request arrived; one without a price costs nothing.
    """
    of_owner: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for key in budgets:
        if match := _KEY.fullmatch(key):
            of_owner[match[1], match[2]].append((key, match[3], match[4]))
    sums: dict[str, int] = defaultdict(int)
    if not of_owner:
        return sums
    calendar = Calendar()
    for line in lines:
        owners = ("token", line.token_id or line.project_id), ("project", line.project_id), ("api", line.api)
        for owner in owners:
            for key, unit, label in of_owner.get(owner, ()):
                if calendar.span(label.partition(":")[0], line.at).label == label:
                    tokens = line.input_tokens + line.output_tokens
                    sums[key] += nano(line.cost_usd or 0.0) if unit == "budget_usd" else tokens
    return sums
