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
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

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
)

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("api", String(255), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("masked", String(32), nullable=False),
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
    Column("apis", JSON, nullable=False),
    Column("endpoints", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("ips", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double),
    Column("deactivated_at", Double),
    Column("allowance", JSON(none_as_null=True)),
    Index("tokens_of_project", "project_id"),
)

spending = Table(
    "spending",
    metadata,
    Column("id", String(400), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("ends", Double, nullable=False),
)

canaries = Table(
    "canaries",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
