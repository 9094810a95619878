"""Panels: one (T, N) array per field on a shared time axis; the inputs of a scoring run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.configuration.domain.sections import Source
from app.foundation.decimal_math import all_to_millionths, to_millionths
from app.market.domain.models import (
    Book,
    CandleSeries,
    Floats,
    Funding,
    Interval,
    Ints,
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
