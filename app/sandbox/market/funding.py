"""Funding rates: settled on the contract's grid, from the premium of closed days."""

import math

import numpy as np

from app.sandbox.history.bars import Floats
from app.sandbox.history.universe import DAY_MS, HOUR_MS, ListedContract
from app.sandbox.market.price_path import SimulatedMarket

DAILY_INTEREST = 0.0003
PREMIUMS_KEPT = 512


def granularity_ms(listing: ListedContract) -> int | None:
    """Current funding interval in ms; None on a dated future."""
    return None if listing.funding_hours is None else listing.funding_hours * HOUR_MS


def leverage(listing: ListedContract) -> int:
    """Maximum leverage, falling with the rank."""
    table = ((1, 125), (2, 100), (12, 75), (60, 50), (250, 30), (10_000, 20))
    most = next(value for rank, value in table if listing.rank <= rank)
    return min(most, 50) if listing.inverse else most


def margins(listing: ListedContract) -> tuple[float, float]:
    """Initial and maintenance margin of the first risk level, as fractions."""
    initial = {125: 0.008, 100: 0.01, 75: 0.014, 50: 0.02, 30: 0.034, 20: 0.05}[leverage(listing)]
    return initial, initial / 2.0


def cap(listing: ListedContract) -> float:
    """Maximum funding rate of one interval; the floor is its negative."""
    return round(margins(listing)[1] * 0.75, 6)


class FundingBook:
    """Rates by contract and settlement; an overridden rate applies from its time on."""

    def __init__(self, market: SimulatedMarket) -> None:
        self.market = market
        self._premiums: dict[int, Floats] = {}
        self._overrides: dict[int, tuple[int, float]] = {}
        self._changes: dict[int, tuple[int, int, int]] = {}
        rng = np.random.default_rng([market.seed, 4])
        self._noise = rng.normal(0.0, 2.0e-5, 8192)

    def change(self, row: int) -> tuple[int, int, int] | None:
        """Change of a contract's interval: time in ms, hours before and after."""
        return self._changes.get(row)

    def change_interval(self, row: int, now_ms: int, hours: int) -> int:
        """Change the interval from the next common settlement on; returns its time.

        ValueError for a contract without funding, an unknown interval, or a second change
        before the first takes effect.
        """
        before = self.step(row, now_ms)
        if before is None or hours not in (1, 2, 4, 8):
            raise ValueError("funding intervals are 1, 2, 4 or 8 hours; dated contracts have none")
        running = self._changes.get(row)
        if running is not None and now_ms < running[0]:
            raise ValueError("another change of the interval is pending")
        common = math.lcm(before, hours * HOUR_MS)
        since = (now_ms // common + 1) * common
        self._changes[row] = (since, before // HOUR_MS, hours)
        return since

    def step(self, row: int, at_ms: int) -> int | None:
        """Interval in ms at a time; None on a dated future."""
        change = self._changes.get(row)
        if change is None:
            return granularity_ms(self.market.history.listings[row])
        since, before, after = change
        return (after if at_ms >= since else before) * HOUR_MS

    def premium(self, now_ms: int) -> Floats:
        """Premium (N,) between the closes of the last two closed days, as a fraction."""
        known = self._premiums.get(now_ms)
        if known is not None:
            return known
        if len(self._premiums) >= PREMIUMS_KEPT:
            self._premiums.clear()
        history = self.market.history
        column = now_ms // DAY_MS - history.first_day
        part = now_ms % DAY_MS / DAY_MS
        last = min(max(column - 1, 0), history.days - 1)
        before = max(last - 1, 0)
        answer: Floats = history.premium[:, before] * (1 - part) + history.premium[:, last] * part
        self._premiums[now_ms] = answer
        return answer

    def override_rate(self, row: int, since_ms: int, rate: float) -> None:
        """Override the rate of every cycle that runs at `since_ms` or later."""
        step = self.step(row, since_ms) or DAY_MS
        self._overrides[row] = (since_ms // step * step, rate)

    def rate(self, row: int, start_ms: int) -> float:
        """Rate of the cycle that starts at `start_ms`, fraction per interval."""
        since, override = self._overrides.get(row, (start_ms + 1, 0.0))
        if start_ms >= since:
            return override
        listing = self.market.history.listings[row]
        hours = (self.step(row, start_ms) or 8 * HOUR_MS) / HOUR_MS
        premium = float(self.premium(start_ms)[row])
        premium += float(self._noise[(start_ms // HOUR_MS * 31 + row * 977) % 8192])
        rate = DAILY_INTEREST / 6.0 + premium
        bound = cap(listing)
        return round(float(np.clip(rate * hours / 8.0, -bound, bound)), 6)

    def settled(self, row: int, since: int, until: int, rows: int = 100) -> list[tuple[int, float]]:
        """Settlements (ms, rate) within the bounds, newest first, at most `rows`."""
        step = self.step(row, until)
        if step is None:
            return []
        first = max(since, self.market.history.listings[row].first_open_ms + step)
        first = max(first, (self.market.history.first_day + 2) * DAY_MS)
        newest = until // step * step
        answer: list[tuple[int, float]] = []
        while newest >= first and len(answer) < rows:
            # A settlement has the rate of the cycle before it, with the interval of that time.
            step = self.step(row, newest - 1) or step
            answer.append((newest, self.rate(row, newest - step)))
            newest -= step
        return answer
