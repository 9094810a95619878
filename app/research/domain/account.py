"""Simulated accounts: units of listings and cash, traded at opens and valued at closes.

Arrays are (D, N): D accounts side by side, one column per listing.
"""

from dataclasses import dataclass, field

import numpy as np

from app.market.domain.models import Floats
from app.research.domain.history import CandleHistory


@dataclass(slots=True, eq=False)
class Accounts:
    """D accounts over one history, each beginning with `start` in cash.

    A trade pays `cost` of its value. A listing that has ended is paid out at its last close. Known
    funding is paid on the value at the close; `unknown_funding` counts positions without a rate.
    """

    history: CandleHistory
    start: float
    cost: float
    count: int = 1
    units: Floats = field(init=False)
    cash: Floats = field(init=False)
    traded: Floats = field(init=False)  # (D,) sum of traded values as fractions of equity
    paid: Floats = field(init=False)  # (D,) costs
    funding: Floats = field(init=False)  # (D,) paid, net
    unknown_funding: int = field(default=0, init=False)
    known_funding: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        columns = len(self.history.symbols)
        self.units = np.zeros((self.count, columns))
        self.cash = np.full(self.count, self.start)
        self.traded, self.paid, self.funding = (np.zeros(self.count) for _ in range(3))

    def value(self, prices: Floats) -> Floats:
        """Returns (D,) equity at prices (N,); a listing that is not owned needs no price."""
        owned = np.where(self.units != 0.0, self.units * prices, 0.0).sum(axis=1)
        return np.asarray(self.cash + owned, np.float64)

    def weights(self, prices: Floats) -> Floats:
        """Returns (D, N) shares of equity at prices (N,)."""
        owned = np.where(self.units != 0.0, self.units * prices, 0.0)
        return np.asarray(owned / self.value(prices)[:, None], np.float64)

    def trade(self, row: int, targets: Floats) -> Floats:
        """Trades at the open of `row` towards targets (D, N), fractions of equity.

        NaN leaves a position alone. Returns the targets that could not be traded: the listing has
        no bar now and has not ended. One that has ended is paid out without cost.
        """
        history = self.history
        opened = history.panel.open[row]
        has_bar = np.isfinite(opened)
        ended = history.has_ended(row)
        prices = np.where(has_bar, opened, history.carried[row])
        if ended.any():
            gone = np.where(ended, self.units, 0.0)
            self.cash += np.where(gone != 0.0, gone * prices, 0.0).sum(axis=1)
            self.units = np.where(ended, 0.0, self.units)
        equity = self.value(prices)[:, None]
        wanted = np.isfinite(targets) & has_bar
        owned = np.where(self.units != 0.0, self.units * prices, 0.0)
        moved = np.where(wanted, np.abs(np.where(wanted, targets, 0.0) * equity - owned), 0.0)
        costs = moved.sum(axis=1) * self.cost
        # Costs leave less equity to distribute.
        after = equity - costs[:, None]
        change = np.where(wanted, np.where(wanted, targets, 0.0) * after - owned, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.units = self.units + np.where(wanted, change / prices, 0.0)
        self.cash = self.cash - change.sum(axis=1) - costs
        self.traded += np.abs(change).sum(axis=1) / after[:, 0]
        self.paid += costs
        return np.where(np.isfinite(targets) & ~has_bar & ~ended, targets, np.nan)

    def settle_funding(self, row: int) -> None:
        """Pays the funding of the bar on the value at its close."""
        close, rates = self.history.panel.close[row], self.history.funding[row]
        owned = (self.units != 0.0) & np.isfinite(close)
        known = owned & np.isfinite(rates)
        self.known_funding += int(known.sum())
        self.unknown_funding += int((owned & ~known).sum())
        with np.errstate(invalid="ignore"):
            due = np.where(known, self.units * close * rates, 0.0).sum(axis=1)
        self.cash -= due
        self.funding += due
