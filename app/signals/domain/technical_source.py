"""Technical rules that generate signals from closed hourly bars."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import numpy as np

from app.foundation.decimal_math import ONE, all_to_millionths
from app.market.domain.models import Floats
from app.market.domain.panel import forward_fill
from app.market.domain.segments import ContiguousPanel, contiguous, log_returns
from app.scoring.domain.indicator_series import atr, rsi
from app.signals.domain.sources import (
    GeneratedSignal,
    Rule,
    RuleReadings,
    SourceInput,
    find_new_signals,
)

TECHNICAL: Final = "technical"
CHANNEL: Final = 55  # bars of the range
DAY: Final = 24
WEEK: Final = 168
_HALF_STRENGTH_ATR: Final = 0.5  # beyond the channel, with strength one half
_HALF_STRENGTH_SD: Final = 1.5  # standard deviations of a day's move
_HALF_STRENGTH_RATIO: Final = 4.0  # ratio of a bar's turnover to the usual one
_FULL_STRENGTH_RSI: Final = 20.0  # points of divergence with strength one
_LATE, _EARLY = 10, 30  # bars of the two compared extremes


def breakout(panel: ContiguousPanel) -> RuleReadings | None:
    """Rule: a close beyond the range of the 55 bars before it.

    Strength grows with the distance in ATR14, confidence with turnover relative to the 24 bars
    before (twice as much is 2/3). None with fewer than 56 bars; side 0 where one is missing.
    """
    if len(panel.close) <= CHANNEL:
        return None
    close, ranges = panel.close[-1], atr(panel.high, panel.low, panel.close)[-1]
    top = _aggregate(np.max, panel.high[-CHANNEL - 1 : -1])
    bottom = _aggregate(np.min, panel.low[-CHANNEL - 1 : -1])
    is_over, is_under = _is_above(close, top), _is_above(bottom, close)
    side = np.where(is_over, 1.0, np.where(is_under, -1.0, 0.0))
    beyond = np.where(side > 0.0, close - top, bottom - close) / _positive(ranges)
    ratio = panel.turnover[-1] / _positive(_aggregate(np.mean, panel.turnover[-DAY - 1 : -1]))
    return RuleReadings(
        side,
        _saturating(np.maximum(beyond, 0.0), _HALF_STRENGTH_ATR),
        _saturating(ratio, 1.0),
        {"beyond_atr": beyond, "turnover_ratio": ratio},
    )


def rsi_divergence(panel: ContiguousPanel) -> RuleReadings | None:
    """Rule: a lower low of price at a higher RSI, or the opposite; price turns at the last bar.

    The extreme of the last ten bars is compared with that of the twenty before. Strength grows
    with the RSI difference, confidence with the distance of the early RSI from 50 (38 is 0.7).
    None with fewer than 45 bars; side 0 and a NaN gap where one of the last thirty is missing.
    """
    if len(panel.close) <= _EARLY + 14:
        return None
    strength = rsi(panel.close)
    (up_gap, up_rsi), (down_gap, down_rsi) = (
        _divergence(panel.close, strength, sign) for sign in (1.0, -1.0)
    )
    up = up_gap > 0.0
    gap = np.where(up, up_gap, down_gap)
    early_rsi = np.where(up, up_rsi, down_rsi)
    side = np.where(up, 1.0, np.where(down_gap > 0.0, -1.0, 0.0))
    return RuleReadings(
        side,
        np.clip(gap / _FULL_STRENGTH_RSI, 0.0, 1.0),
        np.clip(0.5 + np.abs(early_rsi - 50.0) / 60.0, 0.0, 1.0),
        {"rsi_gap": gap, "rsi_before": early_rsi},
    )


def momentum(panel: ContiguousPanel) -> RuleReadings | None:
    """Rule: a day's move in units of its usual deviation, from a week of hourly returns.

    Confidence is the share of hours in the same direction. None with fewer than 193 bars; NaN
    where one is missing, or after a week without moves.
    """
    if len(panel.close) <= WEEK + DAY:
        return None
    steps = log_returns(panel)
    usual = _aggregate(np.std, steps[-WEEK - DAY : -DAY]) * np.sqrt(DAY)
    move = np.sum(steps[-DAY:], axis=0)
    side = np.sign(all_to_millionths(move))
    same = np.mean(np.sign(all_to_millionths(steps[-DAY:])) == side, axis=0)
    units = np.abs(move) / np.where(all_to_millionths(usual) > 0.0, usual, np.nan)
    return RuleReadings(
        side, _saturating(units, _HALF_STRENGTH_SD), same, {"units": units, "same_way": same}
    )


def volume_spike(panel: ContiguousPanel) -> RuleReadings | None:
    """Rule: a multiple of the median turnover of the week before, in one bar.

    The side is the direction of the bar; confidence is the nearness of the close to the bar's
    extreme on that side. None with fewer than 169 bars; NaN where a bar of the week is missing or
    the last one has no range.
    """
    if len(panel.close) <= WEEK:
        return None
    ratio = panel.turnover[-1] / _positive(_aggregate(np.median, panel.turnover[-WEEK - 1 : -1]))
    side = np.sign(all_to_millionths(panel.close[-1] / panel.open[-1]) - ONE)
    reach = _positive(panel.high[-1] - panel.low[-1])
    top = (panel.close[-1] - panel.low[-1]) / reach
    near = np.where(side > 0.0, top, 1.0 - top)
    return RuleReadings(
        side,
        _saturating(ratio, _HALF_STRENGTH_RATIO),
        near,
        {"turnover_ratio": ratio, "close_in_range": near},
    )


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "breakout": breakout,
        "rsi_divergence": rsi_divergence,
        "momentum": momentum,
        "volume_spike": volume_spike,
    }
)


def find_technical_signals(source_input: SourceInput) -> list[GeneratedSignal]:
    """Finds signals that are new with the last closed hour; none without bars."""
    hourly = source_input.hourly
    if hourly is None or not len(hourly.opened_ms):
        return []
    panel, _ = forward_fill(contiguous(hourly))
    closed = (int(panel.opened_ms[-1]) + panel.interval.ms) / 1000
    at = datetime.fromtimestamp(closed, UTC)
    with np.errstate(all="ignore"):
        return [
            signal
            for name, rule in RULES.items()
            for signal in find_new_signals(name, rule, panel, source_input.rules, at)
        ]


def _divergence(close: Floats, strength: Floats, sign: float) -> tuple[Floats, Floats]:
    """RSI of the late extreme less that of the early one toward `sign`, and the early RSI.

    The gap is NaN without a new extreme of price, or if price did not turn at the last bar.
    """
    closes = all_to_millionths(close[-_EARLY:] / close[-1])
    price = closes if sign > 0.0 else -closes
    early, late = price[:-_LATE], price[-_LATE:]
    known = np.isfinite(early).all(axis=0) & np.isfinite(late).all(axis=0)
    first = np.argmin(np.where(known, early, 0.0), axis=0)
    last = np.argmin(np.where(known, late, 0.0), axis=0)
    columns = np.arange(close.shape[1])
    early_rsi = strength[-_EARLY:-_LATE][first, columns]
    late_rsi = strength[-_LATE:][last, columns]
    lower = late[last, columns] < early[first, columns]
    turned = last == _LATE - 2  # the bar before the last one
    gap = sign * (late_rsi - early_rsi)
    is_oversold = sign * (50.0 * ONE - all_to_millionths(early_rsi)) > 0.0
    is_wider = all_to_millionths(gap) > 0.0
    return np.where(known & lower & turned & is_oversold & is_wider, gap, np.nan), early_rsi


def _aggregate(figure: np.ufunc | object, rows: Floats) -> Floats:
    """Aggregates along time; NaN where any bar is missing."""
    return np.asarray(figure(rows, axis=0), np.float64)  # type: ignore[operator]  # numpy's own stubs


def _is_above(price: Floats, other: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return all_to_millionths(price / other) > ONE


def _positive(values: Floats) -> Floats:
    return np.where(values > 0.0, values, np.nan)


def _saturating(values: Floats, half: float) -> Floats:
    """Maps 0..inf to 0..1, with 1/2 at `half`."""
    return values / (values + half)
