"""The tables. Times are seconds since the epoch, so that every database keeps them alike."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

project_groups = Table(
    "project_groups",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("parent_id", String(64)),  # no reference: the tree is changed under a lock, and restored in any order
    Column("allowance", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    Index("project_groups_by_age", "created_at", "id"),
    Index("project_groups_by_parent", "parent_id"),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("name", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("deactivated_at", Double),
    Column("allowance", JSON(none_as_null=True)),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    Column("labels", JSON(none_as_null=True)),
    Column("metadata", JSON(none_as_null=True)),
    Column("policy", JSON(none_as_null=True)),
    Column("group_id", ForeignKey("project_groups.id")),
    Index("projects_by_age", "created_at", "id"),
    Index("projects_of_group", "group_id"),
)

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("api", String(255), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("masked", String(32), nullable=False),
    Column("reference", Text),  # of what is sealed, where that is one and no key
)

further_keys = Table(  # those that a project has for an API beside the one in provider_keys
    "further_provider_keys",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("api", String(255), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("masked", String(32), nullable=False),
    Column("reference", Text),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("expires_at", Double),
    Column("max_requests", BigInteger),
    Column("request_count", BigInteger, nullable=False),
    Column("cache_hits", BigInteger, nullable=False, server_default="0"),
    Column("apis", JSON, nullable=False),
    Column("endpoints", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("ips", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double),
    Column("deactivated_at", Double),
    Column("allowance", JSON(none_as_null=True)),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    Column("labels", JSON(none_as_null=True)),
    Column("metadata", JSON(none_as_null=True)),
    Column("policy", JSON(none_as_null=True)),
    Column("previous_hash", String(64)),  # of the secret before a rotation
    Column("previous_expires_at", Double),
    Index("tokens_by_previous_hash", "previous_hash"),
    Index("tokens_by_age", "created_at", "id"),
    Index("tokens_of_project_by_age", "project_id", "created_at", "id"),
)

management_keys = Table(
    "management_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("role", String(16), nullable=False),
    Column("projects", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double),
    Column("deactivated_at", Double),
    Index("management_keys_by_age", "created_at", "id"),
)

creations = Table(  # what was answered under an idempotency key; sealed is null while it is being made
    "creations",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("sealed", LargeBinary),
    Index("creations_by_time", "at"),
)

audit_log = Table(  # one row for each entry; C{line} is the entry in its chain, the other columns are for filters
    "audit_log",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("action", String(64), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("token_id", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("client", String(64), nullable=False),
    Column("line", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_log_by_time", "at"),
    Index("audit_log_of_project", "project_id", "seq"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("project_id", String(255), nullable=False),
)

spending = Table(
    "spending",
    metadata,
    Column("id", String(400), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("ends", Double, nullable=False),
)

advances = Table(  # what each process took of a budget that no line of its ledger accounts for yet
    "budget_advances",
    metadata,
    Column("run", String(64), primary_key=True),
    Column("budget", String(400), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("ends", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Index("budget_advances_by_budget", "budget"),
)

canaries = Table(
    "canaries", metadata, Column("name", String(32), primary_key=True), Column("sealed", LargeBinary, nullable=False)
)

# What many lines of the ledger have in common, once; C{used_on} is the last day, since the epoch, that one was entered.
_OF_KIND = (
    Column("project_id", String(255), nullable=False),
    Column("token_id", String(64), nullable=False),
    Column("api", String(255), nullable=False),
    Column("endpoint", String(255), nullable=False),
    Column("model", String(128), nullable=False),
    Column("answered", String(128), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("basis", String(16), nullable=False),
    Column("error", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("upstream_status", Integer),
    Column("stream", Boolean, nullable=False),
)
_AT_FIRST = (
    Column("at", Double, nullable=False),
    Column("duration", Double, nullable=False),
    Column("request_id", String(128), nullable=False),
)
_AT_LAST = (
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("attribution", String(4000), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("attempted", String(512), nullable=False),
)

ledger_kinds = Table(
    "ledger_kinds",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("used_on", Integer, nullable=False),
    *_OF_KIND,
)

ledger_runs = Table(  # what the ids of lines begin with
    "ledger_runs",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("used_on", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Index("ledger_runs_by_name", "name"),
)

ledger_lines = Table(
    "ledger_lines",
    metadata,
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # -1: the run's name is all of the id
    Column("kind_id", BigInteger, nullable=False),
    *_AT_FIRST,
    *_AT_LAST,
    Index("ledger_lines_by_time", "at"),
    sqlite_with_rowid=False,
)

ledger = Table(  # a view of all three, for people
    "ledger",
    MetaData(),
    *(Column(name, String(64)) for name in ("id", "run")),  # a line is found by its run and its number
    *(Column(column.name, column.type) for column in (ledger_lines.c.number, *_AT_FIRST, *_OF_KIND, *_AT_LAST)),
)

_USAGE_SUMS = (
    *("requests", "failed", "estimated", "unpriced", "input_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens"),
)

# The ledger added up: one row for all that have the key in common. A period is a day, 2026-11-25; or a month, 2026-11,
# once its days are folded.
usage = Table(
    "usage_by_period",
    metadata,
    Column("period", String(10), primary_key=True),
    Column("project_id", String(255), primary_key=True),
    Column("token_id", String(64), primary_key=True),
    Column("api", String(255), primary_key=True),
    Column("model", String(128), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in _USAGE_SUMS),
    Column("cost_usd", Double, nullable=False),
    Index("usage_by_token", "token_id", "period"),
    Index("usage_of_project_by_token", "project_id", "token_id", "period"),
)

# The same without the tokens: of thousands of tokens one row, for all reports that do not tell them apart.
project_usage = Table(
    "usage_of_projects",
    metadata,
    Column("period", String(10), primary_key=True),
    Column("project_id", String(255), primary_key=True),
    Column("api", String(255), primary_key=True),
    Column("model", String(128), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in _USAGE_SUMS),
    Column("cost_usd", Double, nullable=False),
)

# The same by what requests are attributed to; of each attribution of its own. C{source} is empty where there was none.
attributed_usage = Table(
    "usage_by_attribution",
    metadata,
    Column("period", String(10), primary_key=True),
    Column("project_id", String(255), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("source", String(8), primary_key=True),
    Column("value", String(128), primary_key=True),
    Column("api", String(255), primary_key=True),
    Column("model", String(128), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in _USAGE_SUMS),
    Column("cost_usd", Double, nullable=False),
    Index("usage_by_attribution_value", "name", "value", "period"),
    Index("usage_by_attribution_of_project", "project_id", "name", "value", "period"),
)

journals = Table(  # how far each process's journal has been entered; in one transaction with what was entered
    "ledger_journals",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("place", BigInteger, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# What responses have announced and nobody has fetched yet; its budgets hold the worst until then.
pending_results = Table(
    "pending_results",
    metadata,
    Column("ledger_id", String(64), primary_key=True),
    Column("result_id", String(255), nullable=False),
    Column("at", Double, nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("token_id", String(64), nullable=False),
    Column("api", String(255), nullable=False),
    Column("model", String(128), nullable=False),
    Column("held", JSON, nullable=False),
    Column("attribution", String(4000), nullable=False, server_default=""),
    Index("pending_results_by_result", "result_id"),
    Index("pending_results_by_time", "at"),
)

admin_sessions = Table(  # who is signed in to the pages; C{hash} is that of what their cookie holds
    "admin_sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("previous_hash", String(64)),
    Column("csrf_token", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("rotated_at", Double, nullable=False),
    Column("last_seen_at", Double, nullable=False),
    Column("client", String(64), nullable=False),
    Column("user_agent", String(255), nullable=False),
    Column("principal", Text),  # JSON: name, role and projects, where the subject is no key
    Index("admin_sessions_by_previous_hash", "previous_hash"),
)

budget_alerts = Table(  # what was alerted: once for each budget and period, its amount, and a threshold of it
    "budget_alerts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at", Double, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("threshold", Integer, nullable=False),
    Column("soft", Boolean, nullable=False),
    Column("owner", String(16), nullable=False),
    Column("owner_id", String(255), nullable=False),
    Column("name", Text, nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("budget", String(400), nullable=False),
    Column("unit", String(8), nullable=False),
    Column("period", String(16), nullable=False),
    Column("limit", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("ends", Double, nullable=False),
    Column("delivered_at", Double),
    UniqueConstraint("budget", "limit", "soft", "threshold", name="budget_alerts_once"),
    Index("budget_alerts_by_time", "at", "id"),
    Index("budget_alerts_by_owner_id", "owner_id", "owner", "at", "id"),
    *(Index(f"budget_alerts_by_{name}", name, "at", "id") for name in ("owner", "project_id")),
)

revoked_subjects = Table(  # whose tokens of other issuers are refused; C{issued_before}: only those, all if null
    "revoked_subjects",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("issued_before", Double),
    Column("revoked_at", Double, nullable=False),
    Column("reason", String(200), nullable=False),
    Index("revoked_subjects_by_time", "revoked_at", "id"),
)

FIRST_BYTE_CLASSES = tuple(f"first_byte_{number:02}" for number in range(30))
ACTIVITY_KEY = ("step", "at", "project_id", "api", "model")
ACTIVITY_COUNTS = ("requests", "failed", "refused", "cache_hits", "input_tokens", "output_tokens", "cost_usd")
ACTIVITY_SUMS = (*ACTIVITY_COUNTS, *FIRST_BYTE_CLASSES)

activity = Table(  # what went on in stretches of time, each of so many seconds; C{at} is when one began
    "activity",
    metadata,
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, String(255), primary_key=True) for name in ("project_id", "api")),
    Column("model", String(128), primary_key=True),
    *(Column(name, Double if name == "cost_usd" else BigInteger, nullable=False) for name in ACTIVITY_SUMS),
)
