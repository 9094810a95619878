"""Trading costs: spread, depth and impact of live books, and illiquidity of past bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from enum import StrEnum
from fractions import Fraction
from typing import Final

import numpy as np

from app.foundation.decimal_math import total
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


class OrderSide(StrEnum):
    """Side of an order that takes liquidity: a buy sweeps the asks, a sell the bids."""

    BUY = "buy"
    SELL = "sell"


PRICE_DIGITS: Final = 12  # significant digits of an average price
SLIPPAGE_DIGITS: Final = 4  # decimals of a slippage in basis points


@dataclass(frozen=True, slots=True)
class MarketImpact:
    """Cost of sweeping one side of a book; amounts are in quote currency, USD for inverse.

    `average_price` and `slippage_bp` are None unless the known levels fill the whole order.
    """

    requested: Decimal
    known: Decimal  # value of all known levels of the side
    levels_known: int
    levels_used: int
    filled_share: Decimal  # of the request, 0..1, rounded down to 6 decimals
    mid_price: Decimal | None  # None for a side without levels, or a crossed or locked book
    best_price: Decimal | None
    worst_price: Decimal | None  # of the last level used
    average_price: Decimal | None
    slippage_bp: Decimal | None  # against mid, positive is a cost

    @property
    def is_complete(self) -> bool:
        """True if the known levels fill the whole order."""
        return self.average_price is not None


def market_impact(
    book: Book, contract: Contract, side: OrderSide, requested: Decimal
) -> MarketImpact:
    """Sweeps `requested` of quote currency, counting parts of a lot; exact until it is rounded.

    Nothing is extrapolated: a book that is too thin has no average price, and a crossed or locked
    one no slippage. Raises ValueError for a request that is not positive.
    """
    if requested <= 0:
        raise ValueError("the value to sweep must be positive")
    levels = book.asks if side is OrderSide.BUY else book.bids
    left, coins, used, worst = Fraction(requested), Fraction(0), 0, None
    for level in levels:
        if left == 0:
            break
        value = min(left, Fraction(notional(contract, level.lots, level.price)))
        coins += value / Fraction(level.price)
        left -= value
        used, worst = used + 1, level.price
    mid = _exact_mid(book)
    average = Fraction(requested) / coins if left == 0 else None
    slippage = None
    if average is not None and mid is not None:
        cost = average / mid - 1 if side is OrderSide.BUY else 1 - average / mid
        slippage = round(cost * 10_000, SLIPPAGE_DIGITS)
    share = (Fraction(requested) - left) / Fraction(requested)
    return MarketImpact(
        requested=requested,
        known=total(notional(contract, one.lots, one.price) for one in levels),
        levels_known=len(levels),
        levels_used=used,
        filled_share=Decimal(share.numerator * 10**6 // share.denominator).scaleb(-6),
        mid_price=None if mid is None else _to_decimal(mid),
        best_price=levels[0].price if levels else None,
        worst_price=worst,
        average_price=None if average is None else _to_decimal(average),
        slippage_bp=None if slippage is None else _to_decimal(slippage),
    )


def _exact_mid(book: Book) -> Fraction | None:
    if not book.bids or not book.asks or not 0 < book.bids[0].price < book.asks[0].price:
        return None
    return Fraction(book.bids[0].price + book.asks[0].price) / 2


def _to_decimal(value: Fraction) -> Decimal:
    """Returns the value rounded half to even to `PRICE_DIGITS` significant digits."""
    with localcontext(prec=PRICE_DIGITS, rounding=ROUND_HALF_EVEN):
        return Decimal(value.numerator) / Decimal(value.denominator)


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
