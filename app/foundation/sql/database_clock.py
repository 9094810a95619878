"""The database's own clock, the one that every process which shares it agrees on."""

from sqlalchemy import BigInteger, ColumnElement, cast, func
from sqlalchemy.ext.asyncio import AsyncConnection


def now_ms(connection: AsyncConnection) -> ColumnElement[int]:
    """Milliseconds since 1970 at the moment when the statement runs."""
    if connection.dialect.name == "sqlite":
        since_1970 = (func.julianday("now") - 2_440_587.5) * 86_400_000
    else:
        # Not now(): that is when the transaction began.
        since_1970 = func.extract("epoch", func.clock_timestamp()) * 1000
    return cast(since_1970, BigInteger)
