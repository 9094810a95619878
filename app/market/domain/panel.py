"""Panels: one (T, N) array per field on a shared time axis; the inputs of a scoring run."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.configuration.domain.sections import Source
from app.foundation.decimal_math import EXACT, all_to_millionths, to_millionths
from app.market.domain.identity_cache import cached_while_alive
from app.market.domain.models import (
    Book,
    CandleSeries,
    Floats,
    Funding,
    Interval,
    Ints,
    LotChange,
)
from app.market.domain.trade_flow import TradeFlow

Bools = NDArray[np.bool_]

FIELDS: Final = ("open", "high", "low", "close", "volume", "turnover")
MAX_FORWARD_FILL: Final = 5  # consecutive bars without trades
NO_QUOTE: Final = "ticker"  # the rule of the funnel that a symbol without a fresh quote fails


COVERING: Final = (
    Source.TICKERS,
    Source.BOOKS,
    Source.FUNDING,
    Source.DAILY_CANDLES,
    Source.HOURLY_CANDLES,
)  # a board is provisional while one of these covers too few symbols


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
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
    def from_series(
        series: Mapping[str, CandleSeries],
        symbols: tuple[str, ...],
        interval: Interval,
        closed_by_ms: int,
        bars: int,
    ) -> "Panel":
        """Creates the panel of the last `bars` bars closed by `closed_by_ms`.

        Its columns follow `symbols`. A bar is closed when opened + length <= closed_by_ms: the
        running bar is never included.
        """
        last = closed_by_ms // interval.ms * interval.ms - interval.ms
        opened = np.arange(last - (bars - 1) * interval.ms, last + 1, interval.ms, dtype=np.int64)
        present = [
            (row, one, *_places(one.opened_ms, int(opened[0]), interval.ms, bars))
            for row, one in enumerate(map(series.get, symbols))
            if one is not None and len(one)
        ]
        fields = {}
        # One row per symbol while writing, as each series lies in memory.
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
    """Returns places of bars on a grid that begins at `first_ms`, and the bars that lie on it."""
    first, last = int(opened_ms[0]) - first_ms, int(opened_ms[-1]) - first_ms
    if first % step_ms == 0 and last - first == (len(opened_ms) - 1) * step_ms:
        begin, end = first // step_ms, last // step_ms + 1  # no gap: ascending, no duplicates
        taken = slice(max(-begin, 0), max(len(opened_ms) - max(end - bars, 0), 0))
        return slice(max(begin, 0), max(min(end, bars), 0)), taken
    rows = (opened_ms - first_ms) // step_ms
    is_on_grid = (rows >= 0) & (rows < bars) & ((opened_ms - first_ms) % step_ms == 0)
    return rows[is_on_grid], is_on_grid


AnyPanel = TypeVar("AnyPanel", bound=Panel)


def truncate(panel: AnyPanel, rows: int) -> AnyPanel:
    """Returns the first `rows` bars; a negative number drops as many of the last ones."""
    fields = {name: getattr(panel, name)[:rows] for name in FIELDS}
    return replace(panel, opened_ms=panel.opened_ms[:rows], **fields)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ScoringInputs:
    """Immutable inputs of one scoring run; (N,) arrays follow `symbols`.

    NaN or None is missing. `ages_s` are seconds since the value was last known to be true;
    `half_lives_s` one number per source. `excluded` maps ineligible symbols to the first rule that
    they fail. `unread` counts those that are excluded only because their daily candles have not
    been loaded yet, or their 24 h turnover is unknown.
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
    flow: TradeFlow | None = None  # None if the trades of no symbol are streamed

    def __post_init__(self) -> None:
        for panel in (self.daily, self.hourly):
            if panel.symbols != self.symbols:
                raise ValueError("panels and symbols must be in the same order")
        if not set(Source) <= self.ages_s.keys() & self.half_lives_s.keys():
            raise ValueError("every source needs its ages and its half-life")


def without_future(inputs: ScoringInputs) -> ScoringInputs:
    """Removes inputs that were not known at `as_of_ms`: no look-ahead."""
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


def forward_fill(panel: AnyPanel) -> tuple[AnyPanel, Bools]:
    """Returns the panel with flat bars without volume in short gaps, and their places, (T, N).

    The exchange publishes no bar without trades. Up to `MAX_FORWARD_FILL` missing bars in a row,
    with a bar on either side, take the close before them as their price. Longer gaps stay gaps.
    """
    known = np.isfinite(panel.close)
    rows = np.arange(len(known))[:, None]
    before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, rows, len(known))[::-1], axis=0)[::-1]
    inside = ~known & (before >= 0) & (after < len(known))
    synthetic = inside & (after - before - 1 <= MAX_FORWARD_FILL)
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


def coverage_since_start(panel: Panel) -> Floats:
    """Returns (N,) share of bars present since each symbol's first one; NaN without any."""
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


def has_data(inputs: ScoringInputs, source: Source) -> Bools:
    """Returns (N,) whether a symbol has any data of a source."""
    return _PRESENT[source](inputs)


def has_fresh_data(inputs: ScoringInputs, source: Source) -> Bools:
    """Returns (N,) whether data is fresh by the half-life as age limit; an unknown age is stale."""
    limit = to_millionths(inputs.half_lives_s[source])
    return np.asarray(all_to_millionths(inputs.ages_s[source]) <= limit, np.bool_)


def source_coverage(inputs: ScoringInputs) -> dict[Source, float]:
    """Returns the share of eligible symbols with a fresh value, per exchange source.

    Symbols that only lack a quote or unread daily candles count as eligible and uncovered: the
    funnel drops them, and a half-loaded market would look complete. 0 without an eligible symbol,
    because nothing shows that the sources cover anything.
    """
    unquoted = sum(rule == NO_QUOTE for rule in inputs.excluded.values())
    absent = {Source.TICKERS: unquoted, Source.DAILY_CANDLES: inputs.unread}
    shares = {}
    for source in COVERING:
        known = int(np.sum(has_data(inputs, source) & has_fresh_data(inputs, source)))
        of = len(inputs.symbols) + absent.get(source, 0)
        shares[source] = known / of if of else 0.0
    return shares


_HALT: Final = {
    Interval.DAY: MAX_FORWARD_FILL,
    Interval.HOUR: 24,
}  # bars; a longer gap is a break
_LEAST_POWER: Final = 1  # exponent of ten: coins are exchanged one to ten, a hundred, a thousand
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_FAR: Final = 5.0  # a smaller ratio is near no power of ten except one
_NEAR: Final = 0.15  # decimal logarithms from a power of ten: room for a day's move
# Largest move within one bar: a hundredfold change of unit and a market that halves beside it.
_WIDEST: Final = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class ContiguousPanel(Panel):
    """Bars after the last break of each symbol; created by `contiguous` only."""


@dataclass(frozen=True, slots=True)
class Redenomination:
    """Change of the price unit between `since` and `until`; no return spans it."""

    since: datetime
    until: datetime
    before: Decimal  # the last price in the old unit
    after: Decimal  # the first price in the new one

    def is_nearer_after(self, price: Decimal) -> bool:
        """True if a price is nearer to the one after the change than before it, in logarithms."""
        square, middle = EXACT.multiply(price, price), EXACT.multiply(self.before, self.after)
        return square > middle if self.after > self.before else square < middle

    def is_past(self, at: datetime, price: Decimal) -> bool:
        """True if a price at that moment is in the new unit; within the change by its value."""
        if self.since <= at < self.until:
            return self.is_nearer_after(price)
        return at >= self.until


def find_crossed_change(
    changes: Iterable[Redenomination],
    first: tuple[datetime, Decimal],
    last: tuple[datetime, Decimal],
) -> Redenomination | None:
    """Returns the first change of unit between two prices with their moments; None without any."""
    return next(
        (one for one in changes if one.is_past(*last) and not one.is_past(*first)),
        None,
    )


def unit_changes(panel: Panel | None, symbol: str) -> tuple[Redenomination, ...]:
    """Returns the redenominations of a symbol in the panel, oldest first."""
    return () if panel is None else _unit_changes(panel).get(symbol, ())


def unit_changes_of_lots(
    panel: Panel | None, symbol: str, changes: Iterable[LotChange], *, is_whole: bool = True
) -> tuple[Redenomination, ...]:
    """Returns redenominations that closes confirm after a multiplier changed by a power of ten.

    A lot keeps its value when the price unit changes. Unmoved closes show only another lot size.
    Where closes begin after the change, only its two units are known: a price from before decides
    its own unit. Without `is_whole` the panel is a part of the history, and such closes confirm
    nothing.
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
    """Returns the last known close of a symbol, with the end of its bar."""
    if panel is None or symbol not in panel.symbols:
        return None
    closes = panel.close[:, panel.symbols.index(symbol)]
    known = np.flatnonzero(np.isfinite(closes) & (closes > 0.0))
    if not len(known):
        return None
    row = int(known[-1])
    return _end(panel, row), Decimal(repr(float(closes[row])))


@cached_while_alive
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
    """True if two consecutive prices are a power of ten apart."""
    if not (before > 0.0 and after > 0.0):
        return False
    return bool(_is_power(np.array([after / before]))[0])


def history_breaks(panel: Panel) -> Ints:
    """Returns (N,) row of the first bar after the last break of each symbol; 0 without any.

    A break is a gap longer than a halt may be, or an open a power of ten away from the close before
    it: a market that never closes does not move so far between two bars. A bar is a break itself if
    its close is that far from its open, or beyond 50-fold: its open, high and low may be in the old
    unit. It belongs to no segment, and the bar after it is the first one; the result is the number
    of rows where there is none yet.
    """
    halted, renamed = _breaks(panel)
    return np.maximum(_last_row(halted | renamed), _last_row(_is_mixed(panel.open, panel.close), 1))


def breaks_by_row(panel: Panel) -> Ints:
    """Returns (T, N) what `history_breaks` gives for the panel up to each row."""
    halted, renamed = _breaks(panel)
    rows = np.arange(len(halted))[:, None]
    after_mixed = np.where(_is_mixed(panel.open, panel.close), rows + 1, 0)
    marks = np.maximum(np.where(halted | renamed, rows, 0), after_mixed)
    return np.asarray(np.maximum.accumulate(marks, axis=0), np.int64)


@cached_while_alive  # all portfolio members share one panel
def redenominations(panel: Panel) -> Ints:
    """Returns (N,) row of the first bar in each symbol's present denomination; 0 without a change.

    A halt is no redenomination: prices before and after it have the same unit.
    """
    return _last_row(_breaks(panel)[1])


def _breaks(panel: Panel) -> tuple[Bools, Bools]:
    """Returns (T, N) each: bars after a halt, and bars after a redenomination."""
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
    """Returns the bars that may open in one price unit and close in another one."""
    with np.errstate(all="ignore"):
        ratio = closed / opened
        return _is_power(ratio) | (ratio > _WIDEST) | (ratio < 1.0 / _WIDEST)


def in_present_unit(series: CandleSeries) -> CandleSeries:
    """Returns the candles after their last change of unit, as `history_breaks` without halts."""
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
    """Returns (N,) row of the last mark, or `beyond` rows after it; 0 without any."""
    rows = np.arange(len(marks))[:, None] + beyond
    return np.asarray(np.max(np.where(marks, rows, 0), axis=0, initial=0), np.int64)


def contiguous(panel: Panel) -> ContiguousPanel:
    """Returns the panel without the bars before the last break of each symbol."""
    return panel if isinstance(panel, ContiguousPanel) else _cut(panel)


def log_returns(prices: ContiguousPanel, bars: int | None = None) -> Floats:
    """Returns ln(c_t / c_t-1) of the last `bars` bars or of all, (T, N).

    NaN where either close is missing or not positive.
    """
    close = _last(prices, bars)
    with np.errstate(all="ignore"):
        logs = np.log(np.where(close > 0.0, close, np.nan))
    return np.asarray(np.diff(logs, axis=0), np.float64)


def simple_returns(prices: ContiguousPanel, bars: int | None = None) -> Floats:
    """Returns c_t / c_t-1 - 1 of the last `bars` bars or of all, (T, N).

    NaN where either close is missing.
    """
    close = _last(prices, bars)
    return np.asarray(close[1:] / close[:-1] - 1.0, np.float64)


def newest(series: CandleSeries, interval: Interval, bars: int) -> ContiguousPanel:
    """Returns the last `bars` bars of one symbol up to its newest candle, short gaps filled."""
    end = int(series.opened_ms[-1]) + interval.ms if len(series) else 0
    # Uncached: single symbols would evict the panels of whole universes.
    return forward_fill(_after_breaks(Panel.from_series({"": series}, ("",), interval, end, bars)))[
        0
    ]


def _last(prices: ContiguousPanel, bars: int | None) -> Floats:
    return prices.close if bars is None else prices.close[-(bars + 1) :]


def _is_power(ratio: Floats) -> Bools:
    # Few bars are that far from the previous one, and logarithms of all take most of the time.
    far = (ratio > _FAR) | (ratio < 1.0 / _FAR)
    power = np.log10(ratio[far])
    whole = np.rint(power)
    found = np.zeros(ratio.shape, np.bool_)
    found[far] = (np.abs(whole) >= _LEAST_POWER) & (np.abs(power - whole) < _NEAR)
    return found


@cached_while_alive  # one panel serves a whole run and all reads after it
def _cut(panel: Panel) -> ContiguousPanel:
    return _after_breaks(panel)


def _after_breaks(panel: Panel) -> ContiguousPanel:
    first = history_breaks(panel)
    fields = {name: getattr(panel, name) for name in FIELDS}
    if first.any():
        there = np.arange(len(panel.opened_ms))[:, None] >= first
        fields = {name: np.where(there, values, np.nan) for name, values in fields.items()}
    return ContiguousPanel(panel.interval, panel.symbols, panel.opened_ms, **fields)
