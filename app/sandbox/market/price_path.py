"""Price path of every contract at any time, the source of all quotes."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from app.sandbox.history.bars import (
    CLOSE,
    HIGH,
    LOW,
    OPEN,
    Bars,
    Bools,
    DailyHistory,
    Floats,
    Ints,
    aggregate_bars,
    concatenate_bars,
    path_at,
    split_bars,
    within,
)
from app.sandbox.history.universe import DAY_MS, HOUR_MS

MINUTE_MS = 60_000
MINUTE_BLOCKS = 60
# Requests within a quarter second see the same market and share its computation.
QUOTE_MS = 250
LAST_TRADE_DAYS = 30
ROWS_AT_ONCE = 1_000  # daily bars split in one call
# Share of a day's activity per UTC hour: quiet after midnight, busy when New York opens.
HOUR_SEASON = np.array(
    [
        *(0.9, 0.9, 0.85, 0.8, 0.75, 0.7, 0.75, 0.85, 0.95, 0.95, 0.9, 0.95),
        *(1.1, 1.3, 1.6, 1.6, 1.45, 1.25, 1.1, 1.0, 0.95, 0.9, 0.9, 0.9),
    ]
)


@dataclass(frozen=True, slots=True)
class LastTrade:
    """Last trade of each contract (N,): time in ms, lots, and whether the taker bought."""

    ms: Ints
    lots: Ints
    buying: Bools


@dataclass(frozen=True, slots=True)
class InstantPrices:
    """All quotable values at one instant, per contract (N,); prices in ticks.

    `hour` and `day` are the running candles, `rolling` the last 24 hours.
    """

    now_ms: int
    last: Ints
    hour: Bars
    day: Bars
    rolling: Bars
    trade: LastTrade


class SimulatedMarket:
    """Price path of a history; hours and minutes are generated at their first use."""

    def __init__(self, history: DailyHistory, seed: int) -> None:
        self.history = history
        self.seed = seed
        self._hours: dict[int, Bars] = {}
        self._minutes: OrderedDict[int, Bars] = OrderedDict()
        self._pinned: set[int] = set()
        self._moment: InstantPrices | None = None
        self._earlier: dict[tuple[int, int], tuple[int, int, bool]] = {}
        self._digits = np.array([item.tick_digits for item in history.listings])
        self.scale: Floats = 10.0**self._digits
        self.quiet = np.array(
            [max(0.0, min(0.9, 0.35 * (4e5 / item.turnover) - 0.2)) for item in history.listings]
        )
        daily_range = history.daily.ticks[:, :, HIGH] / history.daily.ticks[:, :, LOW] - 1.0
        self.usual_range: Floats = np.maximum(np.median(daily_range, axis=1), 1e-6)
        self.end_ms = (history.first_day + history.days) * DAY_MS

    @property
    def size(self) -> int:
        """Number of contracts."""
        return len(self.history.listings)

    def clamp(self, now_ms: int) -> int:
        """Instant whose prices apply: quarters of a second, within the known days."""
        return min(now_ms - now_ms % QUOTE_MS, self.end_ms - QUOTE_MS)

    def hours(self, day: int) -> Bars:
        """The 24 hourly bars (N, 24) of epoch day `day`, which aggregate to its daily bar."""
        if day not in self._hours:
            self._make_hours(day)
        return self._hours[day]

    def _make_hours(self, day: int) -> None:
        """Generate the hours of a day and its neighbours: few contracts cost as much as many.

        Days after the latest generated one are left out, because they may still be changed.
        """
        span = max(1, ROWS_AT_ONCE // self.size)
        last = max(self._hours, default=day)
        first = day if day < last else max(day - span + 1, self.history.first_day)
        around = range(first, max(min(first + span, last), day + 1))
        days = [one for one in around if one not in self._hours]
        bars = self._split_days(days, slice(None))
        for place, one in enumerate(days):
            self._hours[one] = bars.take(slice(place * self.size, (place + 1) * self.size))

    def _split_days(self, days: list[int], rows: slice) -> Bars:
        """Hourly bars of the contracts `rows` on each of the days, one day after another."""
        history = self.history
        sway = history.sway[:, None]
        noises = []
        for day in days:
            rng = np.random.default_rng([self.seed, 2, day])
            noise = rng.normal(0.0, 1.0, (self.size, 24, 2))
            shared = rng.normal(0.0, 1.0, 24)
            noise[:, :, 0] = sway * shared + np.sqrt(1.0 - sway**2) * noise[:, :, 0]
            noises.append(noise[rows])
        columns = [day - history.first_day for day in days]
        daily = history.daily.take(rows)
        parents = Bars(
            daily.ticks[:, columns].swapaxes(0, 1).reshape(-1, 4),
            daily.lots[:, columns].T.ravel(),
            daily.turnover[:, columns].T.ravel(),
        )
        quiet = np.tile(np.maximum(0.0, self.quiet[rows] - 0.7), len(days))
        return split_bars(parents, 24, np.concatenate(noises), HOUR_SEASON, quiet)

    def regenerate(self, row: int) -> None:
        """Generate a contract's hours and minutes again after a change of its days."""
        rows = slice(row, row + 1)
        for day, block in self._hours.items():
            block.put(row, self._split_days([day], rows))
        for hour, block in self._minutes.items():
            block.put(row, self._split_hour(hour, rows))
        self._moment = None

    def minutes(self, hour: int) -> Bars:
        """The 60 one-minute bars (N, 60) of epoch hour `hour`."""
        block = self._minutes.get(hour)
        if block is not None:
            self._minutes.move_to_end(hour)
            return block
        block = self._minutes[hour] = self._split_hour(hour, slice(None))
        for old in list(self._minutes):
            if len(self._minutes) <= MINUTE_BLOCKS:
                break
            if old not in self._pinned:
                del self._minutes[old]
        return block

    def _split_hour(self, hour: int, rows: slice) -> Bars:
        rng = np.random.default_rng([self.seed, 3, hour])
        noise = rng.normal(0.0, 1.0, (self.size, 60, 2))
        parents = self.hours(hour // 24)
        parent = Bars(
            parents.ticks[rows, hour % 24],
            parents.lots[rows, hour % 24],
            parents.turnover[rows, hour % 24],
        )
        return split_bars(parent, 60, noise[rows], np.ones(60), self.quiet[rows])

    def running(self, now_ms: int) -> tuple[Bars, Ints]:
        """The running minute up to now (N,) and how many trades it had."""
        now_ms = self.clamp(now_ms)
        block = self.minutes(now_ms // HOUR_MS)
        minute = now_ms // MINUTE_MS % 60
        bar = Bars(block.ticks[:, minute], block.lots[:, minute], block.turnover[:, minute])
        # A trade stands at the last millisecond of its share of the minute.
        done = np.full(self.size, (now_ms % MINUTE_MS + 1) / MINUTE_MS)
        return within(bar, done)

    def moment(self, now_ms: int) -> InstantPrices:
        """The state of the whole market at an instant."""
        now_ms = self.clamp(now_ms)
        if self._moment is not None and self._moment.now_ms == now_ms:
            return self._moment
        hour, minute = now_ms // HOUR_MS, now_ms // MINUTE_MS % 60
        this, trades = self.running(now_ms)
        block = self.minutes(hour)
        lone = Bars(this.ticks[:, None], this.lots[:, None], this.turnover[:, None])
        so_far = aggregate_bars(concatenate_bars([block.upto(minute), lone]) if minute else lone)
        hour_bar = Bars(so_far.ticks[:, None], so_far.lots[:, None], so_far.turnover[:, None])
        today = self.hours(hour // 24)
        day = aggregate_bars(concatenate_bars([today.upto(hour % 24), hour_bar]))
        tail = self.minutes(hour - 24).since(minute)
        before = self.hours(hour // 24 - 1).since(hour % 24 + 1)
        rolling = aggregate_bars(concatenate_bars([tail, before, today.upto(hour % 24), hour_bar]))
        self._moment = InstantPrices(
            now_ms=now_ms,
            last=this.ticks[:, CLOSE],
            hour=so_far,
            day=day,
            rolling=rolling,
            trade=self._last_trades(now_ms, trades),
        )
        return self._moment

    def _last_trades(self, now_ms: int, trades: Ints) -> LastTrade:
        """The last trade of each contract."""
        hour, minute = now_ms // HOUR_MS, now_ms // MINUTE_MS % 60
        bars = concatenate_bars([self.minutes(hour - 1), self.minutes(hour).upto(minute + 1)])
        traded = bars.lots > 0
        traded[:, -1] = trades > 0
        column = bars.lots.shape[1] - 1 - traded[:, ::-1].argmax(axis=1)
        rows = np.arange(self.size)
        lots, ticks = bars.lots[rows, column], bars.ticks[rows, column]
        steps = np.maximum(np.minimum(lots, 60), 1)
        current = column == bars.lots.shape[1] - 1
        count = np.where(current, np.maximum(trades, 1), steps)
        filled = np.floor(lots * (count / steps) + 1e-9) - np.floor(
            lots * ((count - 1) / steps) + 1e-9
        )
        start = (hour - 1) * HOUR_MS + column * MINUTE_MS
        before = path_at(ticks, (count - 1) / steps)
        trade = LastTrade(
            ms=start + count * MINUTE_MS // steps - 1,
            lots=np.maximum(filled, 1).astype(np.int64),
            buying=path_at(ticks, count / steps) >= before,
        )
        for row in np.flatnonzero(~traded.any(axis=1)).tolist():
            trade.ms[row], trade.lots[row], trade.buying[row] = self._earlier_trade(row, hour - 1)
        return trade

    def _earlier_trade(self, row: int, before_hour: int) -> tuple[int, int, bool]:
        """Time, lots and side of a contract's last trade before an hour, of its last month.

        Without any, a lot at the beginning of the search: the exchange always names a trade.
        """
        known = self._earlier.get((row, before_hour))
        if known is not None:
            return known
        last_day = (before_hour - 1) // 24
        first = self.history.first_day + int(self.history.first_bar[row])
        answer = (max(first, last_day - LAST_TRADE_DAYS) * DAY_MS, 1, True)
        for day in range(last_day, max(first, last_day - LAST_TRADE_DAYS) - 1, -1):
            traded = np.flatnonzero(self.hours(day).lots[row, : before_hour - day * 24])
            if traded.size:
                hour = day * 24 + int(traded[-1])
                bars = self.minutes(hour).take(slice(row, row + 1))
                minute = int(np.flatnonzero(bars.lots[0])[-1])
                lots = int(bars.lots[0, minute])
                share = (min(lots, 60) - 1) / min(lots, 60)
                ticks = bars.ticks[:, minute]
                buying = int(ticks[0, CLOSE]) >= int(path_at(ticks, np.array([share]))[0])
                ms = hour * HOUR_MS + (minute + 1) * MINUTE_MS - 1
                answer = (ms, lots - int(lots * share + 1e-9), buying)
                break
        if len(self._earlier) > 10_000:
            self._earlier.clear()
        self._earlier[row, before_hour] = answer
        return answer

    def price(self, row: int, ticks: int) -> float:
        """A price from ticks: the float nearest to the decimal."""
        return ticks / 10.0 ** int(self._digits[row])

    def prices(self, ticks: Ints) -> Floats:
        """Prices (N,) from ticks (N,)."""
        return ticks / self.scale

    def cached_hours(self, day: int) -> Bars | None:
        """Hours of a day if they were generated already."""
        return self._hours.get(day)

    def cached_minutes(self, hour: int) -> Bars | None:
        """Minutes of an hour if they were generated already."""
        return self._minutes.get(hour)

    def forget(self, day: int) -> None:
        """Drop the values derived from a past day after a change of its daily bar."""
        self._hours.pop(day, None)
        for hour in range(day * 24, day * 24 + 24):
            self._minutes.pop(hour, None)
        self._moment = None

    def forget_minutes(self, hour: int) -> None:
        """Drop the minutes of an hour whose bar was changed."""
        self._minutes.pop(hour, None)

    def changed(self) -> None:
        """Drop cached quotes after a manual change of the path."""
        self._moment = None
        self._earlier.clear()

    def pin(self, hour: int) -> None:
        """Keep this hour's minutes after a manual change."""
        self.minutes(hour)
        self._pinned.add(hour)
        self._moment = None


__all__ = ["CLOSE", "HIGH", "LOW", "MINUTE_MS", "OPEN", "InstantPrices", "SimulatedMarket"]
