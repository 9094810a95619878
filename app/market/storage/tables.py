"""Tables of exchange data: contracts, specifications, candles, snapshots, funding."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    text,
)

from app.foundation.sql.schema import (
    HUGE,
    ExactDecimal,
    FiniteFloat,
    UtcInstant,
    between,
    exact,
    metadata,
    positive,
    type_of_uuid,
)

contracts = Table(
    "contracts",
    metadata,
    Column("id", type_of_uuid, nullable=False),
    Column("code", String(64), nullable=False),
    Column("symbol", String(64), nullable=False),
    Column("base", String(64), nullable=False),
    Column("quote", String(16), nullable=False),
    Column("settle", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("listed_ms", BigInteger),
    Column("expires_ms", BigInteger),
    Column("market_stage", String(32)),
    Column("market_type", String(32)),
    Column("sector", String(64), nullable=False),
    Column("cap_category", String(32), nullable=False),
    Column("first_seen", UtcInstant, nullable=False),
    Column("last_seen", UtcInstant, nullable=False),
    Column("vanished_at", UtcInstant),
    Column("paused_since", UtcInstant),
    PrimaryKeyConstraint("id"),
)
# A code and a name may be reused after their contract has vanished.
Index(
    "uq_contracts_code_current",
    contracts.c.code,
    unique=True,
    sqlite_where=text("vanished_at IS NULL"),
    postgresql_where=text("vanished_at IS NULL"),
)
Index(
    "uq_contracts_symbol_current",
    contracts.c.symbol,
    unique=True,
    sqlite_where=text("vanished_at IS NULL"),
    postgresql_where=text("vanished_at IS NULL"),
)

contract_specs = Table(
    "contract_specs",
    metadata,
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("valid_from", UtcInstant, nullable=False),
    Column("valid_to", UtcInstant),
    Column("is_inverse", Boolean, nullable=False),
    Column("multiplier", ExactDecimal, nullable=False),
    Column("lot_size", Integer, nullable=False),
    Column("tick_size", ExactDecimal, nullable=False),
    Column("max_order_lots", BigInteger),
    Column("max_leverage", Integer),
    Column("initial_margin", ExactDecimal),
    Column("maintenance_margin", ExactDecimal),
    Column("maker_fee", ExactDecimal),
    Column("taker_fee", ExactDecimal),
    Column("funding_interval_ms", BigInteger),
    PrimaryKeyConstraint("symbol_id", "valid_from"),
    ForeignKeyConstraint(["symbol_id"], ["contracts.id"]),
    CheckConstraint("valid_to IS NULL OR valid_to > valid_from", name="validity"),
    CheckConstraint("lot_size >= 1", name="lot_size_positive"),
    *positive("multiplier"),
    *positive("tick_size"),
    *exact("initial_margin"),
    *exact("maintenance_margin"),
    *exact("maker_fee"),
    *exact("taker_fee"),
)
Index(
    "uq_contract_specs_symbol_id_open",
    contract_specs.c.symbol_id,
    unique=True,
    sqlite_where=text("valid_to IS NULL"),
    postgresql_where=text("valid_to IS NULL"),
)

# Edited classifications; a base without a row has that of the shipped table.
sectors = Table(
    "sectors",
    metadata,
    Column("base", String(64), nullable=False),
    Column("asset_class", String(16), nullable=False),
    Column("sector", String(64), nullable=False),
    Column("cap_category", String(32), nullable=False),
    Column("changed_at", UtcInstant, nullable=False),
    Column("changed_by", String(128), nullable=False),
    PrimaryKeyConstraint("base"),
)

# Market data has no foreign key: inserts are large, and symbols are never deleted.
candles = Table(
    "candles",
    metadata,
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("interval_min", Integer, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("open", Double, nullable=False),
    Column("high", Double, nullable=False),
    Column("low", Double, nullable=False),
    Column("close", Double, nullable=False),
    Column("volume", Double, nullable=False),
    Column("turnover", Double, nullable=False),
    Column("revision", Integer, nullable=False),
    PrimaryKeyConstraint("symbol_id", "interval_min", "opened_ms"),
    CheckConstraint(
        "low > 0 AND low <= open AND low <= close"
        f" AND high >= open AND high >= close AND high < {HUGE}",
        name="prices",
    ),
    between("volume", "0", HUGE),
    between("turnover", "0", HUGE),
    sqlite_with_rowid=False,
)

market_snapshots = Table(
    "market_snapshots",
    metadata,
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("taken_ms", BigInteger, nullable=False),
    Column("open_interest", FiniteFloat),
    Column("mark_price", FiniteFloat),
    Column("turnover_24h", FiniteFloat),
    # Time first: all symbols of one instant are written and read together.
    PrimaryKeyConstraint("taken_ms", "symbol_id"),
    between("open_interest", "0", HUGE),
    between("mark_price", "0", HUGE),
    between("turnover_24h", "0", HUGE),
    sqlite_with_rowid=False,
)

funding_rates = Table(
    "funding_rates",
    metadata,
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("settled_ms", BigInteger, nullable=False),
    Column("rate", ExactDecimal, nullable=False),
    Column("interval_ms", BigInteger),
    PrimaryKeyConstraint("symbol_id", "settled_ms"),
    *exact("rate"),
    sqlite_with_rowid=False,
)
