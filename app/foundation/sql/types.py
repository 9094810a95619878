"""Column types that lose nothing: exact decimals, UTC instants, JSON text, on both databases."""

import json
import math
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, Final

from sqlalchemy import Dialect, Double, Numeric, String, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeEngine


def strict_json(value: Any) -> str:
    """Compact JSON. Raises ValueError for NaN and Infinity."""
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

    timestamptz on PostgreSQL; on SQLite, whose own type drops offsets, ISO text of one fixed
    width, so that text order is time order. Naive values are refused (ValueError).
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
    """Decimals with up to 20 digits before and 18 after the point, unchanged.

    NUMERIC(38, 18) on PostgreSQL; on SQLite, which stores NUMERIC as binary floats, plain text.
    Refused (ValueError): anything but a finite Decimal, and digits that would be rounded away.
    What comes back has no trailing zeros and no exponent, so both databases answer alike.
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
    """`value` in plain form; ValueError where a column of ours could not hold it exactly."""
    kind: type = type(value)  # callers may have come around the type checker
    if not issubclass(kind, Decimal) or not value.is_finite():
        raise ValueError("a stored number must be a finite Decimal")
    if abs(value) >= _LIMIT:
        raise ValueError(f"a stored number must have at most {PRECISION - SCALE} whole digits")
    exact = value.quantize(_UNIT, context=_WIDE)
    if exact != value:
        raise ValueError(f"a stored number must have at most {SCALE} decimals")
    return plain(exact)


def plain(value: Decimal) -> Decimal:
    """The same number without trailing zeros, exponent or negative zero."""
    if not value:
        return Decimal(0)
    short = value.normalize(_WIDE)
    exponent = short.as_tuple().exponent
    return short.quantize(Decimal(1), context=_WIDE) if int(exponent) > 0 else short


class FiniteFloat(TypeDecorator[float]):
    """Binary floats; NaN, which SQLite would turn into NULL, and Infinity are refused."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("a stored number must be finite")
        return value


class JsonText(TypeDecorator[Any]):
    """JSON kept as compact text: the same characters on both databases, no NaN or Infinity."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else strict_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)
