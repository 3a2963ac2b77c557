"""The limits that hold for a request: those of its token, of its project and of its API, one after the other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from llmproxy.base.budgets import nano
from llmproxy.base.calendar_periods import Calendar
from llmproxy.model import Allowance, Budget, Claim, GroupLimits, LedgerLine

UNITS_BY_LIMIT = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "concurrency": "requests",
    "budget_usd": "usd",
    "budget_tokens": "tokens",
}
KINDS_BY_LIMIT = {
    "requests_per_minute": "rate",
    "tokens_per_minute": "rate",
    "concurrency": "lease",
    "budget_usd": "budget",
    "budget_tokens": "budget",
}


class Rule(NamedTuple):
    """One limit.

    @ivar name: What it is called in the settings; C{kind} is that of L{Claim}, C{unit} what is counted.
    @ivar owner: Whose it is: C{token}, C{project}, C{group} or C{API}.
    @ivar label: What people call that owner, where a request has several of its kind; C{""} where it has one.
    @ivar key: Names it among all limits; a budget's period is still to be added.
    @ivar limit: In the unit; dollars as nano-dollars.
    """

    name: str
    kind: str
    unit: str
    owner: str
    key: str
    limit: int
    period: str
    on_loss: str
    label: str = ""


class LimitPlan(NamedTuple):
    """All limits of a request, those first that end by themselves.

    @ivar claims: What every request claims of each, or C{None} where that hangs on the request or on the day.
    @ivar counts_tokens: Whether the request's tokens or money must be known beforehand.
    """

    rules: tuple[Rule, ...]
    claims: tuple[Claim | None, ...]
    counts_tokens: bool
    counts_money: bool


def rules(owner: str, name: str, allowance: Allowance, on_loss: Mapping[str, str], label: str = "") -> list[Rule]:
    """The limits of one owner.

    @param name: Its id, or the API's name; C{label} as of a L{Rule}.
    @param on_loss: By the names of limits.
    """
    found: list[Rule] = []
    for limit, kind in KINDS_BY_LIMIT.items():
        value = getattr(allowance, limit)
        budgets: Iterable[Budget] = value if kind == "budget" else [Budget(value, "")] if value is not None else []
        for budget in budgets:
            key = f"{owner.lower()}:{name}:{limit}"
            told = on_loss.get(limit, "closed")
            unit = UNITS_BY_LIMIT[limit]
            found.append(Rule(limit, kind, unit, owner, key, budget.amount, budget.period, told, label))
    return found


def plan(
    owned: Iterable[tuple[str, str, Allowance | None]],
    on_loss: Mapping[str, str],
    groups: Iterable[GroupLimits] = (),
) -> LimitPlan:
    """The plan of a request that all of these owners (what, its name, its limits) and groups must allow."""
    found = [rule for what, name, allowance in owned if allowance for rule in rules(what, name, allowance, on_loss)]
    found += [rule for each in groups for rule in rules("group", each.id, each.allowance, on_loss, each.name)]
    order = list(KINDS_BY_LIMIT)
    found.sort(key=lambda rule: order.index(rule.name) if rule.kind != "lease" else -1)
    return LimitPlan(
        tuple(found),
        tuple([_always(rule) for rule in found]),
        counts_tokens=any(rule.unit != "requests" for rule in found),
        counts_money=any(rule.unit == "usd" for rule in found),
    )


def _always(rule: Rule) -> Claim | None:
    fixed = rule.kind != "budget" and rule.unit == "requests"
    return Claim(rule.key, rule.kind, rule.limit, 1, 0.0, rule.on_loss) if fixed else None


# Keys as L{rules} and L{limits.limiter} make them.
_BUDGET_KEY = re.compile(
    r"(token|project|group|api):(.*):(budget_usd|budget_tokens):(lifetime|(?:day|month):[0-9-]+)", re.DOTALL
)


def charges(
    budgets: Iterable[str], lines: Sequence[LedgerLine], groups: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Mapping[str, int]:
    """What these lines charge to those of the budgets that hold for them, in nano-dollars or tokens, by key.

    @param groups: The ids of the groups above each project.

    A line is charged to the period in which its request arrived; one without a price costs nothing.
    """
    of_owner: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for key in budgets:
        if match := _BUDGET_KEY.fullmatch(key):
            of_owner[match[1], match[2]].append((key, match[3], match[4]))
    sums: dict[str, int] = defaultdict(int)
    if not of_owner:
        return sums
    calendar = Calendar()
    for line in lines:
        owners = [("token", line.token_id or line.project_id), ("project", line.project_id), ("api", line.api)]
        owners += [("group", group_id) for group_id in groups.get(line.project_id, ())]
        for owner in owners:
            for key, unit, label in of_owner.get(owner, ()):
                if calendar.span(label.partition(":")[0], line.at).label == label:
                    tokens = line.input_tokens + line.output_tokens
                    sums[key] += nano(line.cost_usd or 0.0) if unit == "budget_usd" else tokens
    return sums
