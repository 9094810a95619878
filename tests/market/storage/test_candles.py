"""Candles in bulk."""

from dataclasses import fields, replace

import numpy as np
import pytest
from sqlalchemy import text

from app.foundation.sql.database import Database
from app.market.domain.models import CandleSeries, Interval
from app.market.storage import candles
from app.market.storage.candles import (
    VALUES,
    CandleRepository,
    CandleRevisionRepository,
    SavedCandles,
)
from tests.conftest import PATIENT, MakeDatabase
from tests.support.stored_values import listed, series, symbol_id

HOUR = Interval.HOUR.ms
DAY = Interval.DAY.ms
NAMES = tuple(one.name for one in fields(CandleSeries))


def _same(one: CandleSeries, other: CandleSeries) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in NAMES)


def _part(one: CandleSeries, rows: slice) -> CandleSeries:
    return CandleSeries(*(getattr(one, name)[rows] for name in NAMES))


async def test_series_come_back_to_the_last_bit(database: Database) -> None:
    btc, eth = series(0, 50, HOUR, 0.1 + 0.2), series(10 * HOUR, 5, HOUR, 1e-12)
    async with database.write() as unit:
        saved = await unit.get(CandleRepository).save({"btc": btc, "eth": eth}, Interval.HOUR)
        assert saved == SavedCandles(55, 0)
        await unit.get(CandleRepository).save({"btc": series(0, 3, DAY)}, Interval.DAY)
        assert await unit.get(CandleRepository).save({}, Interval.DAY) == SavedCandles(0, 0)
    async with database.read() as unit:
        found = await unit.get(CandleRepository).load(["btc", "eth", "none"], Interval.HOUR)
        later = await unit.get(CandleRepository).load(["btc"], Interval.HOUR, since_ms=48 * HOUR)
        assert await unit.get(CandleRepository).load([], Interval.HOUR) == {}
    assert found.keys() == {"btc", "eth"}
    assert _same(found["btc"], btc)
    assert _same(found["eth"], eth)
    assert _same(later["btc"], _part(btc, slice(48, None)))
    assert found["btc"].opened_ms.dtype == np.int64


async def test_D06_a_candle_that_says_something_new_is_revised(database: Database) -> None:
    first = series(0, 10, HOUR)
    close = first.close.copy()
    close[3] = first.high[3]
    revised = replace(first, close=close)
    async with database.write() as unit:
        await unit.get(CandleRepository).save({"btc": first}, Interval.HOUR)
        assert await unit.get(CandleRepository).save({"btc": first}, Interval.HOUR) == SavedCandles(
            0, 0
        )
        assert await unit.get(CandleRepository).save(
            {"btc": revised}, Interval.HOUR
        ) == SavedCandles(1, 0)
        rows = text("SELECT revision FROM candles ORDER BY opened_ms")
        revisions = list((await unit.connection.execute(rows)).scalars())
        assert revisions == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
        assert _same(
            (await unit.get(CandleRepository).load(["btc"], Interval.HOUR))["btc"], revised
        )
        (former,) = await unit.get(CandleRevisionRepository).all("btc", Interval.HOUR)
        assert (former.opened_ms, former.revision) == (int(first.opened_ms[3]), 1)
        assert former.values == {name: float(getattr(first, name)[3]) for name in VALUES}
        await unit.get(CandleRepository).save({"btc": first}, Interval.HOUR)
        later = await unit.get(CandleRevisionRepository).all("btc", Interval.HOUR)
        assert [one.revision for one in later] == [1, 2]
        assert later[1].values["close"] == float(close[3])
        assert await unit.get(CandleRevisionRepository).count("btc") == 2
        assert await unit.get(CandleRevisionRepository).all("btc", Interval.DAY) == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("open", np.nan),
        ("high", np.inf),
        ("high", 0.5),
        ("low", 0.0),
        ("low", 1.2),
        ("close", 9.0),
        ("volume", -1.0),
        ("turnover", np.nan),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_D03_a_candle_without_sense_is_a_gap(
    database: Database, field: str, value: float
) -> None:
    sound = series(0, 5, HOUR)
    column = getattr(sound, field).copy()
    column[2] = value
    async with database.write() as unit:
        broken = replace(sound, **{field: column})
        assert await unit.get(CandleRepository).save(
            {"btc": broken}, Interval.HOUR
        ) == SavedCandles(4, 1)
        found = (await unit.get(CandleRepository).load(["btc"], Interval.HOUR))["btc"]
    assert found.opened_ms.tolist() == [0, HOUR, 3 * HOUR, 4 * HOUR]


async def test_pages_begin_with_the_oldest(database: Database) -> None:
    await listed(database, "BTC", "ETH")
    btc = series(0, 20, HOUR)
    async with database.write() as unit:
        await unit.get(CandleRepository).save({symbol_id("BTC"): btc}, Interval.HOUR)
    async with database.read() as unit:
        page = await unit.get(CandleRepository).page(
            symbol_id("BTC"), Interval.HOUR, 5 * HOUR, 18 * HOUR, 4
        )
        nothing = await unit.get(CandleRepository).page(
            symbol_id("ETH"), Interval.HOUR, 0, 18 * HOUR, 4
        )
    assert _same(page, _part(btc, slice(5, 9)))
    assert len(nothing) == 0


async def test_many_rows_go_in_with_few_statements(
    database_url: str, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candles, "_CHUNK", 300)
    many = {f"symbol-{number}": series(0, 100, DAY, 1.0 + number) for number in range(10)}
    seen: list[str] = []
    database = make_database(
        database_url,
        on_slow=lambda slow: seen.append(slow.sql),
        **{**PATIENT, "slow_statement_s": -1.0},
    )
    await database.open()
    async with database.write() as unit:
        assert await unit.get(CandleRepository).save(many, Interval.DAY) == SavedCandles(1000, 0)
    assert sum("INSERT" in one for one in seen) == 4
    async with database.read() as unit:
        found = await unit.get(CandleRepository).load(list(many), Interval.DAY)
    await database.close()
    assert found.keys() == many.keys()
    assert all(_same(found[name], many[name]) for name in many)
