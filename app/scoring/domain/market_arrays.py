"""Order books and settled funding of all symbols as padded arrays, for factors and fingerprints."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from app.market.domain.liquidity import WIDEST_BP
from app.market.domain.models import Book, Floats, Funding, Ints

_BP = 10_000.0


@dataclass(frozen=True, slots=True, eq=False)
class BookLevels:
    """Levels of N order books, best first: (L, 2, N) with bids before asks.

    Beyond the last level the price is NaN and the lots are 0; so they are without a book.
    """

    price: Floats
    lots: Floats
    count: Ints  # (2, N)

    @classmethod
    def of(cls, books: Sequence[Book | None]) -> "BookLevels":
        sides = [() if book is None else book.bids for book in books]
        sides += [() if book is None else book.asks for book in books]
        count = np.array([len(side) for side in sides], np.int64)
        flat = list(chain.from_iterable(sides))
        prices, lots_of = zip(*flat, strict=True) if flat else ((), ())
        price = _padded(np.fromiter(map(float, prices), np.float64, len(flat)), count, np.nan)
        lots = _padded(np.array(lots_of, np.float64), count, 0.0)
        shape = (len(price), 2, len(books))
        return cls(price.reshape(shape), lots.reshape(shape), count.reshape(shape[1:]))

    @property
    def mid(self) -> Floats:
        """(N,) NaN where a side is empty or the book is crossed, locked or too wide."""
        if not len(self.price):
            return np.full(self.count.shape[1], np.nan)
        bid, ask = self.price[0]
        mid = (bid + ask) / 2.0
        is_sound = (bid > 0.0) & (ask > bid) & ((ask - bid) / mid * _BP <= WIDEST_BP)
        return np.where(is_sound, mid, np.nan)

    def depth_density(self, multiplier: Floats, band_bp: float) -> Floats:
        """(N,) as `liquidity.depth_density` of each book."""
        mid = self.mid
        away = np.abs(self.price - mid) / mid * _BP
        inside = np.where(away <= band_bp, self.price * self.lots, 0.0).sum(axis=0)
        reach = np.fmax.reduce(away, axis=0, initial=np.nan)  # the last level is the farthest
        return np.asarray(
            (inside / np.minimum(reach, band_bp)).min(axis=0) * multiplier, np.float64
        )

    def net_impact_bp(self, multiplier: Floats, notional: float) -> Floats:
        """(N,) as `liquidity.net_impact_bp` of each book."""
        mid, total = self.mid, self._worth(multiplier)
        if not len(total):
            return mid
        taken = np.diff(np.minimum(total, notional), axis=0, prepend=0.0)
        price = np.where(np.isfinite(self.price), self.price, 1.0)  # nothing is taken beyond
        coins = (taken / price).sum(axis=0)
        excess = (taken * np.abs(1.0 - price[0] / price)).sum(axis=0)
        is_filled = total[-1] >= notional
        slip = np.where(is_filled, excess / np.where(is_filled, coins, 1.0), np.inf)
        return np.asarray(np.minimum(slip.max(axis=0) / mid * _BP, WIDEST_BP), np.float64)

    def is_thinner(self, multiplier: Floats, notional: float) -> Floats:
        """(N,) 1 where a side of a sound book holds less than `notional`, else 0; NaN without."""
        mid, total = self.mid, self._worth(multiplier)
        if not len(total):
            return mid
        return np.where(np.isfinite(mid), (total[-1] < notional).any(axis=0), np.nan)

    def _worth(self, multiplier: Floats) -> Floats:
        """(L, 2, N) value of each side up to a level."""
        price = np.where(np.isfinite(self.price), self.price, 0.0)
        return np.asarray(np.cumsum(price * self.lots * multiplier, axis=0), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Settlements:
    """Settled funding rates of N symbols, oldest first: (K, N) each, padded with 0.

    `length_ms` is the time that a rate was paid for, 0 where it is not known.
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


def _padded(flat: np.ndarray, count: Ints, missing: float) -> np.ndarray:
    """(K, N) columns of so many of the values, one after the other."""
    out = np.full((int(count.max(initial=0)), len(count)), missing, flat.dtype)
    row = np.arange(len(flat)) - np.repeat(np.cumsum(count) - count, count)
    out[row, np.repeat(np.arange(len(count)), count)] = flat
    return out
