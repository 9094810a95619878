"""Factors of quotes, order books, funding and open interest, computed on padded arrays."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import numpy as np

from app.market.domain import liquidity
from app.market.domain.identity_cache import cached_while_alive
from app.market.domain.liquidity import MAX_SPREAD_BP
from app.market.domain.models import Book, Floats, Funding, Ints, PackedLevels
from app.market.domain.panel import Bools, ScoringInputs
from app.market.domain.trade_flow import RECENT_MINUTES, WINDOW_MINUTES

_BP = 10_000.0


@dataclass(frozen=True, slots=True, eq=False)
class BookLevels:
    """Levels of N order books, best first: (L, 2, N) with bids before asks.

    Beyond the last level, and without a book, the price is NaN and the lots are 0.
    """

    price: Floats
    lots: Floats
    count: Ints  # (2, N)

    @classmethod
    def of(cls, books: Sequence[Book | None]) -> "BookLevels":
        sides = [PackedLevels.of(() if book is None else book.bids) for book in books]
        sides += [PackedLevels.of(() if book is None else book.asks) for book in books]
        count = np.array([len(side) for side in sides], np.int64)
        price = _padded(_joined(side.prices for side in sides), count, np.nan)
        lots = _padded(_joined(side.lots for side in sides), count, 0.0)
        shape = (len(price), 2, len(books))
        return cls(price.reshape(shape), lots.reshape(shape), count.reshape(shape[1:]))

    @property
    def mid(self) -> Floats:
        """(N,) NaN where a side is empty or the book is crossed, locked or too wide."""
        if not len(self.price):
            return np.full(self.count.shape[1], np.nan)
        bid, ask = self.price[0]
        mid = (bid + ask) / 2.0
        is_sound = (bid > 0.0) & (ask > bid) & ((ask - bid) / mid * _BP <= MAX_SPREAD_BP)
        return np.where(is_sound, mid, np.nan)

    def depth_density(self, multiplier: Floats, band_bp: float) -> Floats:
        """(N,) as `liquidity.depth_density` of each book."""
        mid = self.mid
        distance = np.abs(self.price - mid) / mid * _BP
        inside = np.where(distance <= band_bp, self.price * self.lots, 0.0).sum(axis=0)
        reach = np.fmax.reduce(distance, axis=0, initial=np.nan)  # the last level is the farthest
        return np.asarray(
            (inside / np.minimum(reach, band_bp)).min(axis=0) * multiplier, np.float64
        )

    def net_impact_bp(self, multiplier: Floats, notional: float) -> Floats:
        """(N,) as `liquidity.net_impact_bp` of each book."""
        mid, total = self.mid, self._worth(multiplier)
        if not len(total):
            return mid
        taken = np.diff(np.minimum(total, notional), axis=0, prepend=0.0)
        price = np.where(
            np.isfinite(self.price), self.price, 1.0
        )  # no volume is taken beyond the last level
        coins = (taken / price).sum(axis=0)
        excess = (taken * np.abs(1.0 - price[0] / price)).sum(axis=0)
        is_filled = total[-1] >= notional
        slip = np.where(is_filled, excess / np.where(is_filled, coins, 1.0), np.inf)
        return np.asarray(np.minimum(slip.max(axis=0) / mid * _BP, MAX_SPREAD_BP), np.float64)

    def is_thinner(self, multiplier: Floats, notional: float) -> Floats:
        """(N,) 1 where a side of a sound book is thinner than `notional`, else 0; NaN without."""
        mid, total = self.mid, self._worth(multiplier)
        if not len(total):
            return mid
        return np.where(np.isfinite(mid), (total[-1] < notional).any(axis=0), np.nan)

    def _worth(self, multiplier: Floats) -> Floats:
        """(L, 2, N) cumulated value of each side up to a level."""
        price = np.where(np.isfinite(self.price), self.price, 0.0)
        return np.asarray(np.cumsum(price * self.lots * multiplier, axis=0), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Settlements:
    """Settled funding rates of N symbols, oldest first: (K, N) each, padded with 0.

    `length_ms` is the funding interval of a rate, 0 where unknown.
    """

    settled_ms: Ints
    rate: Floats
    length_ms: Ints
    count: Ints  # (N,)

    @classmethod
    def of(cls, funding: Sequence[Sequence[Funding]]) -> "Settlements":
        count = np.array([len(each) for each in funding], np.int64)
        flat = list(chain.from_iterable(funding))
        settled = _padded(np.array([one.settled_ms for one in flat], np.int64), count, 0)
        length = _padded(np.array([one.interval_ms or 0 for one in flat], np.int64), count, 0)
        rate = _padded(np.array([float(one.rate) for one in flat], np.float64), count, 0.0)
        return cls(settled, rate, length, count)


def _joined(texts: Iterable[str]) -> Floats:
    """All numbers of the texts, each rounded to the nearest float."""
    words = chain.from_iterable(map(str.split, texts))
    return np.fromiter(map(float, words), np.float64)


def _padded(flat: np.ndarray, count: Ints, missing: float) -> np.ndarray:
    """(K, N) columns with `count` (N,) values each, taken from `flat` in order."""
    out = np.full((int(count.max(initial=0)), len(count)), missing, flat.dtype)
    row = np.arange(len(flat)) - np.repeat(np.cumsum(count) - count, count)
    out[row, np.repeat(np.arange(len(count)), count)] = flat
    return out


_DAY_MS = 86_400_000
_YEAR_MS = 365 * _DAY_MS
NOTIONAL: Final = 20_000.0  # quote currency: the largest position (20 %) of an account of 100,000
DEPTH_BP: Final = 25.0
_COVERED = 0.5  # share of a funding window that settlements must cover
_SNAPSHOT_LAG_MS = _DAY_MS
OPEN_INTEREST_MS: Final = 7 * _DAY_MS


def funding_rate(inputs: ScoringInputs) -> Floats:
    """Mean settled rate of 3 days, per year: sum of rates over the sum of their intervals."""
    paid = settlements(inputs)
    within, is_covered = _paid_within(inputs, 3 * _DAY_MS)
    rates = np.where(within, paid.rate, 0.0).sum(axis=0)
    length_ms = np.where(within, paid.length_ms, 0).sum(axis=0)
    return np.where(is_covered, rates / np.maximum(length_ms, 1) * _YEAR_MS, np.nan)


def funding_stability(inputs: ScoringInputs) -> Floats:
    """Minus the sample sd of annualised rates over 7 days; needs three settlements."""
    paid = settlements(inputs)
    within, is_covered = _paid_within(inputs, 7 * _DAY_MS)
    pace = paid.rate / np.maximum(paid.length_ms, 1)
    highest = np.where(within, pace, -np.inf).max(axis=0, initial=-np.inf)
    count = within.sum(axis=0)
    many = np.maximum(count, 2)
    # Differences to one of the rates: the sd of equal rates is exactly 0.
    distance = np.where(within, pace - highest, 0.0)
    mean = distance.sum(axis=0) / many
    square = np.where(within, (distance - mean) ** 2, 0.0).sum(axis=0) / (many - 1)
    return np.where(is_covered & (count > 2), -np.sqrt(square) * _YEAR_MS, np.nan)


def open_interest_change(inputs: ScoringInputs) -> Floats:
    """ln(open interest now / 7 days ago) in coins, from stored snapshots.

    Each end is the newest snapshot within the day before it; without one the value is missing.
    """
    now = snapshot(inputs, inputs.as_of_ms)
    before = snapshot(inputs, inputs.as_of_ms - OPEN_INTEREST_MS)
    return np.log(now / before)


def with_end_snapshots(inputs: ScoringInputs) -> ScoringInputs:
    """Returns `inputs` reduced to the two snapshots of open interest that scoring uses."""
    at = (inputs.as_of_ms - OPEN_INTEREST_MS, inputs.as_of_ms)
    return replace(
        inputs,
        open_interest_ms=np.array(at, dtype=np.int64),
        open_interest=np.vstack([snapshot(inputs, end) for end in at]),
    )


def signed_volume(inputs: ScoringInputs) -> Floats:
    """(bought - sold) / (bought + sold) lots of takers in the last hour, -1..1; NaN without any."""
    flow = inputs.flow
    if flow is None:
        return np.full(len(inputs.symbols), np.nan)
    both = flow.bought_lots + flow.sold_lots
    return (flow.bought_lots - flow.sold_lots) / np.where(both > 0.0, both, np.nan)


def trade_intensity(inputs: ScoringInputs) -> Floats:
    """ln(trades a minute in the last ten minutes / in the last hour); NaN without trades."""
    flow = inputs.flow
    if flow is None:
        return np.full(len(inputs.symbols), np.nan)
    recent, hour = flow.recent_trades / RECENT_MINUTES, flow.trades / WINDOW_MINUTES
    is_known = (recent > 0.0) & (hour > 0.0)
    return np.log(np.where(is_known, recent, np.nan) / np.where(is_known, hour, 1.0))


def spread(inputs: ScoringInputs) -> Floats:
    return liquidity.spread_bp(inputs.bid, inputs.ask)


def depth(inputs: ScoringInputs, band_bp: float = DEPTH_BP) -> Floats:
    """Quote currency per bp of the thinner side, within `band_bp` of mid or the book's reach.

    A density rather than an amount: a hundred levels of BTC end within a few basis points, and
    truncated books must not rank below complete ones.
    """
    multiplier = _known_multiplier(inputs)
    return book_levels(inputs).depth_density(multiplier, band_bp)


def impact(inputs: ScoringInputs, notional: float = NOTIONAL) -> Floats:
    """Impact in bp of sweeping `notional` (quote currency), beyond half the spread."""
    multiplier = _known_multiplier(inputs)
    impact_bp = book_levels(inputs).net_impact_bp(multiplier, notional)
    return np.where(np.isfinite(multiplier), impact_bp, np.nan)


def impact_support(
    inputs: ScoringInputs, notional: float = NOTIONAL
) -> tuple[Mapping[str, Any] | None, ...]:
    """Marks symbols whose book is thinner than `notional`: their impact is censored."""
    thin = book_levels(inputs).is_thinner(_known_multiplier(inputs), notional)
    return tuple({"censored": "thin_book"} if one == 1.0 else None for one in thin.tolist())


@cached_while_alive  # three factors read the same books
def book_levels(inputs: ScoringInputs) -> BookLevels:
    """Order books of the inputs as arrays."""
    return BookLevels.of(inputs.books)


@cached_while_alive
def settlements(inputs: ScoringInputs) -> Settlements:
    """Settled funding of the inputs as arrays."""
    return Settlements.of(inputs.funding)


def _known_multiplier(inputs: ScoringInputs) -> Floats:
    return np.where(inputs.multiplier > 0.0, inputs.multiplier, np.nan)


def _paid_within(inputs: ScoringInputs, window_ms: int) -> tuple[Bools, Bools]:
    """(K, N) settlements of known length within the window; (N,) True if they cover half of it."""
    paid = settlements(inputs)
    within = (paid.settled_ms > inputs.as_of_ms - window_ms) & (paid.length_ms > 0)
    covered_ms = np.where(within, paid.length_ms, 0).sum(axis=0)
    return within, covered_ms >= _COVERED * window_ms


def snapshot(inputs: ScoringInputs, at_ms: int) -> Floats:
    """Newest positive open interest stamped within a day before `at_ms`."""
    times = inputs.open_interest_ms
    out = np.full(len(inputs.symbols), np.nan)
    for row in np.flatnonzero((times <= at_ms) & (times > at_ms - _SNAPSHOT_LAG_MS)):
        values = inputs.open_interest[row]
        out = np.where(values > 0.0, values, out)
    return out
