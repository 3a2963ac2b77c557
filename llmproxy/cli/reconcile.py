"""C{llmproxy usage reconcile}: whether a provider counted what the ledger has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import click

from llmproxy.cli.client import ManagementClient, management_path
from llmproxy.cli.errors import Misconfigured, RequestRejected
from llmproxy.cli.output import Columns, as_json, echo, table
from llmproxy.cli.project_filter import project_option, project_query
from llmproxy.cli.provider_exports import ANY_MODEL, ProviderExport, read_export
from llmproxy.cli.reconciliation import Comparison, Tolerance, compare
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "DAY": lambda row: row["day"],
    "MODEL": lambda row: row["model"],
    "WHAT": lambda row: row["measure"],
    "PROVIDER": lambda row: _number(row["measure"], row["provider"]),
    "LEDGER": lambda row: _number(row["measure"], row["ledger"]),
    "DIFFERENCE": lambda row: _number(row["measure"], row["difference"], "+"),
    "%": lambda row: None if row["percent"] is None else f"{row['percent']:+.2f}",
    "UNPRICED": lambda row: row["unpriced"] or None,
    "STATE": lambda row: "differs" if row["differs"] else "ok",
}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--api", "apis", multiple=True, help="Compare with this API; may be given again.  [those of the provider]"
)
@project_option("Compare with what this project used.")
@click.option("--tolerance", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Percent.")
@click.option("--tolerance-usd", type=click.FloatRange(min=0), default=0.01, show_default=True, help="Of each cost.")
@click.option("--all", "everything", is_flag=True, help="Show what agrees, too; JSON always has all.")
@with_session
def reconcile(
    session: CommandSession,
    file: str,
    apis: tuple[str, ...],
    project: str | None,
    tolerance: float,
    tolerance_usd: float,
    everything: bool,
) -> None:
    """Compare a provider's export with the ledger, by day and model.

    FILE is the CSV that OpenAI or Anthropic export, of usage or of costs. Ends with 1 where anything differs.
    """
    export = _read(file)
    client = session.client()
    names = apis or _of_provider(client, export.format.provider)
    first, last = min(export.days), max(export.days)
    behind = (date.fromisoformat(last) + timedelta(days=1)).isoformat()
    query = {"group_by": "day,api,model", "from": first, "to": behind}
    used = client.list_all(management_path("usage"), **query, **project_query(project))
    rows = [row for row in used["data"] if row["api"] in names]
    if any(len(row["day"]) == 7 for row in rows):
        raise RequestRejected(
            f"Between {first} and {last} the ledger has sums of months only (ledger.keep_days): export later days."
        )
    compared = compare(export, rows, Tolerance(Decimal(str(tolerance)), Decimal(str(tolerance_usd))))
    shown = [_row(each) for each in compared]
    differences = sum(each.differs for each in compared)
    if session.output == "json":
        echo(as_json({**_about(export, first, last, names), "differences": differences, "data": shown}))
    else:
        wanted = [row for row in shown if everything or row["differs"]]
        if wanted:
            echo(table(wanted, COLUMNS))
        echo(_summary(export, first, last, names, compared))
    sys.exit(1 if differences else 0)


def _read(file: str) -> ProviderExport:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            return read_export(lines)
    except (OSError, ValueError) as e:
        raise Misconfigured(f"{file}: {e}.") from e


def _of_provider(client: ManagementClient, provider: str) -> tuple[str, ...]:
    names = tuple(
        api["name"] for api in client.request("GET", management_path("apis"))["data"] if api["provider"] == provider
    )
    if not names:
        raise RequestRejected(f"No API of the settings has the provider {provider}: name one with --api.")
    return names


def _row(each: Comparison) -> dict[str, Any]:
    percent = float(each.difference / each.provider * 100) if each.provider else None
    exact: type[float] | type[int] = float if each.measure == "cost_usd" else int
    return {
        "day": each.day,
        "model": each.model if each.model != ANY_MODEL else "(all)",
        "measure": each.measure,
        "provider": exact(each.provider),
        "ledger": exact(each.ledger),
        "difference": exact(each.difference),
        "percent": None if percent is None else round(percent, 4),
        "differs": each.differs,
        "unpriced": each.unpriced,
    }


def _about(export: ProviderExport, first: str, last: str, names: Sequence[str]) -> dict[str, Any]:
    return {"format": export.format.name, "from": first, "to": last, "apis": list(names)}


def _summary(
    export: ProviderExport, first: str, last: str, names: Sequence[str], compared: Sequence[Comparison]
) -> str:
    lines = [f"{export.format.name}, {first} to {last}, with {', '.join(names)}:"]
    for measure in export.format.amounts:
        of_it = [each for each in compared if each.measure == measure]
        theirs, ours = sum(each.provider for each in of_it), sum(each.ledger for each in of_it)
        lines.append(
            f"  {measure}: provider {_number(measure, theirs)}, ledger {_number(measure, ours)}; "
            f"{sum(each.differs for each in of_it)} of {len(of_it)} days and models differ"
        )
    return "\n".join(lines)


def _number(measure: str, value: Decimal | float, sign: str = "") -> str:
    return f"{value:{sign},.6f}" if measure == "cost_usd" else f"{int(value):{sign},}"
