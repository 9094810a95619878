"""Trading costs: spread, depth and impact of live books, and illiquidity of past bars."""

from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from app.market.domain.models import Book, Contract, Floats, Level
from app.market.domain.symbols import notional

_BP = 10_000.0
MAX_SPREAD_BP = 500.0  # a wider quote counts as missing: it is not meant to be traded


def spread_bp(bid: Floats, ask: Floats) -> Floats:
    """Returns (ask - bid) / mid in basis points, (N,).

    NaN for a missing, crossed or locked quote, and for one wider than `MAX_SPREAD_BP`.
    """
    valid = (bid > 0.0) & (ask > bid)
    mid = np.where(valid, (bid + ask) / 2.0, np.nan)
    width = (ask - bid) / mid * _BP
    return np.asarray(np.where(width <= MAX_SPREAD_BP, width, np.nan), np.float64)


def depth(book: Book, multiplier: float, band_bp: float) -> float:
    """Returns the quote currency offered within `band_bp` of mid on the thinner side.

    NaN for a broken book, and for a book whose levels end inside the band on either side: the rest
    is unknown, and a lower bound is not the amount. `multiplier` is base coins per lot.
    """
    sides = [value if reach >= band_bp else np.nan for value, reach in _within(book, band_bp)]
    return float(np.min(sides) * multiplier)


def depth_shown(book: Book, contract: Contract, band_bp: float) -> Decimal | None:
    """Returns the value within `band_bp` of mid on the thinner side (USD for inverse, else quote).

    A lower bound where the levels end inside the band. None for a broken book.
    """
    mid = _mid(book)
    if np.isnan(mid):
        return None
    sides = (
        (level for level in side if abs(float(level.price) - mid) / mid * _BP <= band_bp)
        for side in (book.bids, book.asks)
    )
    return min(
        sum((notional(contract, level.lots, level.price) for level in side), Decimal(0))
        for side in sides
    )


def depth_density(book: Book, multiplier: float, band_bp: float) -> float:
    """Returns quote currency per basis point of distance from mid on the thinner side.

    A feed has a fixed number of levels. They end within one basis point where ticks are fine, and
    far outside the band where they are coarse. Each side is therefore measured over `band_bp`, or
    over its own reach if that is shorter, and divided by that length. An amount would rank
    truncated books, most of them the best ones, below complete ones. The density near mid stands
    for the whole band where the rest is not shown. NaN for a broken book.
    """
    sides = [value / min(reach, band_bp) for value, reach in _within(book, band_bp)]
    return float(np.min(sides) * multiplier)


def impact_bp(book: Book, multiplier: float, notional: float) -> float:
    """Returns the average price of sweeping `notional` against mid, in basis points.

    `notional` is in quote currency. The larger impact of buying and selling; NaN when a side holds
    less: never extrapolated.
    """
    mid = _mid(book)
    buy = _sweep(book.asks, multiplier, notional)
    sell = _sweep(book.bids, multiplier, notional)
    return float(np.maximum(buy / mid - 1.0, 1.0 - sell / mid) * _BP)


def net_impact_bp(book: Book, multiplier: float, notional: float) -> float:
    """Returns the average price of sweeping `notional` against the best price, in bp of mid.

    The larger impact of buying and selling, without half the spread, which is measured by itself. A
    side that holds less than `notional`, or costs more, counts as `MAX_SPREAD_BP`: censored, not
    missing. NaN for a broken book.
    """
    mid = _mid(book)
    if np.isnan(mid):
        return np.nan
    slips = (_slip(side, multiplier, notional) for side in (book.bids, book.asks))
    return min(max(slips) / mid * _BP, MAX_SPREAD_BP)


def is_thinner(book: Book, multiplier: float, notional: float) -> bool:
    """True if a side of an unbroken book holds less than `notional`."""
    return not np.isnan(_mid(book)) and any(
        sum(price * lots for price, lots in _ladder(side)) * multiplier < notional
        for side in (book.bids, book.asks)
    )


def illiquidity(returns: Floats, turnover: Floats, least: int) -> tuple[Floats, Floats]:
    """Returns mean and sample sd of |return| per unit of quote turnover over the rows; (N,) each.

    Days without turnover are left out; fewer than `least` days give NaN.
    """
    price_of_volume = np.abs(returns) / np.where(turnover > 0.0, turnover, np.nan)
    known = np.isfinite(price_of_volume)
    count = known.sum(axis=0)
    enough = np.where(count >= max(least, 2), count, np.nan)
    mean = np.nansum(price_of_volume, axis=0) / enough
    away = np.nansum((price_of_volume - mean) ** 2, axis=0)
    return mean, np.sqrt(away / (enough - 1.0))


def _ladder(side: Sequence[Level]) -> list[tuple[float, int]]:
    return [(float(level.price), level.lots) for level in side]


def _within(book: Book, band_bp: float) -> list[tuple[float, float]]:
    """Returns (value per multiplier in the band, bp from mid to the last level) of each side."""
    mid = _mid(book)
    if np.isnan(mid):
        return [(np.nan, np.nan)]
    sides = []
    for levels in (book.bids, book.asks):
        ladder = [(abs(price - mid) / mid * _BP, price * lots) for price, lots in _ladder(levels)]
        inside = sum(value for away, value in ladder if away <= band_bp)
        sides.append((inside, ladder[-1][0]))
    return sides


def _mid(book: Book) -> float:
    """Returns the mid price; NaN for a book with an empty side, crossed, locked or too wide."""
    if not book.bids or not book.asks:
        return np.nan
    bid, ask = float(book.bids[0].price), float(book.asks[0].price)
    mid = (bid + ask) / 2.0
    return mid if 0.0 < bid < ask and (ask - bid) / mid * _BP <= MAX_SPREAD_BP else np.nan


def _sweep(side: Sequence[Level], multiplier: float, notional: float) -> float:
    """Returns the average fill price of `notional`; NaN when the side is thinner."""
    left, coins = notional, 0.0
    for price, lots in _ladder(side):
        value = min(left, price * lots * multiplier)
        coins += value / price
        left -= value
        if left <= 0.0:
            return notional / coins
    return np.nan


def _slip(side: Sequence[Level], multiplier: float, notional: float) -> float:
    """Returns the distance of a sweep's average price from the best price; inf for a thinner side.

    Exactly 0 where the best level is enough: an average minus the best price would be noise.
    """
    best = float(side[0].price)
    left, coins, excess = notional, 0.0, 0.0
    for price, lots in _ladder(side):
        value = min(left, price * lots * multiplier)
        coins += value / price
        excess += value * abs(1.0 - best / price)
        left -= value
        if left <= 0.0:
            return excess / coins
    return np.inf
