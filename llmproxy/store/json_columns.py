"""What JSON columns hold of limits, policies, labels and metadata. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy.access_policy import ALL_ALLOWED, AccessPolicy
from llmproxy.model import UNLIMITED, Allowance, Budget, Metadata

_BUDGETS = ("budget_usd", "budget_tokens", "soft_budget_usd", "soft_budget_tokens")
_LISTS = ("apis", "methods", "endpoints", "models", "ips", "required_params", "required_headers")
_VALUES = ("param_whitelist", "header_values")
_NUMBERS = ("requests_per_minute", "tokens_per_minute", "concurrency")


def allowance_to_json(allowance: Allowance) -> dict[str, Any] | None:
    """What is set of it; C{None} where nothing is."""
    set_ = {name: value for name in _NUMBERS if (value := getattr(allowance, name)) is not None}
    for name in _BUDGETS:
        if budgets := getattr(allowance, name):
            set_[name] = [[budget.amount, budget.period] for budget in budgets]
    return set_ or None


def labels_to_json(labels: tuple[str, ...]) -> list[str] | None:
    return list(labels) or None


def metadata_to_json(texts: Metadata) -> dict[str, str] | None:
    return dict(texts) or None


def metadata_from_json(stored: Mapping[str, str] | None) -> Metadata:
    return tuple(sorted(stored.items())) if stored else ()


def allowance_from_json(stored: Mapping[str, Any] | None) -> Allowance:
    if not stored:
        return UNLIMITED
    values: dict[str, Any] = {name: stored.get(name) for name in _NUMBERS}
    for name in _BUDGETS:
        values[name] = tuple(Budget(amount, period) for amount, period in stored.get(name, ()))
    return Allowance(**values)


def policy_to_json(policy: AccessPolicy) -> dict[str, Any] | None:
    """What it says; C{None} where that is nothing."""
    said: dict[str, Any] = {name: list(listed) for name in _LISTS if (listed := getattr(policy, name))}
    for name in _VALUES:
        if values := getattr(policy, name):
            said[name] = [[each, list(patterns)] for each, patterns in values]
    if policy.max_output_tokens is not None:
        said["max_output_tokens"] = policy.max_output_tokens
    return said or None


def policy_from_json(stored: Mapping[str, Any] | None) -> AccessPolicy:
    if not stored:
        return ALL_ALLOWED
    values: dict[str, Any] = {name: tuple(stored.get(name, ())) for name in _LISTS}
    for name in _VALUES:
        values[name] = tuple((each, tuple(patterns)) for each, patterns in stored.get(name, ()))
    return AccessPolicy(**values, max_output_tokens=stored.get("max_output_tokens"))
