"""Panels: one (T, N) array per field on a shared time axis, and everything that a scoring reads."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.configuration.domain.sections import Source
from app.foundation.decimal_math import EXACT, all_to_millionths, to_millionths
from app.market.domain.models import (
    Book,
    CandleSeries,
    Floats,
    Funding,
    Interval,
    Ints,
    LotChange,
)

Bools = NDArray[np.bool_]

FIELDS: Final = ("open", "high", "low", "close", "volume", "turnover")
LONGEST_BRIDGE: Final = 5  # bars in a row that nobody traded in
NO_QUOTE: Final = "ticker"  # the funnel's rule that a symbol without a fresh quote fails


COVERING: Final = (
    Source.TICKERS,
    Source.BOOKS,
    Source.FUNDING,
    Source.DAILY_CANDLES,
    Source.HOURLY_CANDLES,
)  # a board is provisional while one of these covers too few symbols


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Closed bars of N symbols, oldest first; (T, N) each, NaN where a symbol has no bar."""

    interval: Interval
    symbols: tuple[str, ...]
    opened_ms: Ints  # (T,), regular grid
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats  # base coins
    turnover: Floats  # quote currency

    @staticmethod
    def of(
        series: Mapping[str, CandleSeries],
        symbols: tuple[str, ...],
        interval: Interval,
        closed_by_ms: int,
        bars: int,
    ) -> "Panel":
        """The last `bars` bars closed at or before `closed_by_ms`, for `symbols` in their order.

        A bar is closed when opened + length <= closed_by_ms: the running bar never enters.
        """
        last = closed_by_ms // interval.ms * interval.ms - interval.ms
        opened = np.arange(last - (bars - 1) * interval.ms, last + 1, interval.ms, dtype=np.int64)
        present = [
            (row, one, *_places(one.opened_ms, int(opened[0]), interval.ms, bars))
            for row, one in enumerate(map(series.get, symbols))
            if one is not None and len(one)
        ]
        fields = {}
        # One row a symbol while they are written, as each series lies in memory.
        lines = np.empty((len(symbols), bars))
        for name in FIELDS:
            lines.fill(np.nan)
            for row, one, places, taken in present:
                lines[row, places] = getattr(one, name)[taken]
            fields[name] = lines.T.copy(order="C")
        return Panel(interval, symbols, opened, **fields)


def _places(
    opened_ms: Ints, first_ms: int, step_ms: int, bars: int
) -> tuple[slice | Ints, slice | Bools]:
    """Places of bars on a grid that begins at `first_ms`, and which of them lie on it."""
    first, last = int(opened_ms[0]) - first_ms, int(opened_ms[-1]) - first_ms
    if first % step_ms == 0 and last - first == (len(opened_ms) - 1) * step_ms:
        begin, end = first // step_ms, last // step_ms + 1  # without a gap: ascending, no doubles
        taken = slice(max(-begin, 0), max(len(opened_ms) - max(end - bars, 0), 0))
        return slice(max(begin, 0), max(min(end, bars), 0)), taken
    rows = (opened_ms - first_ms) // step_ms
    is_on_grid = (rows >= 0) & (rows < bars) & ((opened_ms - first_ms) % step_ms == 0)
    return rows[is_on_grid], is_on_grid


AnyPanel = TypeVar("AnyPanel", bound=Panel)


def until(panel: AnyPanel, rows: int) -> AnyPanel:
    """The first `rows` bars; a negative number leaves out so many of the last ones."""
    fields = {name: getattr(panel, name)[:rows] for name in FIELDS}
    return replace(panel, opened_ms=panel.opened_ms[:rows], **fields)


@dataclass(frozen=True, slots=True, eq=False)
class ScoringInputs:
    """All that one scoring run may look at, frozen; (N,) arrays follow `symbols`.

    NaN or None is missing. `ages_s` are seconds since the value was last known to be true;
    `half_lives_s` one number per source. `excluded` names the symbols that are not eligible,
    with the first rule that they fail. `unread` counts those of them that are not eligible only
    because their daily candles have not been read yet, or their 24 h turnover is not known.
    """

    symbols: tuple[str, ...]
    as_of_ms: int
    daily: Panel
    hourly: Panel
    bid: Floats
    ask: Floats
    multiplier: Floats  # base coins per lot
    books: tuple[Book | None, ...]
    funding: tuple[tuple[Funding, ...], ...]  # settled rates, oldest first
    open_interest_ms: Ints  # (S,) times of our own snapshots
    open_interest: Floats  # (S, N) base coins
    ages_s: Mapping[Source, Floats]
    half_lives_s: Mapping[Source, float]
    excluded: Mapping[str, str]
    unread: int = 0

    def __post_init__(self) -> None:
        for panel in (self.daily, self.hourly):
            if panel.symbols != self.symbols:
                raise ValueError("panels and symbols must be in the same order")
        if not set(Source) <= self.ages_s.keys() & self.half_lives_s.keys():
            raise ValueError("every source needs its ages and its half-life")


def known_at(inputs: ScoringInputs) -> ScoringInputs:
    """The same inputs without anything that was not yet known at `as_of_ms`: no look-ahead."""
    now = inputs.as_of_ms
    seen = inputs.open_interest_ms <= now
    return replace(
        inputs,
        books=tuple(
            None if book is None or book.stamped_ms > now else book for book in inputs.books
        ),
        daily=_closed_by(inputs.daily, now),
        hourly=_closed_by(inputs.hourly, now),
        funding=tuple(
            tuple(one for one in settled if one.settled_ms <= now) for settled in inputs.funding
        ),
        open_interest_ms=inputs.open_interest_ms[seen],
        open_interest=inputs.open_interest[seen],
    )


def _closed_by(panel: Panel, now_ms: int) -> Panel:
    closed = panel.opened_ms + panel.interval.ms <= now_ms
    if closed.all():
        return panel
    fields = {name: getattr(panel, name)[closed] for name in FIELDS}
    return replace(panel, opened_ms=panel.opened_ms[closed], **fields)


def bridged(panel: AnyPanel) -> tuple[AnyPanel, Bools]:
    """The same with flat bars without volume in short gaps, and which those are, (T, N).

    The exchange publishes no bar where nobody traded: up to `LONGEST_BRIDGE` of them in a row, with
    a bar on either side, had the close before them as their price. Longer gaps stay gaps.
    """
    known = np.isfinite(panel.close)
    rows = np.arange(len(known))[:, None]
    before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, rows, len(known))[::-1], axis=0)[::-1]
    inside = ~known & (before >= 0) & (after < len(known))
    synthetic = inside & (after - before - 1 <= LONGEST_BRIDGE)
    if not synthetic.any():
        return panel, synthetic
    price = np.take_along_axis(panel.close, np.maximum(before, 0), axis=0)
    fields: dict[str, Any] = {
        name: np.where(synthetic, price, getattr(panel, name))
        for name in ("open", "high", "low", "close")
    }
    for name in ("volume", "turnover"):
        fields[name] = np.where(synthetic, 0.0, getattr(panel, name))
    return replace(panel, **fields), synthetic


def covered(panel: Panel) -> Floats:
    """(N,) share of the bars that are here since the first one of each symbol; NaN without any."""
    known = np.isfinite(panel.close)
    if not len(known):
        return np.full(len(panel.symbols), np.nan)
    first = np.argmax(known, axis=0)
    span = np.where(known.any(axis=0), len(known) - first, np.nan)
    return np.asarray(known.sum(axis=0) / span, np.float64)


def _any_bar(panel: Panel) -> Bools:
    return np.asarray(np.isfinite(panel.close).any(axis=0), np.bool_)


_PRESENT: Final[Mapping[Source, Callable[[ScoringInputs], Bools]]] = {
    Source.CONTRACTS: lambda inputs: inputs.multiplier > 0.0,
    Source.TICKERS: lambda inputs: np.isfinite(inputs.bid) & np.isfinite(inputs.ask),
    Source.BOOKS: lambda inputs: np.array([book is not None for book in inputs.books], np.bool_),
    Source.FUNDING: lambda inputs: np.array([bool(each) for each in inputs.funding], np.bool_),
    Source.DAILY_CANDLES: lambda inputs: _any_bar(inputs.daily),
    Source.HOURLY_CANDLES: lambda inputs: _any_bar(inputs.hourly),
}


def present(inputs: ScoringInputs, source: Source) -> Bools:
    """(N,) whether a symbol has anything at all from a source."""
    return _PRESENT[source](inputs)


def fresh(inputs: ScoringInputs, source: Source) -> Bools:
    """(N,) whether it is young enough; the age limit is the half-life, an unknown age is not."""
    limit = to_millionths(inputs.half_lives_s[source])
    return np.asarray(all_to_millionths(inputs.ages_s[source]) <= limit, np.bool_)


def source_coverage(inputs: ScoringInputs) -> dict[Source, float]:
    """Share of the eligible symbols that each exchange source covers with a fresh value.

    Symbols that only lack a quote or unread daily candles count as eligible and uncovered: the
    funnel drops them, and a half-loaded market would look complete. 0 without an eligible symbol:
    nothing shows that the sources cover anything.
    """
    unquoted = sum(rule == NO_QUOTE for rule in inputs.excluded.values())
    absent = {Source.TICKERS: unquoted, Source.DAILY_CANDLES: inputs.unread}
    shares = {}
    for source in COVERING:
        known = int(np.sum(present(inputs, source) & fresh(inputs, source)))
        of = len(inputs.symbols) + absent.get(source, 0)
        shares[source] = known / of if of else 0.0
    return shares


_HALT: Final = {Interval.DAY: LONGEST_BRIDGE, Interval.HOUR: 24}  # bars; more in a row are a break
_LEAST_POWER: Final = 1  # of ten: coins are exchanged one to ten, a hundred, a thousand
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_FAR: Final = 5.0  # a smaller ratio is near no power of ten but the one itself
_NEAR: Final = 0.15  # of a power of ten, in decimal logarithms: a day's move beside it
# Within one bar; a hundredfold change of unit and a market that halves beside it.
_WIDEST: Final = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class UnbrokenPanel(Panel):
    """Bars after the last break of each symbol; made by `unbroken` alone."""


@dataclass(frozen=True, slots=True)
class Redenomination:
    """A change of the unit of a price between `since` and `until`: no return reaches across it."""

    since: datetime
    until: datetime
    before: Decimal  # the last price in the old unit
    after: Decimal  # the first price in the new one

    def is_nearer_after(self, price: Decimal) -> bool:
        """Whether the price is nearer to that after the change than before it, in logarithms."""
        square, middle = EXACT.multiply(price, price), EXACT.multiply(self.before, self.after)
        return square > middle if self.after > self.before else square < middle

    def is_past(self, at: datetime, price: Decimal) -> bool:
        """Whether a price of that moment is in the new unit; during the change the price tells."""
        if self.since <= at < self.until:
            return self.is_nearer_after(price)
        return at >= self.until


def crossed(
    changes: Iterable[Redenomination],
    first: tuple[datetime, Decimal],
    last: tuple[datetime, Decimal],
) -> Redenomination | None:
    """The first change of unit between two prices, each with its moment; None without any."""
    return next(
        (one for one in changes if one.is_past(*last) and not one.is_past(*first)),
        None,
    )


def unit_changes(panel: Panel | None, symbol: str) -> tuple[Redenomination, ...]:
    """The redenominations of a symbol that the panel shows, oldest first."""
    return () if panel is None else _unit_changes(panel).get(symbol, ())


def unit_changes_of_lots(
    panel: Panel | None, symbol: str, changes: Iterable[LotChange], *, is_whole: bool = True
) -> tuple[Redenomination, ...]:
    """Redenominations that closes confirm after the multiplier changed by a power of ten.

    A lot keeps its value when the unit of the price changes. Closes that stay where they were
    show a lot of another size and nothing else. Where closes begin after the change, only its two
    units are known: a price of the time before tells its own. Without `is_whole` the panel is a
    part of the history, and such closes confirm nothing.
    """
    if panel is None or symbol not in panel.symbols:
        return ()
    closes = panel.close[:, panel.symbols.index(symbol)]
    known = np.flatnonzero(np.isfinite(closes) & (closes > 0.0)).tolist()
    found = []
    for change in changes:
        ratio = float(change.before / change.after)
        if not bool(_is_power(np.array([ratio]))[0]):
            continue
        between = [
            (one, other)
            for one, other in pairwise(known)
            if _end(panel, other) > change.since
            and _begin(panel, other) <= change.until
            and abs(np.log10(closes[other] / closes[one] / ratio)) < _NEAR
        ]
        if between:
            one, other = between[-1]
            since, until = _end(panel, one), _end(panel, other)
            before = Decimal(repr(float(closes[one])))
            found.append(Redenomination(since, until, before, Decimal(repr(float(closes[other])))))
        elif is_whole and known and _begin(panel, known[0]) >= change.until:
            after = Decimal(repr(float(closes[known[0]])))
            before = EXACT.divide(EXACT.multiply(after, change.after), change.before)
            found.append(Redenomination(change.since, change.until, before, after))
    return tuple(found)


def newest_close(panel: Panel | None, symbol: str) -> tuple[datetime, Decimal] | None:
    """The last known close of a symbol, with the end of its bar."""
    if panel is None or symbol not in panel.symbols:
        return None
    closes = panel.close[:, panel.symbols.index(symbol)]
    known = np.flatnonzero(np.isfinite(closes) & (closes > 0.0))
    if not len(known):
        return None
    row = int(known[-1])
    return _end(panel, row), Decimal(repr(float(closes[row])))


@lru_cache(maxsize=4)  # by identity, as `_cut`
def _unit_changes(panel: Panel) -> Mapping[str, tuple[Redenomination, ...]]:
    found: dict[str, tuple[Redenomination, ...]] = {}
    for row, column in np.argwhere(_breaks(panel)[1]).tolist():
        last = int(np.flatnonzero(np.isfinite(panel.close[:row, column]))[-1])
        one = Redenomination(
            since=_end(panel, last),
            until=_end(panel, row),
            before=Decimal(repr(float(panel.close[last, column]))),
            after=Decimal(repr(float(panel.open[row, column]))),
        )
        name = panel.symbols[column]
        found[name] = (*found.get(name, ()), one)
    return found


def _begin(panel: Panel, row: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(panel.opened_ms[row]))


def _end(panel: Panel, row: int) -> datetime:
    return _begin(panel, row) + timedelta(milliseconds=panel.interval.ms)


def is_redenomination(before: float, after: float) -> bool:
    """Whether a price and the next one stand a power of ten apart: a coin became ten, or so."""
    if not (before > 0.0 and after > 0.0):
        return False
    return bool(_is_power(np.array([after / before]))[0])


def breaks(panel: Panel) -> Ints:
    """(N,) row of the first bar after the last break of each symbol; 0 without any.

    A break is a gap longer than a halt may be, or an open that stands a power of ten away from the
    close before it: no market that never closes moves so between two bars. A bar is a break itself
    if its close stands so away from its open, or beyond 50-fold: its open, high and low may be in
    the old unit. It belongs to no segment, and the bar after it is the first; the number of rows
    where there is none yet.
    """
    halted, renamed = _breaks(panel)
    return np.maximum(_last_row(halted | renamed), _last_row(_is_mixed(panel.open, panel.close), 1))


@lru_cache(maxsize=4)  # by identity: each member of the portfolio asks about the same panel
def redenominations(panel: Panel) -> Ints:
    """(N,) row of the first bar in the present denomination of each symbol; 0 without a change.

    A halt is none: the price after it is worth as much as the price before it.
    """
    return _last_row(_breaks(panel)[1])


def _breaks(panel: Panel) -> tuple[Bools, Bools]:
    """(T, N) each: bars after a halt, and bars after a redenomination."""
    known = np.isfinite(panel.close)
    rows = np.arange(len(known))[:, None]
    seen = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    before = np.vstack([np.full((1, known.shape[1]), -1, dtype=seen.dtype), seen[:-1]])
    follows = known & (before >= 0)
    halted = follows & (rows - before - 1 > _HALT[panel.interval])
    last = np.take_along_axis(panel.close, np.maximum(before, 0), axis=0) if len(rows) else before
    with np.errstate(all="ignore"):
        return halted, follows & _is_power(panel.open / last)


def _is_mixed(opened: Floats, closed: Floats) -> Bools:
    """Which bars may hold prices of two units: they open in one and close in the other."""
    with np.errstate(all="ignore"):
        ratio = closed / opened
        return _is_power(ratio) | (ratio > _WIDEST) | (ratio < 1.0 / _WIDEST)


def in_present_unit(series: CandleSeries) -> CandleSeries:
    """The candles after the last change of unit that they show, as `breaks`; halts are none."""
    if len(series) == 0:
        return series
    marks = _is_mixed(series.open, series.close)
    with np.errstate(all="ignore"):
        marks[:-1] |= _is_power(series.open[1:] / series.close[:-1])
    first = int(_last_row(marks[:, None], 1)[0])
    if first == 0:
        return series
    fields = {name: getattr(series, name)[first:] for name in FIELDS}
    return CandleSeries(series.opened_ms[first:], **fields)


def _last_row(marks: Bools, beyond: int = 0) -> Ints:
    """(N,) row of the last mark, or `beyond` rows after it; 0 without any."""
    rows = np.arange(len(marks))[:, None] + beyond
    return np.asarray(np.max(np.where(marks, rows, 0), axis=0, initial=0), np.int64)


def unbroken(panel: Panel) -> UnbrokenPanel:
    """The same without the bars before the last break of each symbol."""
    return panel if isinstance(panel, UnbrokenPanel) else _cut(panel)


def log_returns(prices: UnbrokenPanel, bars: int | None = None) -> Floats:
    """ln(c_t / c_t-1) of the last `bars` bars or of all, (T, N).

    NaN where either close is missing or not positive.
    """
    close = _last(prices, bars)
    with np.errstate(all="ignore"):
        logs = np.log(np.where(close > 0.0, close, np.nan))
    return np.asarray(np.diff(logs, axis=0), np.float64)


def simple_returns(prices: UnbrokenPanel, bars: int | None = None) -> Floats:
    """c_t / c_t-1 - 1 of the last `bars` bars or of all, (T, N); NaN where either is missing."""
    close = _last(prices, bars)
    return np.asarray(close[1:] / close[:-1] - 1.0, np.float64)


def newest(series: CandleSeries, interval: Interval, bars: int) -> UnbrokenPanel:
    """The last `bars` of one symbol up to its newest candle, short gaps bridged."""
    end = int(series.opened_ms[-1]) + interval.ms if len(series) else 0
    # Uncached: one symbol after the other would push the panels of whole universes out.
    return bridged(_after_breaks(Panel.of({"": series}, ("",), interval, end, bars)))[0]


def _last(prices: UnbrokenPanel, bars: int | None) -> Floats:
    return prices.close if bars is None else prices.close[-(bars + 1) :]


def _is_power(ratio: Floats) -> Bools:
    # Hardly a bar is so far from the one before it: logarithms of all take most of the time.
    far = (ratio > _FAR) | (ratio < 1.0 / _FAR)
    power = np.log10(ratio[far])
    whole = np.rint(power)
    found = np.zeros(ratio.shape, np.bool_)
    found[far] = (np.abs(whole) >= _LEAST_POWER) & (np.abs(power - whole) < _NEAR)
    return found


@lru_cache(maxsize=4)  # by identity: the same panel serves a whole run, and every read after it
def _cut(panel: Panel) -> UnbrokenPanel:
    return _after_breaks(panel)


def _after_breaks(panel: Panel) -> UnbrokenPanel:
    first = breaks(panel)
    fields = {name: getattr(panel, name) for name in FIELDS}
    if first.any():
        there = np.arange(len(panel.opened_ms))[:, None] >= first
        fields = {name: np.where(there, values, np.nan) for name, values in fields.items()}
    return UnbrokenPanel(panel.interval, panel.symbols, panel.opened_ms, **fields)
