"""Holds a file to FOCUS 1.2: its columns, types, allowed values and rules for null, as the specification states them.

https://focus.finops.org/focus-specification/v1-2/, of every column that is mandatory there, and of the conditional and
recommended ones that such a file may have. It knows nothing of how the file was made.
"""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

MANDATORY = [
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
]
CONDITIONAL = [
    "AvailabilityZone",
    "BillingAccountType",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeFrequency",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "InvoiceId",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
]
DECIMALS = ["BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingQuantity", "ConsumedQuantity"]
TIMES = ["BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"]
NEVER_NULL = (set(MANDATORY) - {"ChargeClass"}) | {"SkuId", "ConsumedQuantity", "ConsumedUnit"}  # of usage
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "ServiceCategory": {
        *("AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools"),
        *("Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media"),
        *("Migration", "Mobile", "Networking", "Security", "Storage", "Web", "Other"),
    },
    "ServiceSubcategory": {  # of AI and Machine Learning
        *("AI Platforms", "Bots", "Generative AI", "Machine Learning", "Natural Language Processing"),
        "Other (AI and Machine Learning)",
    },
}
PAIRED = (("SubAccountId", "SubAccountName"), ("SubAccountId", "SubAccountType"), ("PricingQuantity", "PricingUnit"))
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")  # DateTimeFormat: ISO 8601 in UTC
_NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")  # NumericFormat: no separators, no symbols


class Breach(NamedTuple):
    """A rule that a file does not keep."""

    row: int
    column: str
    why: str


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def breaches(text: str) -> list[Breach]:
    """All that is wrong with a file; an empty cell is null."""
    (names, *_) = csv.reader(io.StringIO(text))
    found = [Breach(0, name, "is missing") for name in MANDATORY if name not in names]
    found += [Breach(0, name, "is there twice") for name in set(names) if names.count(name) > 1]
    strange = [name for name in names if name not in MANDATORY and name not in CONDITIONAL]
    found += [Breach(0, name, "is none") for name in strange if not re.fullmatch(r"x_[A-Z][A-Za-z0-9]*", name)]
    for at, row in enumerate(read(text), start=1):
        found += [Breach(at, column, why) for column, why in _of_row(row)]
    return found


def _of_row(row: dict[str, str]) -> list[tuple[str, str]]:
    found = [(name, "must not be null") for name in NEVER_NULL & row.keys() if not row[name]]
    found += [(name, "is not allowed") for name, values in ALLOWED.items() if name in row and row[name] not in values]
    found += [(name, "is no date and time") for name in TIMES if not _TIME.fullmatch(row.get(name, ""))]
    found += [(name, "is no number") for name in DECIMALS if row.get(name) and not _is_number(row[name])]
    found += [(b, f"must be null exactly where {a} is") for a, b in PAIRED if bool(row.get(a)) != bool(row.get(b))]
    if not re.fullmatch("[A-Z]{3}", row.get("BillingCurrency", "")):
        found.append(("BillingCurrency", "is no code of ISO 4217"))
    for what in ("Billing", "Charge"):
        if not row[f"{what}PeriodStart"] < row[f"{what}PeriodEnd"]:
            found.append((f"{what}PeriodEnd", "is not behind its start"))
    if not row["BillingPeriodStart"] <= row["ChargePeriodStart"] <= row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]:
        found.append(("ChargePeriodStart", "is not within its billing period"))
    if row.get("Tags"):
        tags = json.loads(row["Tags"])
        if not isinstance(tags, dict) or any(isinstance(value, dict | list) for value in tags.values()):
            found.append(("Tags", "is no KeyValueFormat"))
    return found


def _is_number(text: str) -> bool:
    try:
        return bool(_NUMBER.fullmatch(text)) and Decimal(text).is_finite()
    except InvalidOperation:
        return False
