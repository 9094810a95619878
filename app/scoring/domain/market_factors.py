"""Factors of quotes, books, funding and open interest; scoring inputs in, (N,) raw values out."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import numpy as np

from app.market.domain import liquidity
from app.market.domain.models import Floats
from app.market.domain.panel import Bools, ScoringInputs
from app.scoring.domain.market_arrays import BookLevels, Settlements

_DAY_MS = 86_400_000
_YEAR_MS = 365 * _DAY_MS
NOTIONAL: Final = 20_000.0  # quote currency: the largest position (20 %) of an account of 100 000
DEPTH_BP: Final = 25.0
_COVERED = 0.5  # share of a funding window that settlements must cover
_SNAPSHOT_LAG_MS = _DAY_MS
OPEN_INTEREST_MS: Final = 7 * _DAY_MS


def funding_rate(inputs: ScoringInputs) -> Floats:
    """Mean settled rate of 3 days, per year: sum of rates over the time that they were paid for."""
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
    # As differences to one of them: the sd of equal rates is 0, not what rounding leaves.
    away = np.where(within, pace - highest, 0.0)
    mean = away.sum(axis=0) / many
    square = np.where(within, (away - mean) ** 2, 0.0).sum(axis=0) / (many - 1)
    return np.where(is_covered & (count > 2), -np.sqrt(square) * _YEAR_MS, np.nan)


def open_interest_change(inputs: ScoringInputs) -> Floats:
    """ln(open interest now / 7 days ago) in coins, from our own snapshots.

    Each end is the newest snapshot within a day before its moment; without one it is missing.
    """
    now = snapshot(inputs, inputs.as_of_ms)
    before = snapshot(inputs, inputs.as_of_ms - OPEN_INTEREST_MS)
    return np.log(now / before)


def ends(inputs: ScoringInputs) -> ScoringInputs:
    """The same with the two snapshots of open interest that are looked at, and no others."""
    at = (inputs.as_of_ms - OPEN_INTEREST_MS, inputs.as_of_ms)
    return replace(
        inputs,
        open_interest_ms=np.array(at, dtype=np.int64),
        open_interest=np.vstack([snapshot(inputs, one) for one in at]),
    )


def spread(inputs: ScoringInputs) -> Floats:
    return liquidity.spread_bp(inputs.bid, inputs.ask)


def depth(inputs: ScoringInputs, band_bp: float = DEPTH_BP) -> Floats:
    """Quote currency per bp within `band_bp` of mid, or within what the book reaches of them.

    The thinner side counts. A density, not an amount: a hundred levels of BTC end within a few
    basis points, and books that are cut must not rank below books that are not.
    """
    multiplier = _known_multiplier(inputs)
    return book_levels(inputs).depth_density(multiplier, band_bp)


def impact(inputs: ScoringInputs, notional: float = NOTIONAL) -> Floats:
    """bp of sweeping `notional` (quote currency) beyond half the spread; the thinner books last."""
    multiplier = _known_multiplier(inputs)
    found = book_levels(inputs).net_impact_bp(multiplier, notional)
    return np.where(np.isfinite(multiplier), found, np.nan)


def impact_support(
    inputs: ScoringInputs, notional: float = NOTIONAL
) -> tuple[Mapping[str, Any] | None, ...]:
    """Names the symbols whose book is thinner than `notional`, so that the impact is censored."""
    thin = book_levels(inputs).is_thinner(_known_multiplier(inputs), notional)
    return tuple({"censored": "thin_book"} if one == 1.0 else None for one in thin.tolist())


@lru_cache(maxsize=1)  # by identity: three factors read the same books
def book_levels(inputs: ScoringInputs) -> BookLevels:
    """Order books of the inputs as arrays."""
    return BookLevels.of(inputs.books)


@lru_cache(maxsize=1)
def settlements(inputs: ScoringInputs) -> Settlements:
    """Settled funding of the inputs as arrays."""
    return Settlements.of(inputs.funding)


def _known_multiplier(inputs: ScoringInputs) -> Floats:
    return np.where(inputs.multiplier > 0.0, inputs.multiplier, np.nan)


def _paid_within(inputs: ScoringInputs, window_ms: int) -> tuple[Bools, Bools]:
    """(K, N) settlements of known length within the window, and (N,) whether they cover half."""
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
