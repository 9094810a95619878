"""Executed trades by minute and side: signed volume and intensity of the last hour."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from app.market.domain.models import Floats

MINUTE_MS: Final = 60_000
WINDOW_MINUTES: Final = 60
RECENT_MINUTES: Final = 10


class MinuteFlow(NamedTuple):
    """Lots and number of the trades of one minute, by the side of the taker."""

    minute: int  # since the epoch
    bought_lots: int
    sold_lots: int
    trades: int

    def plus(self, bought_lots: int, sold_lots: int, trades: int) -> "MinuteFlow":
        return MinuteFlow(
            self.minute,
            self.bought_lots + bought_lots,
            self.sold_lots + sold_lots,
            self.trades + trades,
        )


@dataclass(frozen=True, slots=True)
class TradeWindow:
    """Trades of one contract without a gap since `since_ms`; minutes without trades are absent.

    At most the last hour and the running minute are stored.
    """

    since_ms: int
    minutes: tuple[MinuteFlow, ...] = ()

    def with_trades(
        self, traded_ms: int, bought_lots: int, sold_lots: int, trades: int
    ) -> "TradeWindow":
        """Adds trades of which the newest is of `traded_ms`; all count in its minute."""
        minute = traded_ms // MINUTE_MS
        if self.minutes and minute <= self.minutes[-1].minute:
            last = self.minutes[-1].plus(bought_lots, sold_lots, trades)
            return replace(self, minutes=(*self.minutes[:-1], last))
        recent = (one for one in self.minutes if one.minute >= minute - WINDOW_MINUTES)
        return replace(self, minutes=(*recent, MinuteFlow(minute, bought_lots, sold_lots, trades)))

    def covers(self, as_of_ms: int) -> bool:
        """True if the whole minutes of the hour before `as_of_ms` have no gap."""
        return self.since_ms <= (as_of_ms // MINUTE_MS - WINDOW_MINUTES) * MINUTE_MS

    def total(self, as_of_ms: int, minutes: int) -> MinuteFlow:
        """Returns the sum over the last whole minutes before `as_of_ms`."""
        end = as_of_ms // MINUTE_MS
        sum_ = MinuteFlow(end, 0, 0, 0)
        for one in self.minutes:
            if end - minutes <= one.minute < end:
                sum_ = sum_.plus(one.bought_lots, one.sold_lots, one.trades)
        return sum_


@dataclass(frozen=True, slots=True, eq=False)
class TradeFlow:
    """Trades of N symbols, (N,) each; NaN for a symbol whose hour is not streamed as a whole."""

    bought_lots: Floats
    sold_lots: Floats
    trades: Floats
    recent_trades: Floats  # of the last ten minutes

    @property
    def columns(self) -> tuple[Floats, Floats, Floats, Floats]:
        """All arrays in the order of the fields."""
        return self.bought_lots, self.sold_lots, self.trades, self.recent_trades

    @classmethod
    def of(cls, windows: Sequence[TradeWindow | None], as_of_ms: int) -> "TradeFlow | None":
        """Returns the flow at `as_of_ms`; None if that of no symbol is known."""
        table = np.full((4, len(windows)), np.nan)
        for column, window in enumerate(windows):
            if window is None or not window.covers(as_of_ms):
                continue
            hour = window.total(as_of_ms, WINDOW_MINUTES)
            recent = window.total(as_of_ms, RECENT_MINUTES)
            table[:, column] = (hour.bought_lots, hour.sold_lots, hour.trades, recent.trades)
        return None if np.isnan(table).all() else cls(*table)
