"""What an alert of a budget says: to receivers and sinks as JSON, to people as a sentence. Pure."""

from __future__ import annotations

from typing import Any

from llmproxy.base.budgets import NANO
from llmproxy.base.timestamps import rfc3339
from llmproxy.model import BudgetAlert


def alert_json(alert: BudgetAlert) -> dict[str, Any]:
    """Dollars are a decimal number."""
    scale = NANO if alert.unit == "usd" else 1
    allowed, spent = (amount if scale == 1 else round(amount / scale, 9) for amount in (alert.limit, alert.spent))
    return {
        "id": alert.id,
        "at": rfc3339(alert.at),
        "type": f"budget.{alert.kind}",
        "threshold": alert.threshold or None,
        "soft": alert.soft,
        "owner": alert.owner,
        "owner_id": alert.owner_id,
        "name": alert.name,
        "project_id": alert.project_id,
        "budget": f"{'soft_' if alert.soft else ''}budget_{alert.unit}",
        "period": alert.period,
        "allowed": allowed,
        "spent": spent,
        "percent": round(alert.spent * 100 / alert.limit, 1),
        "ends_at": rfc3339(alert.ends) if alert.ends else None,
        "text": alert_text(alert),
    }


def alert_text(alert: BudgetAlert) -> str:
    """For people."""
    named = f'{alert.owner} "{alert.name}"' if alert.name else f"{alert.owner} {alert.owner_id}"
    budget = f"the {'soft ' if alert.soft else ''}budget of {_amount(alert, alert.limit)} ({alert.period})"
    if alert.kind == "refusal":
        return f"Too little of {budget} of the {named} is left for a request: {_amount(alert, alert.spent)} is spent."
    percent = alert.spent * 100 // alert.limit
    return f"{percent} % of {budget} of the {named} is spent ({alert.threshold} % reached)."


def _amount(alert: BudgetAlert, amount: int) -> str:
    if alert.unit != "usd":
        return f"{amount:,} tokens"
    cents = amount >= NANO or amount % (NANO // 100) == 0  # a budget of less than a cent is not one of nothing
    return f"${amount / NANO:,.2f}" if cents else f"${amount / NANO:.9f}".rstrip("0")
