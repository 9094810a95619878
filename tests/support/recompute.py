"""The demo's table a second time: scores and weights from stored data, in plain Python.

Written from the published formulas, one coin and one number at a time, with lists, `math` and
`statistics` only. It shares no code with the service, so that neither can hide the other's mistake.

`stored` is what a scoring run kept (see `app.scoring.services.replay`), with the candles added:

    symbols, as_of_ms, bid, ask, multiplier, books, funding, open_interest, ages_s, half_lives_s,
    daily and hourly ({"interval_ms", "first_ms", "bars"}),
    sectors: {symbol: sector},
    candles: {"daily": {symbol: [[opened_ms, open, high, low, close, volume, turnover], ...]},
              "hourly": {...}}
"""

import json
import math
import sqlite3
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from copy import copy
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

NORMAL = NormalDist()
DAY = 86_400_000
YEAR = 365 * DAY
MARKET = "BTCUSDT"
MICRO = 100_000_000  # 100 % in micro-percent
FAMILIES = {"technical": 0.15, "fundamental": 0.20, "market_structure": 0.25, "risk": 0.40}
Number = float | None
Row = Sequence[float]


def stdev(values: Sequence[float]) -> float:
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


class Coin:
    """One symbol's data; bars are None where there is no candle."""

    def __init__(self, stored: Mapping[str, Any], position: int) -> None:
        self.symbol: str = stored["symbols"][position]
        self.now: int = stored["as_of_ms"]
        bars = {kind: _bars(stored, kind, self.symbol) for kind in ("daily", "hourly")}
        self.coverage = {f"{kind}_candles": _coverage(rows) for kind, rows in bars.items()}
        since = {
            kind: _unbroken(rows, halt)
            for (kind, rows), halt in zip(bars.items(), (5, 24), strict=True)
        }
        self.days = sum(bar is not None for bar in since["daily"])
        self._since = since["daily"]  # before gaps are bridged
        self.daily, self.hourly = _bridged(self._since), _bridged(since["hourly"])
        self.moves = _moves([None if bar is None else bar[4] for bar in self.daily])
        self.bid: Number = stored["bid"][position]
        self.ask: Number = stored["ask"][position]
        self.multiplier: Number = stored["multiplier"][position]
        self.book: Mapping[str, Any] | None = stored["books"][position]
        self.funding: Sequence[tuple[int, str, int | None]] = stored["funding"][position]
        now, before = stored["open_interest"]
        self.interest: tuple[Number, Number] = (now[position], before[position])
        self.ages: dict[str, Number] = {
            source: ages[position] for source, ages in stored["ages_s"].items()
        }
        self.half_lives: Mapping[str, float] = stored["half_lives_s"]
        flow = stored.get("flow")
        self.flow: list[Number] = [None] * 4 if flow is None else [one[position] for one in flow]

    def before(self, days: int) -> "Coin":
        """The same coin so many days ago, of which only the daily bars are known."""
        past = copy(self)
        past.daily = _bridged(self._since[: len(self._since) - days])
        past.moves = _moves([None if bar is None else bar[4] for bar in past.daily])
        return past

    def closes(self, days: int) -> list[Number]:
        return [None if bar is None else bar[4] for bar in self.daily[-days:]]

    def returns(self, days: int | None = None) -> list[Number]:
        return self.moves[-min(days or len(self.moves), len(self.moves)) :] if self.moves else []

    def is_fresh(self, source: str) -> bool:
        age = self.ages[source]
        whole = self.coverage.get(source, 1.0) >= 0.95
        limit = round(self.half_lives[source] * 1_000_000)
        return whole and age is not None and round(age * 1_000_000) <= limit


def _moves(closes: Sequence[Number]) -> list[Number]:
    return [
        math.log(after / before) if before and after else None for before, after in pairwise(closes)
    ]


def _bars(stored: Mapping[str, Any], kind: str, symbol: str) -> list[Row | None]:
    window = stored[kind]
    by_time = {int(row[0]): row for row in stored["candles"][kind].get(symbol, ())}
    first, step = window["first_ms"], window["interval_ms"]
    return [by_time.get(first + place * step) for place in range(window["bars"])]


def _coverage(rows: Sequence[Row | None]) -> float:
    """Share of the bars since the first one."""
    since = next((place for place, bar in enumerate(rows) if bar is not None), len(rows))
    return sum(bar is not None for bar in rows) / max(1, len(rows) - since)


def _unbroken(rows: Sequence[Row | None], halt: int) -> list[Row | None]:
    """Without what lies before a halt or a redenomination; a bar that contains one goes, too."""
    out, last = list(rows), None
    for place, bar in enumerate(rows):
        if bar is None:
            continue
        if last is not None:
            before = rows[last]
            assert before is not None
            power = math.log10(bar[1] / before[4])
            renamed = round(power) != 0 and abs(power - round(power)) < 0.15
            if place - last - 1 > halt or renamed:
                out[:place] = [None] * place
        inside = math.log10(bar[4] / bar[1])
        mixed = round(inside) != 0 and abs(inside - round(inside)) < 0.15
        if mixed or abs(inside) > math.log10(50.0):
            out[: place + 1] = [None] * (place + 1)
        last = place
    return out


def _bridged(rows: Sequence[Row | None]) -> list[Row | None]:
    """Up to five bars that are missing in a row are flat, at the close before, without volume."""
    out = list(rows)
    known = [place for place, bar in enumerate(rows) if bar is not None]
    for before, after in pairwise(known):
        last = rows[before]
        if last is not None and 1 < after - before <= 6:
            for place in range(before + 1, after):
                out[place] = (0.0, *[last[4]] * 4, 0.0, 0.0)
    return out


# --- factors: each gives a number or None


def nearness_to_high(coin: Coin) -> Number:
    closes = coin.closes(60)
    known = [close for close in closes if close is not None]
    last = closes[-1] if closes[-1] is not None else closes[-2]
    return math.log(last / max(known)) if last is not None and len(known) >= 45 else None


def _own_hours(coin: Coin) -> list[Row] | None:
    """The coin's hourly bars: at least 250, one of them among the last three hours."""
    known = [bar for bar in coin.hourly if bar is not None]
    recent = any(bar is not None for bar in coin.hourly[-3:])
    return known if recent and len(known) >= 250 else None


def rsi(coin: Coin) -> Number:
    bars = _own_hours(coin)
    if bars is None:
        return None
    moves = [after[4] - before[4] for before, after in pairwise(bars)]
    up = fmean(max(move, 0.0) for move in moves[:14])
    down = fmean(max(-move, 0.0) for move in moves[:14])
    for move in moves[14:]:
        up = (up * 13 + max(move, 0.0)) / 14
        down = (down * 13 + max(-move, 0.0)) / 14
    return 100.0 * up / (up + down) if any(moves) else 50.0


def macd_histogram(coin: Coin) -> Number:
    bars = _own_hours(coin)
    if bars is None:
        return None
    closes = [bar[4] for bar in bars]
    if len(set(closes[-100:])) == 1:
        return None  # has not moved for 100 bars
    fast, slow = fmean(closes[14:26]), fmean(closes[:26])
    lines = [fast - slow]
    for close in closes[26:]:
        fast = fast * 11 / 13 + close * 2 / 13
        slow = slow * 25 / 27 + close * 2 / 27
        lines.append(fast - slow)
    signal = fmean(lines[:9])
    for line in lines[9:]:
        signal = signal * 0.8 + line * 0.2
    ranges = [max(bar[2], before[4]) - min(bar[3], before[4]) for before, bar in pairwise(bars)]
    reach = fmean(ranges[:14])
    for one in ranges[14:]:
        reach = (reach * 13 + one) / 14
    return (lines[-1] - signal) / reach if reach > 0 else None


def bollinger_position(coin: Coin) -> Number:
    bars = _own_hours(coin)
    if bars is None:
        return None
    closes = [bar[4] for bar in bars[-20:]]
    if len(set(closes)) == 1:
        return None  # has not moved for 20 bars
    middle = fmean(closes)
    sd = math.sqrt(fmean((close - middle) ** 2 for close in closes))
    return (closes[-1] - middle + 2 * sd) / (4 * sd) if sd > 0 else None


def _log_turnovers(coin: Coin, new: slice, least_new: int, old: slice, least_old: int) -> Number:
    def mean(part: slice, least: int) -> Number:
        known = [bar[6] for bar in coin.daily[part] if bar is not None]
        return fmean(known) if len(known) >= least else None

    above, below = mean(new, least_new), mean(old, least_old)
    return math.log(above / below) if above and below else None


def volume_trend(coin: Coin) -> Number:
    return _log_turnovers(coin, slice(-5, None), 4, slice(-30, None), 23)


def volume_growth(coin: Coin) -> Number:
    return _log_turnovers(coin, slice(-30, None), 23, slice(-90, -30), 45)


def _settled(coin: Coin, days: int) -> list[tuple[float, float]]:
    """(rate, hours) of the last `days`; nothing where they cover less than half of it."""
    since = coin.now - days * DAY
    paid = [
        (float(rate), length / 3_600_000)
        for stamp, rate, length in coin.funding
        if since < stamp <= coin.now and length
    ]
    return paid if sum(hours for _, hours in paid) >= days * 12 else []


def funding_rate(coin: Coin) -> Number:
    paid = _settled(coin, 3)
    return sum(r for r, _ in paid) / sum(h for _, h in paid) * 8760 if paid else None


def funding_stability(coin: Coin) -> Number:
    yearly = [rate * 8760 / hours for rate, hours in _settled(coin, 7)]
    return -stdev(yearly) if len(yearly) > 2 else None


def open_interest_change(coin: Coin) -> Number:
    now, before = coin.interest
    return math.log(now / before) if now and before else None


def spread(coin: Coin) -> Number:
    if coin.bid is None or coin.ask is None or not 0 < coin.bid < coin.ask:
        return None
    width = (coin.ask - coin.bid) / ((coin.ask + coin.bid) / 2) * 10_000
    return width if width <= 500 else None


def _sides(coin: Coin) -> tuple[float, list[tuple[float, float]], list[tuple[float, float]]] | None:
    """Mid, and (price, coins) of bids and asks; None for a book that says nothing."""
    if coin.book is None or not coin.multiplier:
        return None
    bids, asks = (
        [(float(price), lots * coin.multiplier) for price, lots in coin.book[side]]
        for side in ("bids", "asks")
    )
    if not bids or not asks or not 0 < bids[0][0] < asks[0][0]:
        return None
    mid = (bids[0][0] + asks[0][0]) / 2
    return (mid, bids, asks) if asks[0][0] - bids[0][0] <= 0.05 * mid else None


def depth(coin: Coin, band: float) -> Number:
    book = _sides(coin)
    if book is None:
        return None
    mid, *sides = book
    densities = []
    for side in sides:
        length = min(band, abs(side[-1][0] / mid - 1) * 10_000)  # bp of the band that it shows
        value = sum(price * coins for price, coins in side if abs(price / mid - 1) * 10_000 <= band)
        densities.append(value / length)
    return min(densities)


def impact(coin: Coin) -> Number:
    book = _sides(coin)
    if book is None:
        return None
    mid, *sides = book
    costs = []
    for side in sides:
        left, bought = 20_000.0, 0.0
        for price, coins in side:
            taken = min(left, price * coins)
            left, bought = left - taken, bought + taken / price
        costs.append(500.0 if left > 0 else abs(20_000.0 / bought - side[0][0]) / mid * 10_000)
    return min(round(max(costs), 9), 500.0)  # 0 where the best level is enough


def efficiency(coin: Coin) -> Number:
    moves: list[float] = []
    for move in reversed(coin.returns(60)):
        if move is None:
            break
        moves.insert(0, move)
    count, q = len(moves), 5
    if count < 45:
        return None
    mean = fmean(moves)
    one = sum((move - mean) ** 2 for move in moves) / (count - 1)
    five = sum((sum(moves[end - q : end]) - q * mean) ** 2 for end in range(q, count + 1))
    ratio = five / (q * (count - q + 1) * (1 - q / count)) / one if one > 0 else 0.0
    return -abs(math.log(ratio)) if ratio > 0 else None


def volatility(coin: Coin) -> Number:
    known = [move for move in coin.returns() if move is not None]
    if len(known) < 30:
        return None
    variance = known[0] ** 2
    for move in known[1:]:
        variance = 0.94 * variance + 0.06 * move**2
    return math.sqrt(variance * 365)


def range_volatility(coin: Coin) -> Number:
    known = [bar for bar in coin.daily[-30:] if bar is not None]
    if len(known) < 23:
        return None
    mean = fmean(
        0.5 * math.log(bar[2] / bar[3]) ** 2
        - (2 * math.log(2) - 1) * math.log(bar[4] / bar[1]) ** 2
        for bar in known
    )
    return math.sqrt(mean * 365) if mean >= 0 else None


def _with_market(coin: Coin, market: Coin | None, days: int) -> list[tuple[float, float]]:
    if market is None:
        return []
    pairs = zip(coin.returns(days), market.returns(days), strict=True)
    return [(own, base) for own, base in pairs if own is not None and base is not None]


def _moments(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float, float, float]:
    """Means, sums of squares and the sum of products about them."""
    x, y = fmean(own for own, _ in pairs), fmean(base for _, base in pairs)
    return (
        x,
        y,
        sum((own - x) ** 2 for own, _ in pairs),
        sum((base - y) ** 2 for _, base in pairs),
        sum((own - x) * (base - y) for own, base in pairs),
    )


def idiosyncratic_volatility(coin: Coin, market: Coin | None) -> Number:
    pairs = _with_market(coin, market, 60)
    if len(pairs) < 45:
        return None
    x, y, _, yy, xy = _moments(pairs)
    if yy <= 0:
        return None
    if coin.symbol == MARKET:
        return None  # nothing to be compared with
    rest = [own - x - xy / yy * (base - y) for own, base in pairs]
    return stdev(rest) * math.sqrt(365)


def btc_correlation(coin: Coin, market: Coin | None) -> Number:
    pairs = _with_market(coin, market, 60)
    if len(pairs) < 45:
        return None
    _, _, xx, yy, xy = _moments(pairs)
    if coin.symbol == MARKET:
        return None
    return max(-1.0, min(1.0, xy / math.sqrt(xx * yy))) if xx * yy > 0 else None


def highest_return(coin: Coin) -> Number:
    known = [move for move in coin.returns(30) if move is not None]
    return max(known) if len(known) >= 23 else None


def drawdown(coin: Coin) -> Number:
    known = [close for close in coin.closes(90) if close is not None]
    if len(known) < 68:
        return None
    peak, worst = known[0], 0.0
    for close in known:
        peak = max(peak, close)
        worst = min(worst, close / peak - 1)
    return worst


def signed_volume(coin: Coin) -> Number:
    bought, sold, _, _ = coin.flow
    if bought is None or sold is None or not bought + sold:
        return None
    return float(Fraction(bought - sold) / Fraction(bought + sold))


def trade_intensity(coin: Coin) -> Number:
    *_, hour, recent = coin.flow
    return math.log(6.0 * recent / hour) if hour and recent else None


def liquidity_risk(coin: Coin) -> Number:
    ratios = [
        abs(move) / bar[6]
        for move, bar in zip(coin.returns(30), coin.daily[-30:], strict=True)
        if move is not None and bar is not None and bar[6] > 0
    ]
    spread_of = stdev(ratios) if len(ratios) >= 23 else 0.0
    return math.log(spread_of) if spread_of > 0 else None


DAILY, HOURLY = ("daily_candles",), ("hourly_candles",)
BAR_S = {"daily_candles": 86_400, "hourly_candles": 3_600}  # age begins when the next bar is due
BOOK = ("books", "contracts")
# name, family, sign, weight within the family, sources, function of a coin and the market
TABLE: Sequence[tuple[str, str, int, float, Sequence[str], Callable[[Coin, Coin | None], Number]]]
TABLE = (
    ("nearness_to_high", "technical", 1, 0.78, DAILY, lambda c, _: nearness_to_high(c)),
    ("rsi", "technical", -1, 0.08, HOURLY, lambda c, _: rsi(c)),
    ("macd", "technical", -1, 0.06, HOURLY, lambda c, _: macd_histogram(c)),
    ("bollinger", "technical", -1, 0.08, HOURLY, lambda c, _: bollinger_position(c)),
    ("volume_trend", "technical", -1, 0.0, DAILY, lambda c, _: volume_trend(c)),
    ("signed_volume", "technical", 1, 0.0, ("tickers",), lambda c, _: signed_volume(c)),
    ("trade_intensity", "technical", 1, 0.0, ("tickers",), lambda c, _: trade_intensity(c)),
    ("volume_growth", "fundamental", -1, 0.50, DAILY, lambda c, _: volume_growth(c)),
    ("funding_rate", "fundamental", -1, 0.40, ("funding",), lambda c, _: funding_rate(c)),
    ("funding_stability", "fundamental", 1, 0.10, ("funding",), lambda c, _: funding_stability(c)),
    ("interest", "fundamental", -1, 0.0, ("contracts",), lambda c, _: open_interest_change(c)),
    ("spread", "market_structure", -1, 0.34, ("tickers",), lambda c, _: spread(c)),
    ("depth_25", "market_structure", 1, 0.33, BOOK, lambda c, _: depth(c, 25)),
    ("impact", "market_structure", -1, 0.33, BOOK, lambda c, _: impact(c)),
    ("efficiency", "market_structure", 1, 0.0, DAILY, lambda c, _: efficiency(c)),
    ("volatility", "risk", -1, 0.20, DAILY, lambda c, _: volatility(c)),
    ("range_volatility", "risk", -1, 0.10, DAILY, lambda c, _: range_volatility(c)),
    ("idiosyncratic", "risk", -1, 0.20, DAILY, idiosyncratic_volatility),
    ("highest_return", "risk", -1, 0.10, DAILY, lambda c, _: highest_return(c)),
    ("drawdown", "risk", 1, 0.10, DAILY, lambda c, _: drawdown(c)),
    ("btc_correlation", "risk", 1, 0.20, DAILY, btc_correlation),
    ("liquidity_risk", "risk", -1, 0.10, DAILY, lambda c, _: liquidity_risk(c)),
)  # fmt: skip


# --- scores


def to_normal(values: Mapping[str, Number], sign: int = 1) -> dict[str, float]:
    """Rank to normal among the known ones; fewer than ten have no ranks.

    Equal to twelve significant digits is equal: rounding errors must not break ties.
    """
    known = {
        symbol: float(f"{value:.12g}") for symbol, value in values.items() if value is not None
    }
    if len(known) < 10:
        return {}
    order = sorted(known.values())
    first: dict[float, int] = {}
    last: dict[float, int] = {}
    for place, value in enumerate(order, start=1):
        first.setdefault(value, place)
        last[value] = place
    return {
        symbol: sign * NORMAL.inv_cdf(((first[value] + last[value]) / 2 - 0.5) / len(known))
        for symbol, value in known.items()
    }


def scores(
    stored: Mapping[str, Any], weights: Mapping[str, float] = FAMILIES, steady_days: int = 0
) -> dict[str, tuple[float, float]]:
    """symbol -> (score 0..1, z after shrinking by confidence) of those that have one.

    `steady_days` are those that reliability looks back on; 0 is without it.
    """
    coins = [Coin(stored, place) for place in range(len(stored["symbols"]))]
    z, complete, final = standings(coins, weights, TABLE, lambda c, s: all(map(c.is_fresh, s)))
    steady = reliabilities(coins, weights, steady_days) if steady_days else {}
    out = {}
    for coin in coins:
        if coin.symbol in final and coin.coverage["daily_candles"] >= 0.8:
            trust = complete[coin.symbol] * _freshness(coin, z, weights) * _sample(coin)
            shrunk = trust * steady.get(coin.symbol, 1.0) * final[coin.symbol]
            out[coin.symbol] = (NORMAL.cdf(shrunk), shrunk)
    return out


def reliabilities(
    coins: Sequence[Coin], weights: Mapping[str, float], days: int
) -> dict[str, float]:
    """How steady the composite of daily candles was; without ten changes nobody knows."""
    table = [row for row in TABLE if row[4] == DAILY]
    told = {family: weights[family] for family in {row[1] for row in table if row[3] > 0}}
    shares = {family: weight / sum(told.values()) for family, weight in told.items()}
    past = [
        standings([coin.before(back) for coin in coins], shares, table, lambda *_: True)[2]
        for back in range(days, -1, -1)
    ]
    mean = fmean(past[-1].values())
    between = fmean((value - mean) ** 2 for value in past[-1].values())
    out = {}
    for coin in coins:
        line = [day.get(coin.symbol) for day in past]
        moves = [b - a for a, b in pairwise(line) if a is not None and b is not None]
        if len(moves) >= 10:
            out[coin.symbol] = between / (between + stdev(moves) ** 2 / 2)
    return out


def standings(
    coins: Sequence[Coin],
    weights: Mapping[str, float],
    table: Sequence[Any],
    is_usable: Callable[[Coin, Sequence[str]], bool],
) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, float]]:
    """z by factor and symbol, completeness by symbol, composite z by symbol."""
    market = next((coin for coin in coins if coin.symbol == MARKET), None)
    alone = {"idiosyncratic", "btc_correlation"}  # cannot apply to the market itself
    z: dict[str, dict[str, float]] = {}
    for name, _, sign, _, sources, function in table:
        raw = {
            coin.symbol: function(coin, market) if is_usable(coin, sources) else None
            for coin in coins
        }
        z[name] = to_normal(raw, sign)
    families: dict[str, dict[str, float]] = {}
    covered: dict[str, dict[str, float]] = {}
    for family in weights:
        rows = [(name, weight) for name, of, _, weight, _, _ in table if of == family]
        means: dict[str, Number] = {}
        covered[family] = {}
        for coin in coins:
            there = [(z[name][coin.symbol], w) for name, w in rows if coin.symbol in z[name]]
            own = [w for name, w in rows if not (coin.symbol == MARKET and name in alone)]
            share = sum(w for _, w in there) / sum(own)
            covered[family][coin.symbol] = share
            means[coin.symbol] = _scaled(there) if share > 0.499999 and there else None
        families[family] = to_normal(means)
    composite: dict[str, Number] = {}
    complete: dict[str, float] = {}
    for coin in coins:
        complete[coin.symbol] = sum(weights[f] * covered[f][coin.symbol] for f in weights)
        there = [
            (families[f][coin.symbol], w) for f, w in weights.items() if coin.symbol in families[f]
        ]
        enough = complete[coin.symbol] > 0.499999 and there
        composite[coin.symbol] = _scaled(there) if enough else None
    return z, complete, to_normal(composite)


def _scaled(terms: Sequence[tuple[float, float]]) -> float:
    """Weighted sum over the root of the squared weights; equal to twelve decimals is equal."""
    root = math.sqrt(sum(w * w for _, w in terms))
    return round(sum(value * weight for value, weight in terms) / root, 12)


def _freshness(
    coin: Coin, z: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> float:
    total = weighed = 0.0
    for name, family, _, weight, sources, _ in TABLE:
        if coin.symbol in z[name]:
            decay = fmean(
                2
                ** -(
                    max((coin.ages[source] or 0.0) - BAR_S.get(source, 0), 0.0)
                    / coin.half_lives[source]
                )
                for source in sources
            )
            total += weight * weights[family]
            weighed += weight * weights[family] * decay
    return weighed / total


def _sample(coin: Coin) -> float:
    return min(1.0, coin.days / (coin.days + 30) / (250 / 280))


# --- portfolio


def residual_correlation(one: Coin, other: Coin, market: Coin | None, days: int) -> Number:
    """Of what the market leaves of their last `days` returns; fewer than 30 common: unknown."""
    if market is None:
        return None
    left = []
    for coin in (one, other):
        pairs = _with_market(coin, market, days)
        if len(pairs) < 3:
            return None
        x, y, xx, yy, xy = _moments(pairs)
        slope = 0.0 if coin.symbol == MARKET else xy / yy
        rest = [
            None if own is None or base is None else own - x - slope * (base - y)
            for own, base in zip(coin.returns(days), market.returns(days), strict=True)
        ]
        if sum(value**2 for value in rest if value is not None) <= 1e-12 * xx:
            return None
        left.append(rest)
    common = [(a, b) for a, b in zip(*left, strict=True) if a is not None and b is not None]
    if len(common) < 30:
        return None
    _, _, xx, yy, xy = _moments(common)
    return xy / math.sqrt(xx * yy) if xx * yy > 0 else None


def project(raw_shares: Sequence[float], low: int = 5_000_000, high: int = 20_000_000) -> list[int]:
    """clip(a * s, low, high) with the sum 100 %, in whole micro-percent."""
    if len(raw_shares) * high <= MICRO:
        return [high] * len(raw_shares)
    left, right = 0.0, high / min(raw_shares)
    for _ in range(200):
        middle = (left + right) / 2
        total = sum(min(max(middle * one, low), high) for one in raw_shares)
        left, right = (middle, right) if total < MICRO else (left, middle)
    exact = [Fraction(min(max(right * one, low), high)) for one in raw_shares]
    whole = [math.floor(one) for one in exact]
    order = sorted(range(len(exact)), key=lambda place: (whole[place] - exact[place], place))
    for place in order[: MICRO - sum(whole)]:
        whole[place] += 1
    return whole


def recompute(
    stored: Mapping[str, Any],
    *,
    size: int = 10,
    enter: float = 0.6,
    limit: float = 0.7,
    days: int = 90,
    tilt: float = 0.5,
    crowd: int = 4,
    steady_days: int = 0,
) -> list[tuple[str, float, float]]:
    """(symbol, score, weight in per cent) of the initial portfolio, in rank order."""
    found = scores(stored, steady_days=steady_days)
    coins = {
        symbol: Coin(stored, place)
        for place, symbol in enumerate(stored["symbols"])
        if symbol in found
    }
    market = coins.get(MARKET)
    if market is None and MARKET in stored["symbols"]:
        market = Coin(stored, stored["symbols"].index(MARKET))
    chosen: list[str] = []
    sectors: Mapping[str, str] = stored.get("sectors", {})  # of those that no_fencing classified
    for symbol in sorted(found, key=lambda name: (-found[name][1], name)):
        if len(chosen) == size or found[symbol][0] < enter:
            break
        # The market leaves no residual of itself: its pairs block nothing.
        pairs = [
            (coins[symbol], coins[member]) for member in chosen if MARKET not in {symbol, member}
        ]
        known = [residual_correlation(*pair, market, days) for pair in pairs]
        own = sectors.get(symbol, "unclassified")
        alike = [name for name in chosen if sectors.get(name, "unclassified") == own]
        if len(alike) < crowd and all(rho is not None and rho <= limit for rho in known):
            chosen.append(symbol)
    names = sorted(chosen)
    raw_shares = [
        math.exp(tilt * found[name][1]) / (volatility(coins[name]) or 1.0) for name in names
    ]
    weights = dict(zip(names, project(raw_shares), strict=True)) if names else {}
    return [(name, found[name][0], weights[name] / 1_000_000) for name in chosen]


# --- reading a database of the service


def stored_in(path: Path, run_id: str | None = None) -> dict[str, Any]:
    """What the newest run (or `run_id`) of an SQLite file kept, with its candles."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        (packed,) = database.execute(
            "SELECT inputs FROM scoring_runs"
            " WHERE inputs IS NOT NULL AND coalesce(?, run_id) = run_id"
            " ORDER BY calculated_at DESC LIMIT 1",
            (run_id,),
        ).fetchone()
        stored: dict[str, Any] = json.loads(zlib.decompress(packed))
        stored["candles"] = {
            kind: {symbol: _rows(database, symbol, stored[kind]) for symbol in stored["symbols"]}
            for kind in ("daily", "hourly")
        }
        stored["sectors"] = sectors_in(database)
    return stored


def sectors_in(database: sqlite3.Connection) -> dict[str, str]:
    """What the database calls the sector of each symbol that has one."""
    rows = database.execute("SELECT symbol, sector FROM contracts WHERE sector <> 'unclassified'")
    return dict(rows.fetchall())


def _rows(database: sqlite3.Connection, symbol: str, window: Mapping[str, int]) -> list[Row]:
    step, first = window["interval_ms"], window["first_ms"]
    return database.execute(
        "SELECT opened_ms, open, high, low, close, volume, turnover FROM candles"
        " JOIN contracts ON contracts.id = candles.symbol_id"
        " WHERE symbol = ? AND interval_min = ? AND opened_ms BETWEEN ? AND ?",
        (symbol, step // 60_000, first, first + (window["bars"] - 1) * step),
    ).fetchall()


if __name__ == "__main__":
    for symbol, score, weight in recompute(stored_in(Path(sys.argv[1])), steady_days=30):
        sys.stdout.write(f"{symbol:16} {score:.4f} {weight:10.6f} %\n")
