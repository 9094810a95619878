"""Daily history of the market, the source of all finer bars and quotes."""

from dataclasses import dataclass

from app.sandbox.history.bars import Bars, Floats, Ints
from app.sandbox.history.universe import ListedContract


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
