"""The invented market: deterministic, realistic, and one path for everything."""

import numpy as np
import pytest

from app.cli.programs.sandbox import READY_DAYS
from app.sandbox.exchange import LocalExchange
from app.sandbox.history.bars import (
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    Bars,
    aggregate_bars,
    split_bars,
    within,
)
from app.sandbox.history.synthetic import PAST_DAYS, synthetic_history, whole_market
from app.sandbox.options import SandboxOptions
from tests.sandbox.conftest import START_MS, Shop

DAY_MS = 86_400_000


@pytest.mark.parametrize("seed", range(12))
def test_a_split_bar_aggregates_to_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, count = 200, (24, 60)[seed % 2]
    ticks = np.sort(rng.integers(1, 4 + 10 ** (1 + seed % 5), (rows, 4)), axis=1)
    ticks = ticks[:, [1, 3, 0, 2]]
    lots = rng.integers(1, 10 ** (1 + seed % 4), rows)
    silent = rng.random(rows) < 0.2
    lots[silent] = 0
    ticks[silent] = ticks[silent, :1]
    parent = Bars(ticks, lots, np.multiply(lots, 3.5, dtype=np.float64))
    noise = rng.normal(0.0, 1.0, (rows, count, 2))
    children = split_bars(parent, count, noise, np.ones(count), rng.random(rows) * 0.8)
    whole = aggregate_bars(children)
    np.testing.assert_array_equal(whole.ticks, parent.ticks)
    np.testing.assert_array_equal(whole.lots, parent.lots)
    np.testing.assert_allclose(whole.turnover, parent.turnover)
    assert (children.lots >= 0).all()
    assert (children.ticks[:, :, HIGH] == children.ticks.max(axis=2)).all()
    assert (children.ticks[:, :, LOW] == children.ticks.min(axis=2)).all()
    dead = children.lots == 0
    assert (children.ticks[dead, HIGH] == children.ticks[dead, LOW]).all()
    np.testing.assert_array_equal(children.ticks[:, 1:, OPEN], children.ticks[:, :-1, CLOSE])
    # A bar walked to its end is the bar; walked half it stays inside.
    end, _ = within(parent, np.ones(rows))
    np.testing.assert_array_equal(end.ticks, parent.ticks)
    np.testing.assert_array_equal(end.lots, parent.lots)
    half, _ = within(parent, np.full(rows, 0.5))
    assert (half.ticks[:, HIGH] <= parent.ticks[:, HIGH]).all()
    assert (half.ticks[:, LOW] >= parent.ticks[:, LOW]).all()


def test_equal_seeds_give_equal_markets_and_others_differ(whole: Shop) -> None:
    whole_market.cache_clear()  # made once more, not remembered
    again = Shop(seed=7).exchange
    assert again.contracts.encoded(START_MS, [0, 200, 555]) == whole.exchange.contracts.encoded(
        START_MS, [0, 200, 555]
    )
    other = Shop(seed=8).exchange
    assert other.contracts.encoded(START_MS, [0]) != whole.exchange.contracts.encoded(START_MS, [0])


def test_what_is_written_into_one_market_does_not_reach_the_next() -> None:
    first, second = (synthetic_history(7, START_MS, contracts) for contracts in (None, 14))
    first.daily.ticks[:] = 1
    second.premium[:] = 1.0
    for contracts in (None, 14):
        again = synthetic_history(7, START_MS, contracts)
        assert (again.daily.ticks != 1).any()
        assert (again.premium != 1.0).all()


def test_a_short_list_has_the_same_daily_candles(whole: Shop, small: Shop) -> None:
    for row, item in enumerate(small.exchange.market.history.listings):
        other = whole.exchange.contracts.rows[item.symbol]
        np.testing.assert_array_equal(
            small.exchange.market.history.daily.ticks[row],
            whole.exchange.market.history.daily.ticks[other],
        )


@pytest.mark.parametrize("seed", [7, 11, 23])
def test_the_market_looks_like_the_real_one(seed: int) -> None:
    history = synthetic_history(seed, START_MS, None)
    turnover = history.daily.turnover
    old = history.first_bar < PAST_DAYS - 250
    liquid = np.array(
        [
            item.quote == "USDT" and item.nature == "coin" and item.status == "Open"
            for item in history.listings
        ]
    )
    median = np.median(turnover[:, PAST_DAYS - 30 : PAST_DAYS], axis=1)
    busy = liquid & (median > 5e6) & (turnover[:, PAST_DAYS - 1] > 5e6)
    assert 225 <= int(busy.sum()) <= 285
    closes = history.daily.ticks[busy & old, PAST_DAYS - 250 : PAST_DAYS, CLOSE]
    returns = np.diff(np.log(closes), axis=1)
    daily = returns.std(axis=1)
    assert 0.015 < daily[0] < 0.045, "bitcoin"
    assert 0.03 < np.median(daily) < 0.065
    assert daily.max() < 0.14
    kurtosis = ((returns.T - returns.mean(axis=1)) ** 4).mean(axis=0) / returns.var(axis=1) ** 2
    assert np.median(kurtosis) > 4.0, "fat tails"
    upper = np.triu_indices(len(returns), 1)
    assert 0.3 < np.median(np.corrcoef(returns)[upper]) < 0.8
    leader = returns[0]
    beta = returns @ leader / (leader @ leader)
    residual = (returns - beta[:, None] * leader)[1:]
    related = np.corrcoef(residual)[np.triu_indices(len(residual), 1)]
    assert np.quantile(related, 0.95) < 0.7
    assert np.median(related) > 0.05
    moves = np.abs(returns)
    volume = np.log(turnover[busy & old, PAST_DAYS - 249 : PAST_DAYS])
    together = [np.corrcoef(a, b)[0, 1] for a, b in zip(moves, volume, strict=True)]
    assert np.median(together) > 0.3, "volume rises with the size of moves"
    premium = history.premium[busy & old, PAST_DAYS - 249 : PAST_DAYS]
    trend = np.apply_along_axis(lambda row: np.convolve(row, np.ones(4))[: row.size], 1, returns)
    tied = [np.corrcoef(a, b)[0, 1] for a, b in zip(premium, trend, strict=True)]
    assert np.median(tied) > 0.2, "funding follows the last days' return"


def test_books_thin_out_and_widen_with_illiquidity(whole: Shop) -> None:
    exchange = whole.exchange
    depth, spread, size = [], [], []
    for row in range(0, 540, 3):
        listing = exchange.market.history.listings[row]
        bids, asks = exchange.books.levels(row, START_MS, 100)
        mid = (bids[0][0] + asks[0][0]) / 2
        near = [lots * price for price, lots in bids if price >= mid * (1 - 0.0025)]
        depth.append(sum(near) * listing.lot)
        spread.append((asks[0][0] - bids[0][0]) / mid)
        size.append(listing.turnover)
    order = np.argsort(size)
    ranks = np.argsort(np.argsort(size))
    assert np.corrcoef(ranks, np.argsort(np.argsort(depth)))[0, 1] > 0.8
    assert np.corrcoef(ranks, np.argsort(np.argsort(spread)))[0, 1] < -0.8
    assert spread[int(order[-1])] < 1e-4
    assert 2e-4 < np.median(spread) < 3e-3
    assert depth[int(order[-1])] > 1e6


def test_hours_move_with_the_market(whole: Shop) -> None:
    market = whole.exchange.market
    today = START_MS // DAY_MS
    closes = np.concatenate(
        [market.hours(day).ticks[:60, :, CLOSE] for day in range(today - 40, today)], axis=1
    )
    returns = np.diff(np.log(closes), axis=1)
    together = np.corrcoef(returns)[0, 1:40]
    assert np.median(together) > 0.25


def test_time_after_the_known_future_stands_still(small: Shop) -> None:
    exchange = small.exchange
    exchange.clock.set(exchange.market.end_ms - 1)
    assert not exchange.is_over
    before = exchange.contracts.tickers(exchange.clock.now_ms(), [0])
    exchange.clock.set(exchange.market.end_ms + 10 * DAY_MS)
    assert bool(exchange.is_over)
    assert exchange.contracts.tickers(exchange.clock.now_ms(), [0]) == before


def test_a_delisted_contract_trades_until_its_end(small: Shop) -> None:
    exchange = small.exchange
    row = exchange.contracts.rows["SXPUSDTM"]
    expiry = exchange.market.history.listings[row].expire_ms
    assert expiry is not None
    assert exchange.contracts.status(row, expiry - 1) == "Open"
    assert row in exchange.contracts.active(expiry - 1)
    assert exchange.market.moment(expiry - 1).day.lots[row] > 0
    assert exchange.contracts.status(row, expiry) == "Closed"
    assert row not in exchange.contracts.active(expiry)
    dated = exchange.contracts.rows["XBTMZ26"]
    assert exchange.contracts.status(dated, 1_798_185_600_000) == "Settled"


def test_the_command_makes_hours_ready_and_no_minutes() -> None:
    options = SandboxOptions(contracts=20, ready_days=READY_DAYS)
    exchange = LocalExchange(options, lambda: START_MS / 1000, lambda: 0.0)
    assert len(exchange.market._hours) >= 121
    assert not exchange.market._minutes
