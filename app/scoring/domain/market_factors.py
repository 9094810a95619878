"""Factors of quotes, books, funding and open interest; scoring inputs in, (N,) raw values out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from app.market.domain import liquidity
from app.market.domain.models import Book, Floats, Funding
from app.market.domain.panel import ScoringInputs

_DAY_MS = 86_400_000
_YEAR_MS = 365 * _DAY_MS
NOTIONAL: Final = 20_000.0  # quote currency: the largest position (20 %) of an account of 100 000
DEPTH_BP: Final = 25.0
_COVERED = 0.5  # share of a funding window that settlements must cover
_SNAPSHOT_LAG_MS = _DAY_MS
OPEN_INTEREST_MS: Final = 7 * _DAY_MS


def funding_rate(inputs: ScoringInputs) -> Floats:
    """Mean settled rate of 3 days, per year: sum of rates over the time that they were paid for."""
    return _per_symbol(inputs, 3 * _DAY_MS, _mean_rate)


def funding_stability(inputs: ScoringInputs) -> Floats:
    """Minus the sample sd of annualised rates over 7 days; needs three settlements."""
    return _per_symbol(inputs, 7 * _DAY_MS, _steadiness)


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
    return _per_book(
        inputs, lambda book, multiplier: liquidity.depth_density(book, multiplier, band_bp)
    )


def impact(inputs: ScoringInputs, notional: float = NOTIONAL) -> Floats:
    """bp of sweeping `notional` (quote currency) beyond half the spread; the thinner books last."""
    return _per_book(
        inputs, lambda book, multiplier: liquidity.net_impact_bp(book, multiplier, notional)
    )


def impact_support(
    inputs: ScoringInputs, notional: float = NOTIONAL
) -> tuple[Mapping[str, Any] | None, ...]:
    """Says of which symbols the book is thinner than `notional`, so that the impact is censored."""
    thin = _per_book(
        inputs, lambda book, multiplier: liquidity.is_thinner(book, multiplier, notional)
    )
    return tuple({"censored": "thin_book"} if one == 1.0 else None for one in thin.tolist())


def _per_book(inputs: ScoringInputs, figure: Callable[[Book, float], float]) -> Floats:
    return np.array(
        [
            np.nan if book is None or not multiplier > 0.0 else figure(book, multiplier)
            for book, multiplier in zip(inputs.books, inputs.multiplier.tolist(), strict=True)
        ],
        dtype=np.float64,
    )


def _per_symbol(
    inputs: ScoringInputs, window_ms: int, figure: Callable[[Floats, Floats], float]
) -> Floats:
    """`figure(rates, interval lengths in ms)` of the settlements of the window, per symbol.

    Missing where settlements of known length cover less than half of the window.
    """
    since = inputs.as_of_ms - window_ms

    def one(settled: Sequence[Funding]) -> float:
        paid = [
            (float(each.rate), float(each.interval_ms))
            for each in settled
            if each.settled_ms > since and each.interval_ms
        ]
        if sum(length for _, length in paid) < _COVERED * window_ms:
            return np.nan
        rates, lengths = np.array(paid).T
        return figure(rates, lengths)

    return np.array([one(settled) for settled in inputs.funding], dtype=np.float64)


def _mean_rate(rates: Floats, lengths: Floats) -> float:
    return float(rates.sum() / lengths.sum()) * _YEAR_MS


def _steadiness(rates: Floats, lengths: Floats) -> float:
    return -float(np.std(rates / lengths, ddof=1)) * _YEAR_MS if len(rates) > 2 else np.nan


def snapshot(inputs: ScoringInputs, at_ms: int) -> Floats:
    """Newest positive open interest stamped within a day before `at_ms`."""
    times = inputs.open_interest_ms
    out = np.full(len(inputs.symbols), np.nan)
    for row in np.flatnonzero((times <= at_ms) & (times > at_ms - _SNAPSHOT_LAG_MS)):
        values = inputs.open_interest[row]
        out = np.where(values > 0.0, values, out)
    return out
