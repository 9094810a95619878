"""What is written comes back the same, or is refused."""

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, select, text
from sqlalchemy.exc import StatementError

from app.foundation.errors import Code, ServiceError
from app.foundation.sql.database import Database
from app.foundation.sql.schema import ExactDecimal, FiniteFloat, JsonText, UtcInstant

_SCRATCH = Table(
    "scratch",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("exact", ExactDecimal),
    Column("moment", UtcInstant),
    Column("document", JsonText),
    Column("number", FiniteFloat),
)
_FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_EXACT = st.builds(
    lambda whole, places, sign: sign * Decimal(whole).scaleb(-places),
    st.integers(0, 10**20 - 1) | st.integers(0, 10**6),
    st.integers(0, 18),
    st.sampled_from([1, -1]),
)
_MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001  # the strategy adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001  # hypothesis wants naive bounds
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
)
_DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\0é"), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture
async def scratch(database: Database) -> Database:
    async with database.write() as unit:
        await unit.connection.run_sync(_SCRATCH.create)
    return database


async def _there_and_back(database: Database, column: str, values: list[Any]) -> list[Any]:
    rows = [{"id": at, column: value} for at, value in enumerate(values)]
    async with database.write() as unit:
        await unit.connection.execute(_SCRATCH.delete())
        await unit.connection.execute(_SCRATCH.insert(), rows)
    async with database.read() as unit:
        wanted = select(_SCRATCH.c[column]).order_by(_SCRATCH.c.id)
        return list((await unit.connection.execute(wanted)).scalars())


@_FEW
@given(values=st.lists(_EXACT, min_size=1, max_size=40))
async def test_B14_decimals_come_back_exactly(scratch: Database, values: list[Decimal]) -> None:
    back = await _there_and_back(scratch, "exact", values)
    assert back == values
    # Equal numbers also look alike, whatever they looked like before and wherever they were.
    for one in back:
        _, digits, exponent = one.as_tuple()
        assert isinstance(exponent, int)
        assert exponent == 0 or (exponent < 0 and digits[-1] != 0)


@_FEW
@given(values=st.lists(_MOMENTS, min_size=1, max_size=40))
async def test_B14_moments_come_back_exactly_in_utc(
    scratch: Database, values: list[datetime]
) -> None:
    back = await _there_and_back(scratch, "moment", values)
    assert back == values
    assert {one.tzinfo for one in back} == {UTC}


async def test_B14_moments_sort_and_compare_as_time(scratch: Database) -> None:
    east = timezone(timedelta(hours=5))
    values = [
        datetime(2026, 1, 1, 12, tzinfo=UTC),
        datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=east),
        datetime(999, 1, 1, tzinfo=UTC),
    ]
    await _there_and_back(scratch, "moment", values)
    async with scratch.read() as unit:
        moment = _SCRATCH.c.moment
        ordered = await unit.connection.execute(select(moment).order_by(moment))
        assert list(ordered.scalars()) == sorted(values)
        later = await unit.connection.execute(select(moment).where(moment > values[1]))
        assert list(later.scalars()) == [values[0]]


@_FEW
@given(values=st.lists(_DOCUMENTS, min_size=1, max_size=10))
async def test_documents_come_back_exactly(scratch: Database, values: list[Any]) -> None:
    assert await _there_and_back(scratch, "document", values) == values


@_FEW
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
async def test_floats_come_back_to_the_last_bit(scratch: Database, values: list[float]) -> None:
    assert await _there_and_back(scratch, "number", values) == values


_REFUSED: list[tuple[str, object]] = [
    ("exact", Decimal("NaN")),
    ("exact", Decimal("sNaN")),
    ("exact", Decimal("Infinity")),
    ("exact", Decimal("-Infinity")),
    ("exact", Decimal("1e400")),
    ("exact", Decimal(10) ** 20),
    ("exact", Decimal("1e-19")),
    ("exact", "abc"),
    ("exact", 1.5),
    ("moment", datetime(2026, 1, 1)),  # noqa: DTZ001  # that is the point
    ("document", {"x": math.nan}),
    ("document", [math.inf]),
    ("number", math.nan),
    ("number", -math.inf),
]


async def test_B15_what_has_no_place_is_refused_by_the_type(scratch: Database) -> None:
    for column, value in _REFUSED:
        with pytest.raises(StatementError) as caught:
            await _there_and_back(scratch, column, [value])
        assert isinstance(caught.value.orig, ValueError), (column, value)


async def test_B15_negative_zero_is_zero(scratch: Database) -> None:
    assert str((await _there_and_back(scratch, "exact", [Decimal("-0.00")]))[0]) == "0"


_SNAPSHOT = "INSERT INTO market_snapshots (taken_ms, symbol_id, mark_price) VALUES (1, 'x', {})"
_CANDLE = (
    "INSERT INTO candles (symbol_id, interval_min, opened_ms, open, high, low, close, volume,"
    " turnover, revision) VALUES ('x', 60, 1, 1, 2, 0.5, {}, 1, 1, 1)"
)
_FUNDING = "INSERT INTO funding_rates (symbol_id, settled_ms, rate) VALUES ('x', 1, {})"
_CASH = "UPDATE portfolio SET cash_u = {}"


_ROUND_THE_TYPES = [
    (_SNAPSHOT, "9e999", "'NaN'"),
    (_SNAPSHOT, "'abc'", "'Infinity'"),
    (_SNAPSHOT, "-1", "-1"),
    (_CANDLE, "NULL", "'NaN'"),  # NULL is what SQLite makes of NaN
    (_CANDLE, "9e999", "'Infinity'"),
    (_CANDLE, "'abc'", "'-Infinity'"),
    (_FUNDING, "'NaN'", "'NaN'"),
    (_FUNDING, "'abc'", "'Infinity'"),
    (_FUNDING, "'1e400'", "'-Infinity'"),
    (_FUNDING, "NULL", "NULL"),
    (_CASH, "-1", "-1"),
    (_CASH, "100000001", "100000001"),
    (_CASH, "NULL", "NULL"),
    (_CASH, "9e999", "NULL"),
]


async def test_B15_what_goes_round_the_types_is_refused_by_the_table(
    database: Database, backend: str
) -> None:
    for statement, sqlite, postgres in _ROUND_THE_TYPES:
        value = sqlite if backend == "sqlite" else postgres
        with pytest.raises(ServiceError) as caught:
            async with database.write() as unit:
                await unit.connection.execute(text(statement.format(value)))
        assert caught.value.code in {Code.INTERNAL_ERROR, Code.CONSTRAINTS_INFEASIBLE}, value
