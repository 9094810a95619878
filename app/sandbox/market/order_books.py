"""Order books around the price path, their trades, and the changes of followed books."""

from dataclasses import dataclass, field

import numpy as np

from app.sandbox.history.bars import Floats, Ints, path_at
from app.sandbox.history.universe import HOUR_MS
from app.sandbox.market.price_path import HIGH, LOW, MINUTE_MS, InstantPrices, SimulatedMarket

Side = list[tuple[int, int]]
Sides = tuple[Side, Side]


@dataclass(frozen=True, slots=True)
class LevelChange:
    """New state of one level: price in ticks, absolute lots, 0 for a removed level."""

    sequence: int
    bid: bool
    ticks: int
    lots: int
    ms: int


@dataclass(slots=True)
class OrderBookDeltas:
    """Followed book: its levels at `at_ms`, its sequence, and unpublished changes."""

    row: int
    sequence: int
    at_ms: int
    sides: Sides
    unpublished: list[LevelChange] = field(default_factory=list)

    def advance(self, at_ms: int, sides: Sides) -> None:
        """Move to another state of the book and number each change."""
        before = [dict(side) for side in self.sides]
        after = [dict(side) for side in sides]
        # Removals come first, so that the book is never crossed in between.
        for side in (0, 1):
            for ticks in before[side].keys() - after[side].keys():
                self._note(side == 0, ticks, 0, at_ms)
        for side in (0, 1):
            for ticks, lots in sides[side]:
                if before[side].get(ticks) != lots:
                    self._note(side == 0, ticks, lots, at_ms)
        self.at_ms, self.sides = at_ms, sides

    def _note(self, bid: bool, ticks: int, lots: int, at_ms: int) -> None:
        self.sequence += 1
        self.unpublished.append(LevelChange(self.sequence, bid, ticks, lots, at_ms))

    def take(self) -> list[LevelChange]:
        """Return the unpublished changes and clear them."""
        changes, self.unpublished = self.unpublished, []
        return changes


TABLE = 1 << 16
# Real sequences lag about thirteen months behind epoch milliseconds; clients rely on the gap.
SEQUENCE_LAG = 35_000_000_000
FULL_DEPTH = 400


@dataclass(frozen=True, slots=True)
class Tops:
    """Best bid and ask (N,) in ticks with their sizes in lots, and the last taker's side."""

    bid: Ints
    ask: Ints
    bid_size: Ints
    ask_size: Ints
    buying: np.ndarray


@dataclass(frozen=True, slots=True)
class PublicTrade:
    """One trade of one contract."""

    ms: int
    ticks: int
    lots: int
    buying: bool


class OrderBooks:
    """Books that are a pure function of the price path, the second and the seed."""

    def __init__(self, market: SimulatedMarket) -> None:
        self.market = market
        rng = np.random.default_rng([market.seed, 5])
        self._uniform = rng.random(TABLE)
        self._normal = rng.normal(0.0, 1.0, TABLE)
        self.spread_factor = np.ones(market.size)
        self.depth_factor = np.ones(market.size)
        turnover = np.array([item.turnover for item in market.history.listings])
        self._spread_bp = 0.4 * (3.0e9 / turnover) ** 0.36
        self._level_usd = 75_000.0 * (turnover / 3.0e9) ** 0.55
        self._lot = np.array([item.lot for item in market.history.listings])
        self._inverse = np.array([item.inverse for item in market.history.listings])
        self._tops: tuple[int, InstantPrices, Tops] | None = None
        self._ahead: dict[int, int] = {}
        self.journals: dict[int, OrderBookDeltas] = {}
        self._halts: dict[int, tuple[int, int]] = {}
        self._still: dict[int, Sides] = {}

    def changed(self) -> None:
        """Drop cached books after a manual change of a factor."""
        self._tops = None

    def halt(self, row: int, from_ms: int, until_ms: int) -> None:
        """Freeze a book between two times."""
        self._halts[row] = (from_ms, until_ms)
        self._still[row] = self.ticks(row, from_ms - 1, FULL_DEPTH)
        self.changed()

    def halted(self, row: int, now_ms: int) -> bool:
        """True if a book is frozen now."""
        from_ms, until_ms = self._halts.get(row, (0, 0))
        return from_ms <= now_ms < until_ms

    def set_contract_size(self, row: int, lot: float) -> None:
        """Change the size of a lot."""
        self._lot[row] = lot
        self.changed()

    def sequence(self, row: int, now_ms: int) -> int:
        """Sequence of the book; it counts single changes while the book is followed."""
        journal = self.journals.get(row)
        if journal is not None:
            self._advance(journal, now_ms)
            return journal.sequence
        return self.market.clamp(now_ms) - SEQUENCE_LAG + row + self._ahead.get(row, 0)

    def follow(self, row: int, now_ms: int) -> OrderBookDeltas:
        """Start to record the changes of a book."""
        if row not in self.journals:
            sides = self.ticks(row, now_ms, FULL_DEPTH)
            at_ms = self.market.clamp(now_ms)
            self.journals[row] = OrderBookDeltas(row, self.sequence(row, now_ms), at_ms, sides)
        return self.journals[row]

    def unfollow(self, row: int, now_ms: int) -> None:
        """Stop recording; sequences continue from there, never back."""
        journal = self.journals.pop(row, None)
        if journal is not None:
            self._ahead.pop(row, None)
            self._ahead[row] = max(0, journal.sequence - self.sequence(row, now_ms))

    def _advance(self, journal: OrderBookDeltas, now_ms: int) -> None:
        at_ms = self.market.clamp(now_ms)
        if at_ms != journal.at_ms:
            journal.advance(at_ms, self.ticks(journal.row, now_ms, FULL_DEPTH))

    def _pick(self, rows: Ints | int, second: int, key: Ints | int) -> Ints:
        mixed = np.asarray(rows) * 40_503 + second * 7_919 + np.asarray(key) * 9_973
        answer: Ints = (mixed ^ (mixed >> 7)) % TABLE
        return answer

    def half_gap(self, now_ms: int) -> Floats:
        """Quoted spread (N,) in ticks, at least one."""
        moment = self.market.moment(now_ms)
        today = moment.rolling.ticks[:, HIGH] / moment.rolling.ticks[:, LOW] - 1.0
        stress = np.sqrt(np.clip(today / self.market.usual_range, 0.3, 6.0))
        rows = np.arange(self.market.size)
        wobble = 0.75 + 0.5 * self._uniform[self._pick(rows, now_ms // 1000, 1)]
        width = self._spread_bp * self.spread_factor * stress * wobble * 1e-4 * moment.last
        answer: Floats = np.maximum(np.rint(width), 1.0)
        return answer

    def tops(self, now_ms: int) -> Tops:
        """Best bid and ask of every contract: the last trade was at one of them."""
        now_ms = self.market.clamp(now_ms)
        moment = self.market.moment(now_ms)
        if self._tops is not None and self._tops[0] == now_ms and self._tops[1] is moment:
            return self._tops[2]
        spread = self.half_gap(now_ms).astype(np.int64)
        rows = np.arange(self.market.size)
        buying = moment.trade.buying
        ask = np.where(buying, moment.last, moment.last + spread)
        bid = np.maximum(np.where(buying, moment.last - spread, moment.last), 1)
        ask = np.maximum(ask, bid + 1)
        sizes = [self._size(rows, now_ms, side, 0) for side in (0, 1)]
        for row, (bids, asks) in self._still.items():
            if self.halted(row, now_ms):
                bid[row], sizes[0][row] = bids[0]
                ask[row], sizes[1][row] = asks[0]
        tops = Tops(bid, ask, sizes[0], sizes[1], buying)
        self._tops = (now_ms, moment, tops)
        return tops

    def _size(self, rows: Ints | int, now_ms: int, side: int, level: Ints | int) -> Ints:
        """Lots at a level of a side: log-normal, more further away."""
        market = self.market
        price = market.moment(now_ms).last[rows] / market.scale[rows]
        noise = self._normal[self._pick(rows, now_ms // 1000, 11 + side + 2 * np.asarray(level))]
        usd = self._level_usd[rows] * self.depth_factor[rows]
        usd = usd * (1.0 + 0.07 * np.asarray(level)) * np.exp(0.6 * noise)
        lots: Ints = np.maximum(
            np.rint(usd / np.where(self._inverse[rows], self._lot[rows], self._lot[rows] * price)),
            1.0,
        )
        return lots.astype(np.int64)

    def ticks(self, row: int, now_ms: int, depth: int) -> Sides:
        """Bids (high to low) and asks (low to high) of one contract as (ticks, lots)."""
        now_ms = self.market.clamp(now_ms)
        if self.halted(row, now_ms):
            bids, asks = self._still[row]
            return bids[:depth], asks[:depth]
        tops = self.tops(now_ms)
        last = float(self.market.moment(now_ms).last[row])
        step = max(1.0, 0.6 * self._spread_bp[row] * self.spread_factor[row] * 1e-4 * last)
        index = np.arange(depth)
        sides = []
        for side, best, sign in ((0, int(tops.bid[row]), -1), (1, int(tops.ask[row]), 1)):
            gaps = self._uniform[self._pick(row, now_ms // 1000, 301 + side + 2 * index)]
            gap = np.maximum(1, np.rint(step * (0.4 + 1.2 * gaps) * (1.0 + 0.01 * index)))
            gap[0] = 0
            ticks = best + sign * np.cumsum(gap).astype(np.int64)
            keep = ticks > 0
            lots = self._size(row, now_ms, side, index)
            sides.append(list(zip(ticks[keep].tolist(), lots[keep].tolist(), strict=True)))
        return sides[0], sides[1]

    def levels(self, row: int, now_ms: int, depth: int) -> tuple[list[list[float]], ...]:
        """Bids (high to low) and asks (low to high) of one contract as [price, lots]."""
        scale = float(self.market.scale[row])
        return tuple(
            [[ticks / scale, lots] for ticks, lots in side]
            for side in self.ticks(row, now_ms, depth)
        )

    def trades(self, row: int, now_ms: int, count: int = 100) -> list[PublicTrade]:
        """Last trades of one contract, newest first, from at most two days."""
        now_ms = self.market.clamp(now_ms)
        answer: list[PublicTrade] = []
        minute = now_ms // MINUTE_MS
        done = int(self.market.running(now_ms)[1][row])
        oldest = minute - 2 * 24 * 60
        while len(answer) < count and minute > oldest:
            block = self.market.minutes(minute * MINUTE_MS // HOUR_MS)
            lots = int(block.lots[row, minute % 60])
            steps = min(lots, 60)
            taken = done if minute == now_ms // MINUTE_MS else steps
            if taken:
                part = np.arange(1, taken + 1) / steps
                ticks = path_at(np.repeat(block.ticks[row, None, minute % 60], taken, 0), part)
                filled = np.diff(np.floor(lots * part + 1e-9).astype(np.int64), prepend=0)
                for k in range(taken - 1, -1, -1):
                    before = int(ticks[k - 1]) if k else int(block.ticks[row, minute % 60, 0])
                    ms = minute * MINUTE_MS + (k + 1) * MINUTE_MS // steps - 1
                    buying = int(ticks[k]) >= before
                    answer.append(PublicTrade(ms, int(ticks[k]), int(filled[k]), buying))
            minute -= 1
        return answer[:count]
