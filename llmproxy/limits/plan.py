"""The limits that hold for a request: those of its token, of its project and of its API, one after the other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from llmproxy.base.budgets import ChargedUse
from llmproxy.base.calendar_periods import PERIODS, Calendar, Span
from llmproxy.limits.counted import NO_LIMITS, CountedLimits
from llmproxy.limits.headers import RateLines
from llmproxy.model import Allowance, Budget, Claim, GroupLimits

UNITS_BY_LIMIT = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "concurrency": "requests",
    "budget_usd": "usd",
    "budget_tokens": "tokens",
}
UNITS = ("requests", "tokens", "usd")  # the order of the amounts that a request takes
KINDS_BY_LIMIT = {
    "requests_per_minute": "rate",
    "tokens_per_minute": "rate",
    "concurrency": "lease",
    "budget_usd": "budget",
    "budget_tokens": "budget",
}
UNENFORCED = 2**60  # nano-dollars or tokens: the limit of a budget that only warns, which nobody reaches


class Rule(NamedTuple):
    """One limit.

    @ivar name: What it is called in the settings; C{kind} is that of L{Claim}, C{unit} what is counted.
    @ivar owner: Whose it is: C{token}, C{project}, C{group} or C{API}.
    @ivar label: What people call that owner, where a request has several of its kind; C{""} where it has one.
    @ivar key: Names it among all limits; a budget's period is still to be added.
    @ivar limit: In the unit; dollars as nano-dollars. L{UNENFORCED} where a budget only warns.
    @ivar soft: The amount at which a budget warns that has one beside its limit, or only that; 0 where there is none.
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
    soft: int = 0

    @property
    def owner_id(self) -> str:
        """The token's, the project's or the group's id, or the API's name."""
        return self.key[len(self.owner) + 1 : -len(self.name) - 1]


class LimitPlan:
    """All limits of a request, those first that end by themselves, made ready for requests.

    @ivar counts_tokens: Whether the request's tokens or money are to be known beforehand.
    @ivar counts_money: Likewise its money; C{needs_price}: whether that must be known, as a budget may refuse it.
    @ivar budgets: The rules of budgets, be they in money or tokens.
    @ivar rate_lines: Writes how its rates stand, as clients of its provider read it.
    @ivar limits: What counters take from, in the period L{follow} was last called for.
    """

    __slots__ = ("budgets", "counts_money", "counts_tokens", "limits", "needs_price", "rate_lines", "rules", "units")

    def __init__(self, rules: Sequence[Rule], provider: str = "") -> None:
        """
        @param provider: Of the API that the requests are for, as the settings name it.
        """
        self.rules = tuple(rules)
        self.units = tuple([UNITS.index(rule.unit) for rule in rules])
        self.budgets = tuple([rule for rule in rules if rule.kind == "budget"])
        self.counts_tokens = any(rule.unit != "requests" for rule in rules)
        self.counts_money = any(rule.unit == "usd" for rule in rules)
        self.needs_price = any(rule.unit == "usd" and rule.limit < UNENFORCED for rule in rules)
        self.limits = NO_LIMITS
        self.rate_lines = RateLines([(rule.unit, rule.limit) for rule in rules if rule.kind == "rate"], provider)

    def follow(self, calendar: Calendar, now: float) -> CountedLimits:
        """The limits in the present periods, as L{limits} is from now on.

        @param now: Seconds since the epoch.
        """
        spans = [calendar.span(rule.period, now) for rule in self.budgets]
        begins = max([span.begins for span in spans], default=0.0)
        ends = min([span.ends for span in spans if span.ends], default=inf)
        left = iter(spans)
        claims = [_claim(rule, next(left) if rule.kind == "budget" else None) for rule in self.rules]
        self.limits = CountedLimits(claims, self.units, begins, ends)
        return self.limits


def rules(owner: str, name: str, allowance: Allowance, on_loss: Mapping[str, str], label: str = "") -> list[Rule]:
    """The limits of one owner.

    @param name: Its id, or the API's name; C{label} as of a L{Rule}.
    @param on_loss: By the names of limits.
    """
    found: list[Rule] = []
    for limit, kind in KINDS_BY_LIMIT.items():
        value, unit, key = getattr(allowance, limit), UNITS_BY_LIMIT[limit], f"{owner.lower()}:{name}:{limit}"
        told = on_loss.get(limit, "closed")
        if kind == "budget":
            found += _budgets(limit, unit, owner, key, value, getattr(allowance, f"soft_{limit}"), told, label)
        elif value is not None:
            found.append(Rule(limit, kind, unit, owner, key, value, "", told, label))
    return found


def _budgets(
    limit: str,
    unit: str,
    owner: str,
    key: str,
    hard: Iterable[Budget],
    soft: Iterable[Budget],
    on_loss: str,
    label: str,
) -> Iterable[Rule]:
    """One rule for each period: what warns and what refuses are the same sum."""
    refusing = {budget.period: budget.amount for budget in hard}
    warning = {budget.period: budget.amount for budget in soft}
    for period in PERIODS:
        if period in refusing:
            amount, warned = refusing[period], warning.get(period, 0)
            yield Rule(limit, "budget", unit, owner, key, amount, period, on_loss, label, warned)
        elif period in warning:
            yield Rule(limit, "budget", unit, owner, key, UNENFORCED, period, "open", label, warning[period])


def plan(
    owned: Iterable[tuple[str, str, Allowance | None]],
    on_loss: Mapping[str, str],
    groups: Iterable[GroupLimits] = (),
    provider: str = "",
) -> LimitPlan:
    """The plan of a request that all of these owners (what, its name, its limits) and groups must allow; C{provider} as
    of a L{LimitPlan}."""
    found = [rule for what, name, allowance in owned if allowance for rule in rules(what, name, allowance, on_loss)]
    found += [rule for each in groups for rule in rules("group", each.id, each.allowance, on_loss, each.name)]
    order = list(KINDS_BY_LIMIT)
    found.sort(key=lambda rule: order.index(rule.name) if rule.kind != "lease" else -1)
    return LimitPlan(found, provider)


def _claim(rule: Rule, span: Span | None) -> Claim:
    """What every request claims of a limit: its own part is still to be added."""
    if span is not None:
        return Claim(f"{rule.key}:{span.label}", "budget", rule.limit, 0, span.ends, rule.on_loss)
    return Claim(rule.key, rule.kind, rule.limit, 0, 0.0, rule.on_loss)


# Keys as L{rules} and L{limits.limiter} make them.
_BUDGET_KEY = re.compile(
    r"(token|project|group|api):(.*):(budget_usd|budget_tokens):(lifetime|(?:day|month):[0-9-]+)", re.DOTALL
)


def charges(
    budgets: Iterable[str], uses: Iterable[ChargedUse], groups: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Mapping[str, int]:
    """What these uses charge to those of the budgets that hold for them, in nano-dollars or tokens, by key.

    @param groups: The ids of the groups above each project.
    """
    of_owner: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for key in budgets:
        if match := _BUDGET_KEY.fullmatch(key):
            of_owner[match[1], match[2]].append((key, match[3], match[4]))
    sums: dict[str, int] = defaultdict(int)
    if not of_owner:
        return sums
    calendar = Calendar()
    for use in uses:
        owners = [("token", use.token_id or use.project_id), ("project", use.project_id), ("api", use.api)]
        owners += [("group", group_id) for group_id in groups.get(use.project_id, ())]
        for owner in owners:
            for key, unit, label in of_owner.get(owner, ()):
                if calendar.span(label.partition(":")[0], use.at).label == label:
                    sums[key] += use.nanos if unit == "budget_usd" else use.tokens
    return sums
