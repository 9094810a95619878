"""Spread, depth and impact of books by hand; what cannot be told is missing."""

import gzip
import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from app.market.domain.liquidity import (
    OrderSide,
    depth,
    depth_density,
    depth_shown,
    illiquidity,
    impact_bp,
    is_thinner,
    market_impact,
    net_impact_bp,
    spread_bp,
)
from app.market.domain.models import Book, Level
from tests.support.market_files import L2_SNAPSHOTS
from tests.support.portfolios import contract

NAN = float("nan")


def book(bids: list[tuple[str, int]], asks: list[tuple[str, int]]) -> Book:
    sides = [tuple(Level(Decimal(price), lots) for price, lots in side) for side in (bids, asks)]
    return Book("XBTUSDTM", 1, sides[0], sides[1], 0)


GOOD = book([("99.9", 10), ("99.5", 20), ("99", 500)], [("100.1", 4), ("100.5", 30), ("102", 9)])


def test_market_impact_is_exact_and_never_extrapolates() -> None:
    linear = contract(multiplier=Decimal("0.5"))
    # 4 lots at 100.1 are 200.2, then 30 lots at 100.5
    got = market_impact(GOOD, linear, OrderSide.BUY, Decimal("200.2") + Decimal(1005))
    assert got.is_complete
    assert (got.levels_used, got.levels_known, got.filled_share) == (2, 3, Decimal(1))
    assert got.average_price == Decimal("100.433333333")  # 1205.2 for 12 coins
    assert got.slippage_bp == Decimal("43.3333")
    assert (got.mid_price, got.best_price, got.worst_price) == (
        Decimal(100), Decimal("100.1"), Decimal("100.5"),
    )  # fmt: skip
    assert got.known == Decimal("200.2") + Decimal("1507.5") + Decimal(459)
    sold = market_impact(GOOD, linear, OrderSide.SELL, Decimal("99.9"))
    assert (sold.average_price, sold.slippage_bp, sold.levels_used) == (
        Decimal("99.9"), Decimal(10), 1,
    )  # fmt: skip

    more = market_impact(GOOD, linear, OrderSide.BUY, got.known + 1)
    assert (more.is_complete, more.average_price, more.slippage_bp) == (False, None, None)
    assert (more.levels_used, more.worst_price) == (3, Decimal(102))
    assert Decimal("0.9995") < more.filled_share < 1
    all_of_it = market_impact(GOOD, linear, OrderSide.BUY, got.known)
    assert (all_of_it.is_complete, all_of_it.filled_share) == (True, Decimal(1))

    # A lot of an inverse contract is one USD, so that coins per lot depend on the price.
    inverse = contract(is_inverse=True, multiplier=Decimal(1))
    usd = market_impact(book([("99", 1)], [("100", 100), ("200", 100)]), inverse, OrderSide.BUY,
                        Decimal(200))  # fmt: skip
    assert usd.average_price == Decimal("133.333333333")  # 200 USD for 1.5 coins
    crossed = book([("101", 10)], [("100", 10)])
    wrong = market_impact(crossed, linear, OrderSide.BUY, Decimal(1))
    assert (wrong.mid_price, wrong.slippage_bp, wrong.average_price) == (None, None, Decimal(100))
    empty = market_impact(book([], []), linear, OrderSide.SELL, Decimal(1))
    assert (empty.filled_share, empty.best_price, empty.levels_known) == (Decimal(0), None, 0)
    for value in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            market_impact(GOOD, linear, OrderSide.BUY, Decimal(value))


def test_spread() -> None:
    bid = np.array([99.9, 100.0, 101.0, NAN, 0.0])
    ask = np.array([100.1, 100.0, 100.0, 100.0, 1.0])
    np.testing.assert_allclose(spread_bp(bid, ask), [20.0, NAN, NAN, NAN, NAN])


def test_depth_is_the_thinner_side_within_the_band() -> None:
    assert depth(GOOD, 0.5, 25.0) == pytest.approx(0.5 * 100.1 * 4)
    assert depth(GOOD, 0.5, 50.0) == pytest.approx(0.5 * (99.9 * 10 + 99.5 * 20))


def test_depth_of_a_book_that_ends_inside_the_band_is_unknown() -> None:
    bids, asks = [("99.9", 10), ("99", 5)], [("100.1", 4), ("100.4", 30)]
    assert np.isnan(depth(book(bids, asks), 1.0, 50.0))  # asks end at 40 bp
    assert np.isnan(depth(book([("99.8", 30)], [("100.2", 4), ("101", 1)]), 1.0, 50.0))  # bids: 20
    assert depth(book(bids, [*asks, ("100.5", 1)]), 1.0, 50.0) == pytest.approx(999.0)


def test_density_is_per_basis_point_of_what_the_book_shows() -> None:
    # bids reach 100 bp: 50 count; asks end at 40
    cut = book([("99.9", 10), ("99", 500)], [("100.1", 4), ("100.4", 30)])
    assert depth_density(cut, 2.0, 50.0) == pytest.approx(2.0 * 999.0 / 50.0)
    thin = book([("99.9", 100), ("99", 500)], [("100.1", 4), ("100.4", 3)])
    assert depth_density(thin, 2.0, 50.0) == pytest.approx(2.0 * (400.4 + 301.2) / 40.0)
    nothing_near = book([("99", 10)], [("101", 10)])
    assert depth_density(nothing_near, 1.0, 50.0) == 0.0


def even(per_bp: float, tick_bp: float) -> Book:
    """Twenty levels a side of a book that holds `per_bp` at any distance from a mid of 100."""
    sides = [
        [
            (f"{100.0 + sign * tick_bp * (step + 0.5) / 100.0:.9f}", round(per_bp * tick_bp * 1e6))
            for step in range(20)
        ]
        for sign in (-1, 1)
    ]
    return book(*sides)


def test_density_does_not_depend_on_where_the_feed_cuts_the_book() -> None:
    lot = 1e-8  # coins, so that a level of one unit of quote at 100 is 1e6 lots
    found = [depth_density(even(1_000.0, tick), lot, 50.0) for tick in (0.04, 0.5, 1.0, 4.0, 20.0)]
    assert found == pytest.approx([1_000.0] * 5, rel=0.21)  # half a tick at the end of the band
    assert [depth_density(even(1_000.0, 0.04), k * lot, 50.0) for k in (1, 2)] == pytest.approx(
        [found[0], 2.0 * found[0]]
    )


def test_density_ranks_books_by_their_true_depth_however_they_are_cut() -> None:
    rng = np.random.default_rng(7)
    true = 1_000.0 * 1.5 ** np.arange(20.0)
    ticks = np.exp(rng.uniform(np.log(0.05), np.log(10.0), 20))
    ticks[-1] = 0.04  # the deepest is cut at less than one basis point
    books = [even(amount, tick) for amount, tick in zip(true, ticks, strict=True)]
    found = [depth_density(one, 1e-8, 50.0) for one in books]
    assert found == sorted(found)
    shown = [
        sum(float(level.price) * level.lots * 1e-8 for level in one.asks if level.price < 100.5)
        for one in books
    ]
    assert shown != sorted(shown), "the amount that is shown would rank them wrongly"


def test_impact_is_the_dearer_side() -> None:
    # 600: buying 400.4 at 100.1 and 199.6 at 100.5; selling all of it at 99.9
    coins = 4 + 199.6 / 100.5
    assert impact_bp(GOOD, 1.0, 600.0) == pytest.approx((600.0 / coins / 100.0 - 1.0) * 1e4)
    assert impact_bp(GOOD, 1.0, 100.0) == pytest.approx(10.0)


def test_net_impact_leaves_out_half_the_spread() -> None:
    half_spread = 10.0  # bp
    assert net_impact_bp(GOOD, 1.0, 600.0) == pytest.approx(
        impact_bp(GOOD, 1.0, 600.0) - half_spread
    )
    # The best level is enough: exactly nothing, whatever the last bits of an average are.
    assert [net_impact_bp(GOOD, 1.0, small) for small in (0.1, 3.3, 100.0)] == [0.0] * 3


def test_a_thinner_book_is_censored_and_a_dearer_one_costs_no_more() -> None:
    assert net_impact_bp(GOOD, 1.0, 5_000.0) == 500.0
    assert is_thinner(GOOD, 1.0, 5_000.0)
    assert net_impact_bp(GOOD, 10.0, 5_000.0) < 500.0
    assert not is_thinner(GOOD, 10.0, 5_000.0)
    far = replace(GOOD, asks=(GOOD.asks[0], Level(Decimal(900), 100)))
    assert net_impact_bp(far, 1.0, 5_000.0) == 500.0


def test_a_book_that_is_thinner_than_the_order_has_no_impact() -> None:
    assert np.isnan(impact_bp(GOOD, 1.0, 5_000.0))
    assert np.isfinite(impact_bp(GOOD, 10.0, 5_000.0))


@pytest.mark.parametrize(
    "broken",
    [
        book([], [("1", 1)]),
        book([("1", 1)], []),
        book([("2", 1)], [("1", 1)]),
        book([("1", 1)], [("1", 1)]),
    ],
    ids=["no bids", "no asks", "crossed", "locked"],
)
def test_a_broken_book_says_nothing(broken: Book) -> None:
    assert np.isnan(depth(broken, 1.0, 50.0))
    assert np.isnan(depth_density(broken, 1.0, 50.0))
    assert np.isnan(impact_bp(broken, 1.0, 0.5))
    assert np.isnan(net_impact_bp(broken, 1.0, 0.5))
    assert not is_thinner(broken, 1.0, 0.5)


def test_illiquidity_leaves_out_days_without_turnover() -> None:
    returns = np.array([[0.01, 0.01], [-0.02, NAN], [0.03, 0.02]])
    turnover = np.array([[100.0, 100.0], [100.0, 100.0], [0.0, 100.0]])
    mean, sd = illiquidity(returns, turnover, 2)
    np.testing.assert_allclose(mean, [1.5e-4, 1.5e-4])
    np.testing.assert_allclose(sd, [np.std([1e-4, 2e-4], ddof=1)] * 2)
    assert np.isnan(illiquidity(returns, turnover, 3)[0]).all()
    assert np.isnan(illiquidity(returns[:1], turnover[:1], 1)[1]).all()


GOLDEN = {  # spread and impact of buying for 10 000 USD, both in bp
    "SUSHIUSDT": (1.314, 2.595),
    "AKROUSDT": (5.775, 9.430),
    "KEEPUSDT": (4.059, 23.129),
    "CTKUSDT": (9.896, 8.356),
    "BCHUSD_PERP": (1.168, 1.629),
    "BCHSV-USDT": (12.438, 14.463),
}


@pytest.mark.skipif(not L2_SNAPSHOTS.exists(), reason="the folder of real market data is not here")
def test_golden_real_books() -> None:
    with gzip.open(L2_SNAPSHOTS, "rt") as file:
        found = {one["symbol"]: one for one in json.load(file)}
    for symbol, (spread, impact) in GOLDEN.items():
        # Whole lots of a hundred-millionth of a coin; a contract of the inverse one is 10 USD.
        inverse = symbol.endswith("_PERP")
        sides = [
            [
                (str(price), round((10.0 / price if inverse else 1.0) * float(size) * 1e8))
                for price, size in found[symbol][side]
            ]
            for side in ("bids", "asks")
        ]
        real = book(*sides)
        bid, ask = float(real.bids[0].price), float(real.asks[0].price)
        assert spread_bp(np.array([bid]), np.array([ask]))[0] == pytest.approx(spread, abs=5e-4)
        bottomless = book([(sides[0][0][0], 10**18)], sides[1])  # selling costs half the spread
        assert impact_bp(bottomless, 1e-8, 10_000.0) == pytest.approx(impact, abs=5e-4), symbol
        if symbol == "SUSHIUSDT":
            assert depth(real, 1e-8, 50.0) == pytest.approx(470_942.5, abs=0.5)


def test_depth_shown_counts_what_is_there_and_no_more() -> None:
    linear = contract(multiplier=Decimal("0.5"))
    assert depth_shown(GOOD, linear, 25.0) == Decimal("0.5") * Decimal("100.1") * 4
    short = book([("99.9", 10)], [("100.1", 30)])  # ends within the band: at least this much
    assert depth_shown(short, linear, 25.0) == Decimal("0.5") * Decimal("99.9") * 10
    inverse = contract(is_inverse=True, multiplier=Decimal(1))
    assert depth_shown(GOOD, inverse, 50.0) == 30  # lots of one USD, whatever the price
    assert depth_shown(GOOD, linear, 1.0) == 0
    assert depth_shown(book([], [("100.1", 4)]), linear, 25.0) is None
