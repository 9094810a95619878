"""Bars on an integer tick grid, their exact split into finer bars, and the daily history."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.sandbox.history.universe import ListedContract

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

OPEN, HIGH, LOW, CLOSE = range(4)


@dataclass(frozen=True, slots=True)
class Bars:
    """Candles of many contracts: prices in ticks (..., 4: O H L C), volume in lots.

    `turnover` is in the quote coin (base coin when inverse), positive. A bar without lots is
    flat at the previous price and never published.
    """

    ticks: Ints
    lots: Ints
    turnover: Floats

    def take(self, rows: slice | int | Ints) -> "Bars":
        """The same bars restricted along the first axis."""
        return Bars(self.ticks[rows], self.lots[rows], self.turnover[rows])

    def upto(self, count: int) -> "Bars":
        """First `count` bars along the second axis."""
        return Bars(self.ticks[:, :count], self.lots[:, :count], self.turnover[:, :count])

    def since(self, start: int) -> "Bars":
        """Bars from `start` on along the second axis."""
        return Bars(self.ticks[:, start:], self.lots[:, start:], self.turnover[:, start:])

    def put(self, row: int, one: "Bars") -> None:
        """Replace the bars of one contract in place."""
        self.ticks[row], self.lots[row], self.turnover[row] = (
            one.ticks[0],
            one.lots[0],
            one.turnover[0],
        )

    def stop_trades(self, row: int, span: slice, ticks: int) -> None:
        """Make a contract not trade in a span, in place."""
        self.ticks[row, span], self.lots[row, span], self.turnover[row, span] = ticks, 0, 0.0


def concatenate_bars(parts: list[Bars]) -> Bars:
    """Concatenate bars along the second axis."""
    return Bars(
        np.concatenate([part.ticks for part in parts], axis=1),
        np.concatenate([part.lots for part in parts], axis=1),
        np.concatenate([part.turnover for part in parts], axis=1),
    )


def aggregate_bars(bars: Bars) -> Bars:
    """Aggregate the bars (at least one) along the second axis to one per contract."""
    ticks = np.empty((bars.ticks.shape[0], 4), np.int64)
    ticks[:, OPEN] = bars.ticks[:, 0, OPEN]
    ticks[:, HIGH] = bars.ticks[:, :, HIGH].max(axis=1)
    ticks[:, LOW] = bars.ticks[:, :, LOW].min(axis=1)
    ticks[:, CLOSE] = bars.ticks[:, -1, CLOSE]
    return Bars(ticks, bars.lots.sum(axis=1), bars.turnover.sum(axis=1))


def split_bars(parent: Bars, count: int, noise: Floats, season: Floats, quiet: Floats) -> Bars:
    """Split each parent bar (R) into `count` children (R, count) that aggregate to it exactly.

    `noise` (R, count, 2) standard normal, `season` (count,) share of activity, `quiet` (R,)
    probability of a child without trades. First open, highest high, lowest low, last close and
    the sum of lots equal the parent's; turnover adds up to rounding. Lots that are too few for
    all children leave some of them without trades.
    """
    rows = parent.lots.shape[0]
    live = _live(parent, count, noise[:, :, 1], quiet)
    walk = np.cumsum(noise[:, :, 0] * live, axis=1)
    steps = np.cumsum(live, axis=1)
    share = steps / np.maximum(steps[:, -1:], 1)
    first, high, low, last = (parent.ticks[:, k, None].astype(np.float64) for k in range(4))
    upper, lower = np.maximum(first, last), np.minimum(first, last)
    # Only the scale is free: excursions beyond open and close are stretched to 0.9 of the range.
    bridge = (walk - share * walk[:, -1:]) / np.sqrt(count)
    path = first + (last - first) * share + bridge * (high - low)
    above = np.maximum(path.max(axis=1, keepdims=True) - upper, 1e-9)
    below = np.maximum(lower - path.min(axis=1, keepdims=True), 1e-9)
    over, under = path - upper, lower - path
    path = np.where(over > 0, upper + over * np.minimum(0.9 * (high - upper) / above, 50.0), path)
    path = np.where(under > 0, lower - under * np.minimum(0.9 * (lower - low) / below, 50.0), path)
    closes = np.clip(np.rint(path), low, high).astype(np.int64)
    closes[:, -1] = parent.ticks[:, CLOSE]
    ticks = np.empty((rows, count, 4), np.int64)
    ticks[:, 0, OPEN] = parent.ticks[:, OPEN]
    ticks[:, 1:, OPEN] = closes[:, :-1]
    ticks[:, :, CLOSE] = closes
    tops = np.maximum(ticks[:, :, OPEN], closes)
    bottoms = np.minimum(ticks[:, :, OPEN], closes)
    wick = np.abs(noise[:, :, 1]) * (0.35 * np.mean(tops - bottoms, axis=1, keepdims=True)) * live
    wick = wick.astype(np.int64)
    ticks[:, :, HIGH] = np.minimum(tops + wick, parent.ticks[:, HIGH, None])
    ticks[:, :, LOW] = np.maximum(bottoms - wick[:, ::-1] * live, parent.ticks[:, LOW, None])
    index = np.arange(rows)
    ticks[index, np.where(live, ticks[:, :, HIGH], -1).argmax(axis=1), HIGH] = parent.ticks[:, HIGH]
    ceiling = np.iinfo(np.int64).max
    floor_at = np.where(live, ticks[:, :, LOW], ceiling).argmin(axis=1)
    ticks[index, floor_at, LOW] = parent.ticks[:, LOW]
    spare = parent.lots - live.sum(axis=1)
    weight = live * season * np.exp(0.45 * noise[:, ::-1, 1])
    weight *= 1.0 + 3.0 * np.abs(ticks[:, :, CLOSE] - ticks[:, :, OPEN]) / (high - low + 1.0)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
    edges = np.rint(np.cumsum(weight, axis=1) * np.maximum(spare, 0)[:, None]).astype(np.int64)
    edges[:, -1] = np.maximum(spare, 0)
    # Trailing quiet children may not receive the rounding remainder.
    edges = np.where(share >= 1.0, edges[:, -1:], edges)
    lots = np.diff(edges, axis=1, prepend=0) + live
    value = lots * ticks.sum(axis=2).astype(np.float64)
    total = value.sum(axis=1, keepdims=True)
    turnover = value / np.maximum(total, 1e-300) * parent.turnover[:, None]
    return Bars(ticks, lots, turnover)


def _live(parent: Bars, count: int, draw: Floats, quiet: Floats) -> Bools:
    """Returns which children trade: at most as many as there are lots, at least one if any."""
    live = np.broadcast_to((parent.lots > 0)[:, None], draw.shape).copy()
    scarce = np.flatnonzero((parent.lots < 3 * count) | (quiet > 0.0))
    if scarce.size:
        rank = draw[scarce].argsort(axis=1).argsort(axis=1)
        allowed = np.minimum(
            np.maximum(parent.lots[scarce] // 2, np.minimum(parent.lots[scarce], 1)),
            np.maximum(np.rint(count * (1.0 - quiet[scarce])), 1),
        )
        live[scarce] &= rank < allowed[:, None]
    return live


def within(bars: Bars, done: Floats) -> tuple[Bars, Ints]:
    """The part of each bar (R) that has traded, and how many equal trades that is.

    `done` (R,) is the fraction of the bar's time that has passed. A bar walks open, far
    extreme, near extreme, close; its lots come in at most 60 equal steps, and price moves only
    with a trade.
    """
    steps = np.minimum(bars.lots, 60)
    count = np.floor(done * steps + 1e-9).astype(np.int64)
    part = count / np.maximum(steps, 1)
    rising = bars.ticks[:, CLOSE] >= bars.ticks[:, OPEN]
    second = np.where(rising, bars.ticks[:, LOW], bars.ticks[:, HIGH])
    third = np.where(rising, bars.ticks[:, HIGH], bars.ticks[:, LOW])
    price = path_at(bars.ticks, part)
    reached = np.stack(
        [
            bars.ticks[:, OPEN],
            np.where(part >= 1 / 3, second, price),
            np.where(part >= 2 / 3, third, price),
            price,
        ],
        axis=1,
    )
    ticks = np.stack([bars.ticks[:, OPEN], reached.max(axis=1), reached.min(axis=1), price], axis=1)
    lots = np.floor(bars.lots * part + 1e-9).astype(np.int64)
    value = bars.turnover * lots / np.maximum(bars.lots, 1)
    return Bars(ticks, lots, value), count


def path_at(ticks: Ints, part: Floats) -> Ints:
    """Price in ticks of each bar (R, 4) at a fraction (R,) of its walk."""
    rising = ticks[:, CLOSE] >= ticks[:, OPEN]
    second = np.where(rising, ticks[:, LOW], ticks[:, HIGH])
    third = np.where(rising, ticks[:, HIGH], ticks[:, LOW])
    corner = np.stack([ticks[:, OPEN], second, third, ticks[:, CLOSE]], axis=1).astype(np.float64)
    leg = np.minimum((part * 3).astype(np.int64), 2)
    index = np.arange(ticks.shape[0])
    start, end = corner[index, leg], corner[index, leg + 1]
    answer: Ints = np.rint(start + (end - start) * (part * 3 - leg)).astype(np.int64)
    return answer


@dataclass(frozen=True, slots=True)
class DailyHistory:
    """Daily bars (N, D) of the listed contracts, past and future, and slow daily state.

    Day 0 opens at `first_day * 86400000`. `first_bar`, `last_bar` (N,) bound the trading days
    of a contract, both included. `premium` (N, D) is the perpetual's daily premium (fraction),
    known at the end of its day; `open_interest` (N, D) lots at the end of the day. `sway` (N,)
    is the share, 0..1, of an hour's move that follows the market. `start_ms` is the exchange
    time at the start. Market overrides may write to the arrays.
    """

    listings: tuple[ListedContract, ...]
    first_day: int
    start_ms: int
    daily: Bars
    premium: Floats
    open_interest: Floats
    first_bar: Ints
    last_bar: Ints
    sway: Floats

    @property
    def days(self) -> int:
        """Number of days."""
        return int(self.daily.lots.shape[1])
