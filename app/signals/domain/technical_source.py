"""Technical rules that generate signals from closed hourly bars."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import numpy as np

from app.foundation.decimal_math import ONE, all_to_millionths
from app.market.domain.models import Floats
from app.market.domain.panel import ContiguousPanel, contiguous, forward_fill, log_returns
from app.scoring.domain.indicators import atr, rsi
from app.signals.domain.sources import (
    GeneratedSignal,
    Rule,
    RuleReadings,
    SourceInput,
    find_new_signals,
)

TECHNICAL: Final = "technical"
CHANNEL: Final = 55  # bars whose range is left
DAY: Final = 24
WEEK: Final = 168
_HALF_STRONG_ATR: Final = 0.5  # beyond the channel: strength one half
_HALF_STRONG_SD: Final = 1.5  # of a day's move
_HALF_STRONG_RATIO: Final = 4.0  # of a bar's turnover to the usual one
_RSI_STRONG: Final = 20.0  # points of divergence: strength one
_LATE, _EARLY = 10, 30  # bars of the two extremes that are compared


def breakout(panel: ContiguousPanel) -> RuleReadings | None:
    """A close beyond the range of the 55 bars before it.

    Strong is what is far beyond, in ATR14; sure what has more turnover than the 24 bars before:
    twice as much is two thirds. None of fewer than 56 bars; side 0 where one of them is missing.
    """
    if len(panel.close) <= CHANNEL:
        return None
    close, ranges = panel.close[-1], atr(panel.high, panel.low, panel.close)[-1]
    top = _over(np.max, panel.high[-CHANNEL - 1 : -1])
    bottom = _over(np.min, panel.low[-CHANNEL - 1 : -1])
    is_over, is_under = _is_more(close, top), _is_more(bottom, close)
    side = np.where(is_over, 1.0, np.where(is_under, -1.0, 0.0))
    beyond = np.where(side > 0.0, close - top, bottom - close) / _positive(ranges)
    ratio = panel.turnover[-1] / _positive(_over(np.mean, panel.turnover[-DAY - 1 : -1]))
    return RuleReadings(
        side,
        _share(np.maximum(beyond, 0.0), _HALF_STRONG_ATR),
        _share(ratio, 1.0),
        {"beyond_atr": beyond, "turnover_ratio": ratio},
    )


def rsi_divergence(panel: ContiguousPanel) -> RuleReadings | None:
    """A lower low of price at a higher RSI, and the mirror of it; it turns with the last bar.

    The extreme of the last ten bars is compared with that of the twenty before. Strong is a large
    difference of RSI, sure what began sold out (38 is 0.7) or overbought. None of fewer than 45
    bars; side 0 and a gap of NaN where one of the last thirty is missing.
    """
    if len(panel.close) <= _EARLY + 14:
        return None
    strength = rsi(panel.close)
    found = [_divergence(panel.close, strength, sign) for sign in (1.0, -1.0)]
    up = found[0][0] > 0.0
    gap = np.where(up, found[0][0], found[1][0])
    began = np.where(up, found[0][1], found[1][1])
    side = np.where(up, 1.0, np.where(found[1][0] > 0.0, -1.0, 0.0))
    return RuleReadings(
        side,
        np.clip(gap / _RSI_STRONG, 0.0, 1.0),
        np.clip(0.5 + np.abs(began - 50.0) / 60.0, 0.0, 1.0),
        {"rsi_gap": gap, "rsi_before": began},
    )


def momentum(panel: ContiguousPanel) -> RuleReadings | None:
    """A day's move in units of what such a day usually moves, from a week of hourly returns.

    Sure is the share of the hours that went the same way. None of fewer than 193 bars; NaN where
    one of them is missing, or a week in which nothing moved.
    """
    if len(panel.close) <= WEEK + DAY:
        return None
    steps = log_returns(panel)
    usual = _over(np.std, steps[-WEEK - DAY : -DAY]) * np.sqrt(DAY)
    move = np.sum(steps[-DAY:], axis=0)
    side = np.sign(all_to_millionths(move))
    same = np.mean(np.sign(all_to_millionths(steps[-DAY:])) == side, axis=0)
    units = np.abs(move) / np.where(all_to_millionths(usual) > 0.0, usual, np.nan)
    return RuleReadings(
        side, _share(units, _HALF_STRONG_SD), same, {"units": units, "same_way": same}
    )


def volume_spike(panel: ContiguousPanel) -> RuleReadings | None:
    """Much more turnover in one bar than in the median one of the week before.

    It leans where the bar went; sure is how near its end the bar closed on that side. None of
    fewer than 169 bars; NaN where a bar of that week is missing or the last one has no range.
    """
    if len(panel.close) <= WEEK:
        return None
    ratio = panel.turnover[-1] / _positive(_over(np.median, panel.turnover[-WEEK - 1 : -1]))
    side = np.sign(all_to_millionths(panel.close[-1] / panel.open[-1]) - ONE)
    reach = _positive(panel.high[-1] - panel.low[-1])
    top = (panel.close[-1] - panel.low[-1]) / reach
    near = np.where(side > 0.0, top, 1.0 - top)
    return RuleReadings(
        side,
        _share(ratio, _HALF_STRONG_RATIO),
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


def find_technical_signals(seen: SourceInput) -> list[GeneratedSignal]:
    """Signals new with the last closed hour; none without bars."""
    if seen.hourly is None or not len(seen.hourly.opened_ms):
        return []
    panel, _ = forward_fill(contiguous(seen.hourly))
    closed = (int(panel.opened_ms[-1]) + panel.interval.ms) / 1000
    at = datetime.fromtimestamp(closed, UTC)
    with np.errstate(all="ignore"):
        return [
            idea
            for name, rule in RULES.items()
            for idea in find_new_signals(name, rule, panel, seen.rules, at)
        ]


def _divergence(close: Floats, strength: Floats, sign: float) -> tuple[Floats, Floats]:
    """RSI of the late extreme less that of the early one toward `sign`, and the early RSI.

    The gap is NaN where price has made no new extreme, or has not turned with the last bar.
    """
    closes = all_to_millionths(close[-_EARLY:] / close[-1])
    price = closes if sign > 0.0 else -closes
    early, late = price[:-_LATE], price[-_LATE:]
    known = np.isfinite(early).all(axis=0) & np.isfinite(late).all(axis=0)
    first = np.argmin(np.where(known, early, 0.0), axis=0)
    last = np.argmin(np.where(known, late, 0.0), axis=0)
    columns = np.arange(close.shape[1])
    began = strength[-_EARLY:-_LATE][first, columns]
    ended = strength[-_LATE:][last, columns]
    lower = late[last, columns] < early[first, columns]
    turned = last == _LATE - 2  # the bar before the last one
    gap = sign * (ended - began)
    sold_out = sign * (50.0 * ONE - all_to_millionths(began)) > 0.0
    is_wider = all_to_millionths(gap) > 0.0
    return np.where(known & lower & turned & sold_out & is_wider, gap, np.nan), began


def _over(figure: np.ufunc | object, rows: Floats) -> Floats:
    """Along time; NaN where any bar is missing."""
    return np.asarray(figure(rows, axis=0), np.float64)  # type: ignore[operator]  # numpy's own


def _is_more(price: Floats, other: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return all_to_millionths(price / other) > ONE


def _positive(values: Floats) -> Floats:
    return np.where(values > 0.0, values, np.nan)


def _share(values: Floats, half: float) -> Floats:
    """0..1, one half at `half`."""
    return values / (values + half)
