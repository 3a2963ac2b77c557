"""Usage as the FinOps Open Cost and Usage Specification has it: FOCUS 1.2, https://focus.finops.org/focus-specification/v1-2/.

One row is what one project used of one model through one API in one day (in one month, where days were folded).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from llmproxy.ledger.reports import SUM_NAMES
from llmproxy.web.csv_cells import csv_lines

FOCUS_GROUPS = ("day", "project", "project_name", "project_labels", "project_metadata", "api", "model")
MANDATORY = (  # those whose feature level is "Mandatory" in version 1.2, in the specification's order
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
)
FURTHER = (
    "BillingAccountType",
    "ChargeFrequency",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ServiceSubcategory",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
)
OWN = {  # columns of our own, which the specification wants to begin with x_
    "x_Requests": "requests",
    "x_FailedRequests": "failed",
    "x_EstimatedRequests": "estimated",
    "x_UnpricedRequests": "unpriced",
    "x_InputTokens": "input_tokens",
    "x_CachedInputTokens": "cached_tokens",
    "x_CacheWriteTokens": "cache_write_tokens",
    "x_OutputTokens": "output_tokens",
    "x_ReasoningTokens": "reasoning_tokens",
    "x_Api": "api",
}
FOCUS_COLUMNS = (*MANDATORY, *FURTHER, *OWN)
PROVIDER_NAMES = {
    "openai": "OpenAI",
    "anthropic": "Anthropic",
    "google": "Google",
    "mistral": "Mistral AI",
    "azure": "Microsoft",
    "bedrock": "Amazon Web Services",
    "bedrock-bearer": "Amazon Web Services",
}
NO_MODEL = "no model"  # the SKU of requests that name none, such as those for the list of models


class FocusRows:
    """Writes rows of usage as lines of CSV."""

    def __init__(self, providers: Mapping[str, str]) -> None:
        """
        @param providers: The provider of each API, as the settings name it; an API that is not there, or whose provider
            is none that is known, is its own provider by its name.
        """
        self._providers = providers

    def heading(self) -> bytes:
        return csv_lines([FOCUS_COLUMNS])

    def render(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Lines of rows that have L{FOCUS_GROUPS}, then L{SUM_NAMES}."""
        names = (*FOCUS_GROUPS, *SUM_NAMES)
        charges = (self.charge(dict(zip(names, row, strict=True))) for row in rows)
        return csv_lines([charge[name] for name in FOCUS_COLUMNS] for charge in charges)

    def charge(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of one row; C{None} is null."""
        begin, end, month_begin, month_end = periods(row["day"])
        api, sku, cost = row["api"], row["model"] or NO_MODEL, float(row["cost_usd"])
        tokens, requests, unpriced = int(row["input_tokens"]) + int(row["output_tokens"]), int(row["requests"]), ""
        if row["unpriced"]:
            unpriced = f", {int(row['unpriced'])} of them of unknown cost, which is not in here"
        quantity, unit = (tokens, "Tokens") if tokens else (requests, "Requests")
        provider = PROVIDER_NAMES.get(self._providers.get(api, ""), api)
        project = row["project"] or None
        return {
            **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
            **dict.fromkeys(("BillingAccountId", "BillingAccountName"), api),
            "BillingAccountType": "API",
            "BillingCurrency": "USD",
            "BillingPeriodStart": month_begin,
            "BillingPeriodEnd": month_end,
            "ChargeCategory": "Usage",
            "ChargeClass": None,  # no correction of what was billed before
            "ChargeDescription": f"{sku}: {requests} requests{unpriced}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": begin,
            "ChargePeriodEnd": end,
            **dict.fromkeys(("PricingQuantity", "ConsumedQuantity"), quantity),
            **dict.fromkeys(("PricingUnit", "ConsumedUnit"), unit),
            **dict.fromkeys(("InvoiceIssuerName", "ProviderName", "PublisherName"), provider),
            "ServiceCategory": "AI and Machine Learning",
            "ServiceSubcategory": "Generative AI",
            "ServiceName": f"{provider} API" if provider != api else api,
            "SkuId": sku,
            "SubAccountId": project,
            "SubAccountName": (row["project_name"] or project) if project else None,
            "SubAccountType": "Project" if project else None,
            "Tags": tags(row["project_labels"], row["project_metadata"]),
            **{name: row[column] if column == "api" else int(row[column]) for name, column in OWN.items()},
        }


def periods(period: str) -> tuple[str, str, str, str]:
    """Begin and end of a day or a month, then those of its month; each end is the first moment behind it."""
    begin = date.fromisoformat(period if len(period) > 7 else f"{period}-01")
    month_begin = begin.replace(day=1)
    month_end = (month_begin + timedelta(days=32)).replace(day=1)
    end = begin + timedelta(days=1) if len(period) > 7 else month_end
    first, last, month_first, month_last = (f"{day}T00:00:00Z" for day in (begin, end, month_begin, month_end))
    return first, last, month_first, month_last


def tags(labels: str, metadata: str) -> str | None:
    """A project's labels and metadata, both JSON, in KeyValueFormat: a label is a key whose value is C{true}."""
    found: dict[str, Any] = dict.fromkeys(_json(labels) or (), True)
    found |= _json(metadata) or {}
    return json.dumps(found, ensure_ascii=False, sort_keys=True) if found else None


def _json(text: str) -> Any:
    return json.loads(text) if text else None
