"""Real candles served as they stand in the file, with a market built around them."""

import gzip
import importlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from app.sandbox.exchange import LocalExchange
from app.sandbox.history.replay import decimals_of, kucoin_base
from app.sandbox.options import SandboxOptions
from app.sandbox.server import application
from tests.sandbox.conftest import data

DAY_MS = 86_400_000
FIRST = 1_735_689_600_000  # 2025-01-01
DAYS = 60
ACTIVE = "/api/v1/contracts/active"
PANEL = Path(__file__).resolve().parents[3] / "../shared/market/daily_panel.parquet"


def candles() -> list[dict[str, Any]]:
    """Sixty days of four coins on a perpetual venue, and a spot venue to be ignored."""
    rng = np.random.default_rng(3)
    rows = []
    for symbol, price, digits, start in (
        ("BTCUSDT", 95_000.0, 1, 0),
        ("ETHUSDT", 3_300.0, 2, 0),
        ("1000PEPEUSDT", 0.0191, 7, 0),
        ("NEWUSDT", 1.25, 4, 55),
    ):
        close = price
        for day in range(start, DAYS):
            first = close
            close = round(first * float(np.exp(rng.normal(0.0, 0.03))), digits)
            high = round(max(first, close) * 1.012, digits)
            low = round(min(first, close) * 0.988, digits)
            volume = round(2e8 / close * float(np.exp(rng.normal(0, 0.3))), 3)
            rows.append(
                {
                    "symbol": symbol,
                    "venue": "x_perp",
                    "ts": FIRST + day * DAY_MS,
                    "open": first,
                    "high": high,
                    "low": low,
                    "close": close,
                    "volume": volume,
                    "quote_volume": round(volume * (first + close) / 2, 2),
                    "segment": int(symbol == "ETHUSDT" and day >= 20),
                    "trades": 5,
                }
            )
            rows.append(rows[-1] | {"venue": "x_spot", "open": 1.0, "segment": 0})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [",".join(rows[0])] + [",".join(str(value) for value in row.values()) for row in rows]
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def exchange_of(path: Path, **options: Any) -> LocalExchange:
    return LocalExchange(SandboxOptions(replay=path, **options), lambda: 0.0, lambda: 0.0)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient[Any, Any]]:
    exchange = exchange_of(write_csv(tmp_path / "file.csv.gz", candles()))
    async with TestClient(TestServer(application(exchange))) as one:
        yield one


def real(symbol: str) -> dict[int, dict[str, Any]]:
    return {
        row["ts"]: row for row in candles() if row["symbol"] == symbol and row["venue"] == "x_perp"
    }


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("BTCUSDT", "XBTUSDTM"), ("1000PEPEUSDT", "1000PEPEUSDTM"), ("NEWUSDT", "NEWUSDTM")],
)
async def test_daily_candles_are_the_files(
    client: TestClient[Any, Any], name: str, symbol: str
) -> None:
    contract = await data(client, f"/api/v1/contracts/{symbol}")
    rows = await data(client, "/api/v1/kline/query", symbol=symbol, granularity=1440)
    known = real(name)
    assert [row[0] for row in rows] == list(known)
    for row in rows[:-1]:
        truth = known[row[0]]
        assert row[1:5] == [truth[key] for key in ("open", "high", "low", "close")]
        assert row[5] * contract["multiplier"] == pytest.approx(truth["volume"], rel=1e-3)
        assert row[6] == pytest.approx(truth["quote_volume"])


async def test_time_starts_after_the_close_of_the_last_day_but_one(
    client: TestClient[Any, Any],
) -> None:
    now = await data(client, "/api/v1/timestamp")
    assert now == FIRST + (DAYS - 1) * DAY_MS + 600_000
    rows = await data(client, "/api/v1/kline/query", symbol="XBTUSDTM", granularity=1440)
    running, truth = rows[-1], real("BTCUSDT")[rows[-1][0]]
    assert running[1] == truth["open"]
    assert truth["low"] <= running[3] <= running[2] <= truth["high"]
    assert running[5] * 0.001 < 0.1 * truth["volume"]
    assert (await data(client, "/api/v1/status"))["status"] == "open"


async def test_hours_add_up_to_the_real_day_and_nothing_contradicts(
    client: TestClient[Any, Any],
) -> None:
    start = FIRST + 58 * DAY_MS
    query = {"symbol": "XBTUSDTM", "granularity": 60, "from": start, "to": start + DAY_MS - 1}
    hours = await data(client, "/api/v1/kline/query", **query)
    truth = real("BTCUSDT")[start]
    assert len(hours) == 24
    assert hours[0][1] == truth["open"]
    assert hours[-1][4] == truth["close"]
    assert max(row[2] for row in hours) == truth["high"]
    assert min(row[3] for row in hours) == truth["low"]
    assert sum(row[5] for row in hours) == round(truth["volume"] * 1000)
    contract = await data(client, "/api/v1/contracts/XBTUSDTM")
    assert contract["lowPrice"] <= contract["lastTradePrice"] <= contract["highPrice"]
    book = await data(client, "/api/v1/level2/depth20", symbol="XBTUSDTM")
    assert book["bids"][0][0] <= contract["lastTradePrice"] <= book["asks"][0][0]
    assert len(await data(client, "/api/v1/allTickers")) == 4
    funding = await data(client, "/api/v1/funding-rate/XBTUSDTM/current")
    assert abs(funding["value"]) <= 0.003


async def test_history_before_a_change_of_segment_is_not_served(
    client: TestClient[Any, Any],
) -> None:
    rows = await data(client, "/api/v1/kline/query", symbol="ETHUSDTM", granularity=1440)
    assert rows[0][0] == FIRST + 20 * DAY_MS


async def test_a_chosen_day_hides_later_listings(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "file.csv", candles())
    exchange = exchange_of(path, replay_from="2025-02-10", contracts=3)
    assert exchange.clock.now_ms() == FIRST + 41 * DAY_MS + 600_000
    assert [item.base for item in exchange.market.history.listings].count("NEW") == 0
    whole = exchange_of(path, replay_from="2025-02-10")
    row = whole.contracts.rows["NEWUSDTM"]
    assert whole.contracts.status(row, whole.clock.now_ms()) == "Init"
    assert row not in whole.contracts.active(whole.clock.now_ms())
    assert whole.contracts.status(row, FIRST + 55 * DAY_MS) == "Open"


async def test_a_delisting_is_announced_three_days_ahead_and_never_earlier(tmp_path: Path) -> None:
    rows = [
        row
        for row in candles()
        if row["symbol"] != "1000PEPEUSDT" or row["ts"] < FIRST + 50 * DAY_MS
    ]
    exchange = exchange_of(write_csv(tmp_path / "file.csv", rows), replay_from="2025-02-10")
    expiry = FIRST + 50 * DAY_MS
    async with TestClient(TestServer(application(exchange))) as one:

        async def told(now_ms: int) -> list[int | None]:
            async with one.post("/_control/clock", json={"now_ms": now_ms}):
                pass
            listed = {item["symbol"]: item for item in await data(one, ACTIVE)}
            single = await data(one, "/api/v1/contracts/1000PEPEUSDTM")
            assert listed["1000PEPEUSDTM"] == single
            assert listed["XBTUSDTM"]["expireDate"] is None
            return [single["expireDate"], single["settleDate"]]

        assert await told(exchange.clock.now_ms()) == [None, None]
        assert await told(expiry - 3 * DAY_MS - 60_000) == [None, None]
        assert await told(expiry - 3 * DAY_MS) == [expiry, expiry]
        assert await told(expiry - 60_000) == [expiry, expiry]
        assert exchange.contracts.status(exchange.contracts.rows["1000PEPEUSDTM"], expiry) == (
            "Closed"
        )


async def test_the_end_of_the_file_closes_the_exchange(client: TestClient[Any, Any]) -> None:
    async with client.post("/_control/clock", json={"advance_ms": DAY_MS}):
        pass
    assert (await data(client, "/api/v1/status"))["status"] == "close"


async def test_finer_candles_are_put_together_and_gaps_are_silent(tmp_path: Path) -> None:
    rows = [
        {
            "symbol": "BTCUSDT",
            "ts": FIRST + hour * 21_600_000,
            "open": 100.0 + hour,
            "high": 103.0 + hour,
            "low": 99.0 + hour,
            "close": 101.0 + hour,
            "volume": 10.0,
            "quote_volume": 1000.0,
        }
        for hour in range(40)
        if not 8 <= hour < 12
    ]
    exchange = exchange_of(write_csv(tmp_path / "six_hours.csv", rows))
    daily = exchange.market.history.daily
    assert (daily.ticks[0, 0] / 10 ** exchange.market.history.listings[0].tick_digits).tolist() == [
        100.0,
        106.0,
        99.0,
        104.0,
    ]
    assert daily.lots[0, 0] == 40_000
    assert daily.turnover[0, 0] == 4000.0
    assert daily.lots[0, 2] == 0
    assert daily.ticks[0, 2].tolist() == [108] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol,ts,open\nA,1,2\n", "lacks the columns high, low, close, volume, quote_volume"),
        ("symbol,ts,open,high,low,close,volume,quote_volume\n", "no candles"),
        (
            f"symbol,ts,open,high,low,close,volume,quote_volume\nA,{FIRST},1,1,1,1,1,1\n",
            "before the last day",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        exchange_of(path)
    with pytest.raises(ValueError, match=r"\.parquet, \.csv"):
        exchange_of(tmp_path / "bad.xlsx")


def stamped(form: Callable[[int], object]) -> list[dict[str, Any]]:
    """The candles with another form of their times."""
    return [row | {"ts": form(row["ts"])} for row in candles()]


def moment(ts: int) -> datetime:
    return datetime.fromtimestamp(ts / 1000, UTC)


@pytest.mark.parametrize(
    "form",
    [
        lambda ts: ts // 1000,
        lambda ts: f"{ts}.0",
        lambda ts: f"{moment(ts):%Y-%m-%d}",
        lambda ts: f"{moment(ts):%Y-%m-%dT%H:%M:%SZ}",
        lambda ts: f"{moment(ts):%Y-%m-%d %H:%M:%S}",
        lambda ts: moment(ts).astimezone(timezone(timedelta(hours=-3))).isoformat(),
    ],
    ids=["epoch_s", "epoch_ms_float", "date", "zulu", "no_zone", "other_zone"],
)
def test_times_may_be_epochs_or_iso_dates(tmp_path: Path, form: Callable[[int], object]) -> None:
    expected = exchange_of(write_csv(tmp_path / "ms.csv", candles())).market.history
    found = exchange_of(write_csv(tmp_path / "other.csv", stamped(form))).market.history
    assert (found.listings, found.first_day) == (expected.listings, expected.first_day)
    np.testing.assert_array_equal(found.daily.ticks, expected.daily.ticks)


def test_times_of_a_parquet_file_may_be_dates(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    expected = exchange_of(write_csv(tmp_path / "ms.csv", candles())).market.history
    for name, form in (
        ("date", lambda ts: moment(ts).date()),
        ("time", moment),
        ("text", lambda ts: moment(ts).isoformat()),
    ):
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(arrow.Table.from_pylist(stamped(form)), path)
        found = exchange_of(path).market.history
        assert found.first_day == expected.first_day, name
        np.testing.assert_array_equal(found.daily.ticks, expected.daily.ticks)


HEADER = "symbol,ts,open,high,low,close,volume,quote_volume"
GOOD = f"A,{FIRST},1,1,1,1,1,1"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A,yesterday,1,1,1,1,1,1", "row 2 after the header, column ts: yesterday is not a time"),
        (f"A,{FIRST}000000,1,1,1,1,1,1", "row 2 after the header, column ts: .* epoch seconds"),
        (f"A,{FIRST // 1000},1,1,1,1,1,1", "row 2 .* column ts: .* one form in the whole column"),
        (f"A,{FIRST},1,1;5,1,1,1,1", "row 2 after the header, column high: 1;5 is not a number"),
        (f"A,{FIRST},1,1,1,1,x,1", "row 2 after the header, column volume: x is not a number"),
        (f"A,{FIRST},1,1", "row 2 after the header has 4 values, not 8"),
    ],
)
def test_an_unreadable_value_is_named_by_row_column_and_form(
    tmp_path: Path, row: str, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{row}\n")
    with pytest.raises(ValueError, match=message):
        exchange_of(path)


def test_an_unreadable_date_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"{HEADER}\nA,2025-01-01,1,1,1,1,1,1\nA,2025-13-01,1,1,1,1,1,1\n")
    with pytest.raises(ValueError, match=r"row 2 .* column ts: 2025-13-01 is not a time"):
        exchange_of(path)


def test_a_day_outside_the_file_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "file.csv", candles())
    for day, message in (("2024-01-01", "no candles on the day"), ("2025-03-01", "last day")):
        with pytest.raises(ValueError, match=message):
            exchange_of(path, replay_from=day)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ValueError, match="replay"):
        exchange_of(tmp_path / "file.parquet")


def test_spellings_and_decimals() -> None:
    assert kucoin_base("BTCUSDT") == "XBT"
    assert kucoin_base("BTCDOMUSDT") == "BTCDOM"
    assert kucoin_base("USDCUSDT") == "USDC"
    assert kucoin_base("SOL") == "SOL"
    assert decimals_of(np.array([108309.8, 1.0])) == 1
    assert decimals_of(np.array([0.00001234])) == 8
    assert decimals_of(np.array([5.0])) == 0


def test_parquet_serves_the_same_as_csv(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    rows = candles()
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "file.parquet")
    left = exchange_of(tmp_path / "file.parquet").market.history
    right = exchange_of(write_csv(tmp_path / "file.csv", rows)).market.history
    assert left.listings == right.listings
    np.testing.assert_array_equal(left.daily.ticks, right.daily.ticks)
    np.testing.assert_array_equal(left.daily.lots, right.daily.lots)


@pytest.mark.skipif(not PANEL.is_file(), reason="no panel beside the tree")
def test_the_real_panel_replays() -> None:
    exchange = exchange_of(PANEL)
    listings = exchange.market.history.listings
    assert len(listings) == 397
    assert listings[0].symbol == "XBTUSDTM"
    assert exchange.clock.now_ms() == 1_751_242_200_000
    row = exchange.contracts.rows["XBTUSDTM"]
    column = -2
    history = exchange.market.history
    assert history.daily.ticks[row, column, CLOSE_AT] / 10 == pytest.approx(108_309.8, rel=1e-9)


CLOSE_AT = 3
