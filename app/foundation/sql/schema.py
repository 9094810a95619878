"""Building blocks of tables: metadata, lossless column types, append-only triggers."""

import json
import math
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Dialect,
    Double,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    event,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeEngine

HUGE: Final = "1e300"  # upper bound that excludes NaN and Infinity

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def positive(column: str) -> tuple[CheckConstraint, CheckConstraint]:
    """Returns checks for an exact number above zero, which SQLite stores as text."""
    return (
        CheckConstraint(
            f"{column} GLOB '*[1-9]*' AND {column} NOT GLOB '*[^0-9.]*'", name=f"{column}_positive"
        ).ddl_if(dialect="sqlite"),
        CheckConstraint(
            f"{column} > 0 AND {column} < 100000000000000000000", name=f"{column}_positive"
        ).ddl_if(dialect="postgresql"),
    )


def exact(column: str) -> tuple[CheckConstraint, CheckConstraint]:
    """Returns checks for an exact number of either sign, or NULL."""
    return (
        CheckConstraint(
            f"{column} IS NULL OR ({column} GLOB '*[0-9]*'"
            f" AND ltrim({column}, '-') NOT GLOB '*[^0-9.]*')",
            name=f"{column}_exact",
        ).ddl_if(dialect="sqlite"),
        CheckConstraint(
            f"{column} > -100000000000000000000 AND {column} < 100000000000000000000",
            name=f"{column}_exact",
        ).ddl_if(dialect="postgresql"),
    )


def between(column: str, low: str, high: str) -> CheckConstraint:
    """Returns a check of both bounds, because NaN exceeds every number on PostgreSQL."""
    return CheckConstraint(f"{column} >= {low} AND {column} <= {high}", name=f"{column}_range")


def strict_json(value: Any) -> str:
    """Returns compact JSON. Raises ValueError for NaN and Infinity."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


PRECISION: Final = 38
SCALE: Final = 18
_LIMIT: Final = Decimal(10) ** (PRECISION - SCALE)
_UNIT: Final = Decimal(1).scaleb(-SCALE)
# The default context rounds at 28 digits; a column holds 38.
_WIDE: Final = Context(prec=PRECISION + 2)

type_of_uuid = String(36)


class UtcInstant(TypeDecorator[datetime]):
    """Aware datetimes with microseconds.

    timestamptz on PostgreSQL. On SQLite, whose own type drops offsets, ISO text of fixed width, so
    that text order is time order. Raises ValueError for naive values.
    """

    impl = String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError("a stored time must have a time zone")
        instant = value.astimezone(UTC)
        if dialect.name == "postgresql":
            return instant
        return instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return datetime.fromisoformat(str(value).removesuffix("Z")).replace(tzinfo=UTC)


class ExactDecimal(TypeDecorator[Decimal]):
    """Decimals with up to 20 digits before and 18 after the point, without rounding.

    NUMERIC(38, 18) on PostgreSQL; text on SQLite, which stores NUMERIC as binary floats.
    Raises ValueError for non-finite values, other types, and digits that would be rounded.
    Results have no trailing zeros and no exponent, so that both databases return the same text.
    """

    impl = String(48)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Numeric(PRECISION, SCALE, asdecimal=True))
        return dialect.type_descriptor(String(48))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        exact = checked_decimal(value)
        return exact if dialect.name == "postgresql" else format(exact, "f")

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else plain(Decimal(value))


def checked_decimal(value: Decimal) -> Decimal:
    """Returns `value` in plain form. Raises ValueError if a column cannot hold it exactly."""
    kind: type = type(value)  # untyped callers exist
    if not issubclass(kind, Decimal) or not value.is_finite():
        raise ValueError("a stored number must be a finite Decimal")
    if abs(value) >= _LIMIT:
        raise ValueError(f"a stored number must have at most {PRECISION - SCALE} whole digits")
    exact = value.quantize(_UNIT, context=_WIDE)
    if exact != value:
        raise ValueError(f"a stored number must have at most {SCALE} decimals")
    return plain(exact)


def plain(value: Decimal) -> Decimal:
    """Returns the same number without trailing zeros, exponent or negative zero."""
    if not value:
        return Decimal(0)
    short = value.normalize(_WIDE)
    exponent = short.as_tuple().exponent
    return short.quantize(Decimal(1), context=_WIDE) if int(exponent) > 0 else short


class FiniteFloat(TypeDecorator[float]):
    """Binary floats. Raises ValueError for NaN, which SQLite would turn into NULL, and Infinity."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("a stored number must be finite")
        return value


class JsonText(TypeDecorator[Any]):
    """JSON stored as compact text: equal characters on both databases, no NaN or Infinity."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else strict_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


_SQLITE: Final = """\
CREATE TRIGGER {table}_no_{verb} BEFORE {VERB} ON {table}{condition}
BEGIN SELECT RAISE(ABORT, '{table}_append_only'); END"""
_FUNCTION: Final = """\
CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = '{table}_append_only', CONSTRAINT = '{table}_append_only';
END $$"""
_PRUNING_FUNCTION: Final = """\
CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM {anchors} WHERE seq >= OLD.seq) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = '{table}_append_only', CONSTRAINT = '{table}_append_only';
END $$"""
_POSTGRESQL: Final = """\
CREATE TRIGGER {table}_no_{verb} BEFORE {VERB} ON {table}
FOR EACH {level} EXECUTE FUNCTION {table}_refuse()"""
_UNLESS_ANCHORED: Final = """
WHEN NOT EXISTS (SELECT 1 FROM {anchors} WHERE seq >= OLD.seq)"""


def append_only_statements(table: str, dialect: str, anchors: str | None = None) -> tuple[str, ...]:
    """Returns the DDL that makes `table` refuse UPDATE, DELETE and (PostgreSQL) TRUNCATE.

    With `anchors`, a table of numbers, rows up to the newest anchor may be deleted.
    """
    if dialect == "sqlite":
        condition = "" if anchors is None else _UNLESS_ANCHORED.format(anchors=anchors)
        return tuple(
            _SQLITE.format(
                table=table,
                verb=verb,
                VERB=verb.upper(),
                condition=condition if verb == "delete" else "",
            )
            for verb in ("update", "delete")
        )
    function = _FUNCTION if anchors is None else _PRUNING_FUNCTION
    return (
        function.format(table=table, anchors=anchors),
        *(
            _POSTGRESQL.format(table=table, verb=verb, VERB=verb.upper(), level=level)
            for verb, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT"))
        ),
    )


def make_append_only(table: Table, anchors: Table | None = None) -> None:
    """Creates the append-only triggers of `table` together with the table."""

    def after_create(target: Any, connection: Any, **_: Any) -> None:
        name = None if anchors is None else anchors.name
        for statement in append_only_statements(table.name, connection.dialect.name, name):
            connection.exec_driver_sql(statement)

    event.listen(table, "after_create", after_create)
