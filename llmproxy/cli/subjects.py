"""C{llmproxy subject}: whose JWTs are refused."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.output import Columns
from llmproxy.cli.session import CommandSession, with_session

COLUMNS: Columns = {
    "SUBJECT": lambda subject: subject["id"],
    "JWTS": lambda subject: f"issued before {subject['issued_before']}" if subject["issued_before"] else "all",
    "REVOKED": lambda subject: subject["revoked_at"],
    "REASON": lambda subject: subject["reason"],
}
_ISSUER = click.option("--issuer", metavar="URL", help="SUBJECT is what this issuer's JWTs say in sub.")


@click.group()
def subject() -> None:
    """Refuse the JWTs of somebody whom an identity provider knows.

    SUBJECT is the id that usage and audit log show, such as oidc:5f1e0a3b:ada; with --issuer, what the JWTs say in sub.
    """


@subject.command("list")
@with_session
def list_(session: CommandSession) -> None:
    """List the subjects whose JWTs are refused."""
    session.show_list(session.client().list_all(management_path("subjects")), COLUMNS)


@subject.command()
@click.argument("subject_name", metavar="SUBJECT")
@_ISSUER
@click.option(
    "--issued-before",
    metavar="TIME",
    help='Only JWTs that were issued before this, RFC 3339, or "now"; newer ones are taken.',
)
@click.option("--reason", help="Why, for whoever reads the list.")
@with_session
def revoke(
    session: CommandSession, subject_name: str, issuer: str | None, issued_before: str | None, reason: str | None
) -> None:
    """Refuse a subject's JWTs from now on: all of them, or those from before an instant."""
    body = _name(subject_name, issuer)
    if issued_before is not None:
        body["issued_before"] = datetime.now(UTC).isoformat() if issued_before == "now" else issued_before
    if reason is not None:
        body["reason"] = reason
    session.show(session.client().request("POST", management_path("subjects", "revoke"), body))


@subject.command()
@click.argument("subject_name", metavar="SUBJECT")
@_ISSUER
@with_session
def restore(session: CommandSession, subject_name: str, issuer: str | None) -> None:
    """Take a subject's JWTs again."""
    name = _name(subject_name, issuer)
    session.show(session.client().request("POST", management_path("subjects", "restore"), name))


def _name(subject_name: str, issuer: str | None) -> dict[str, str]:
    return {"id": subject_name} if issuer is None else {"issuer": issuer, "sub": subject_name}
