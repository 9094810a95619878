"""Evidence of the live scores: stored boards against the returns that followed them."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

import numpy as np

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.market.domain.data_quality import worst
from app.market.domain.models import TRADING_ENDED, CandleSeries, Floats, Interval
from app.market.domain.panel import Bools, Panel, history_breaks
from app.market.storage.candles import CandleRepository
from app.market.storage.symbols import SymbolRecord, SymbolRepository
from app.research.domain.factor_cards import EvidenceLabel, create_card
from app.research.domain.validation import LEAST_LAG, ScoreEvidence, evaluate_scores
from app.research.services.evidence import MIN_PERIOD_ROWS
from app.scoring.storage.score_history import (
    COMPOSITE,
    ScoredRun,
    ScoreHistoryRepository,
    ScoreValues,
)

PERIODS: Final = 3  # equal periods that a label needs, as for the cards of a history
_DAY: Final = timedelta(days=1)


class ScoreLevel(StrEnum):
    """Level of a score: the composite, a family or a factor."""

    COMPOSITE = "composite"
    FAMILY = "family"
    FACTOR = "factor"


ScoreKey = tuple[ScoreLevel, str]


@dataclass(frozen=True, slots=True)
class LiveEvidence:
    """Evidence of one live score; `evidence` and `label` are None with too few days."""

    level: ScoreLevel
    name: str
    days: int  # with an IC
    evidence: ScoreEvidence | None
    label: EvidenceLabel | None
    reason: str | None  # set where a figure is None


@dataclass(frozen=True, slots=True)
class LiveValidation:
    """Evidence of all live scores over the UTC days from `begin` up to `end`."""

    begin: datetime  # first day with a board
    end: datetime  # exclusive
    as_of: datetime | None  # close of the newest candle in use
    source: DataSource
    status: DataStatus  # never better than that of the market
    horizon: int  # days
    board_days: int
    days_needed: int  # with an IC, for the figures
    days_for_label: int  # with boards, for a label
    algorithm_versions: tuple[int, ...]
    scores: tuple[LiveEvidence, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LiveScores:
    """Scores and prices of T days and N listings; (T, N) each, NaN where missing."""

    scores: Mapping[ScoreKey, Floats]
    opened: Floats
    close: Floats
    universe: Bools  # on the board of the day, with a complete return


def days_needed(horizon: int) -> int:
    """Returns the number of days with an IC that the figures of a score need."""
    return max(MIN_PERIOD_ROWS, max(horizon, LEAST_LAG) + 2)


def days_for_label(horizon: int) -> int:
    """Returns the number of days with boards that a label needs, with every return complete."""
    return PERIODS * (days_needed(horizon) + horizon + 1)


def daily_runs(runs: Iterable[ScoredRun], until: date) -> dict[date, ScoredRun]:
    """Returns the last run of each UTC day before `until`, by the order of storing.

    A run counts from the later one of its calculation and its data. A run that was stored after
    one of a later day is left out: its day was over, so that its time is wrong.
    """
    found: dict[date, ScoredRun] = {}
    newest = date.min
    for run in sorted(runs, key=lambda one: one.seq):
        day = known_at(run).astimezone(UTC).date()
        if newest <= day < until:
            found[day] = run
            newest = day
    return found


def known_at(run: ScoredRun) -> datetime:
    """Returns the time from which the scores of a run were known."""
    return max(run.calculated_at, run.as_of)


def validate_live(live: LiveScores, horizon: int) -> tuple[LiveEvidence, ...]:
    """Returns the evidence of each score from the functions of research."""
    rows = len(live.opened)
    edges = np.linspace(0, rows, PERIODS + 1).astype(np.int64).tolist()
    periods = [*itertools.starmap(slice, itertools.pairwise(edges))]
    return tuple(
        _validate(key, values, live, horizon, periods) for key, values in live.scores.items()
    )


def _validate(
    key: ScoreKey, values: Floats, live: LiveScores, horizon: int, periods: Sequence[slice]
) -> LiveEvidence:
    def evidence_of(rows: slice) -> ScoreEvidence:
        return evaluate_scores(
            values[rows], live.opened[rows], live.close[rows], horizon, live.universe[rows],
            decay=(),
        )  # fmt: skip

    level, name = key
    whole, needed = evidence_of(slice(None)), days_needed(horizon)
    days = whole.ic.count
    if days < needed:
        reason = f"{days} days with complete returns of enough symbols, {needed} are needed"
        return LiveEvidence(level, name, days, None, None, reason)
    parts = [evidence_of(rows) for rows in periods]
    least = min(one.ic.count for one in parts)
    if least < needed:
        reason = (
            f"no label: the shortest of {PERIODS} periods has {least} days with complete returns,"
            f" {needed} are needed"
        )
        return LiveEvidence(level, name, days, whole, None, reason)
    # No trial chose the live scores by these days.
    card = create_card(name, parts, trials=0)
    return LiveEvidence(level, name, days, whole, card.label, None)


@dataclass(frozen=True, slots=True)
class ScoreValidation:
    """Validates the stored live scores; computes in a thread and writes nothing."""

    database: Database
    clock: Clock
    source: DataSource
    market_status: Callable[[], DataStatus]

    async def validate(self, horizon: int, days: int) -> LiveValidation:
        """Returns the evidence of boards of the last `days` complete UTC days.

        `horizon` is the number of days of a return.
        """
        now = self.clock()
        end = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        begin = end - days * _DAY
        async with self.database.read() as unit:
            runs = await unit.get(ScoreHistoryRepository).runs(begin, end)
            records = await unit.get(SymbolRepository).all()
        chosen = daily_runs(runs, end.date())
        if chosen:
            begin = datetime.combine(min(chosen), datetime.min.time(), UTC)
        async with self.database.read() as unit:
            found = await unit.get(ScoreHistoryRepository).values(
                [run.run_id for run in chosen.values()]
            )
        # Retention may have deleted a run since.
        values = {day: found[run.run_id] for day, run in chosen.items() if run.run_id in found}
        chosen = {day: chosen[day] for day in values}
        listed = await asyncio.to_thread(_listed, chosen, values, records)
        ids = sorted({symbol_id for of_day in listed.values() for symbol_id in of_day.values()})
        async with self.database.read() as unit:
            series = await unit.get(CandleRepository).load(ids, Interval.DAY, _ms(begin))
        ended = frozenset(
            one.id
            for one in records
            if one.vanished_at is not None or one.contract.status in TRADING_ENDED
        )

        def work() -> tuple[LiveEvidence, ...]:
            panel = Panel.from_series(
                series, tuple(ids), Interval.DAY, _ms(end), (end - begin) // _DAY
            )
            live = _arrange(panel, begin.date(), values, listed, ended, horizon)
            return validate_live(live, horizon)

        as_of = _newest_close(series.values(), _ms(end))
        return LiveValidation(
            begin=begin,
            end=end,
            as_of=as_of,
            source=self.source,
            status=worst((self.market_status(), _candle_status(as_of, end))),
            horizon=horizon,
            board_days=len(chosen),
            days_needed=days_needed(horizon),
            days_for_label=days_for_label(horizon),
            algorithm_versions=tuple(sorted({one.algorithm_version for one in chosen.values()})),
            scores=await asyncio.to_thread(work),
        )


def _listed(
    chosen: Mapping[date, ScoredRun],
    values: Mapping[date, ScoreValues],
    records: Iterable[SymbolRecord],
) -> dict[date, dict[str, str]]:
    """Returns the id of the contract that had each symbol when the run of a day was known."""
    by_symbol: dict[str, list[SymbolRecord]] = {}
    for one in records:
        by_symbol.setdefault(one.symbol, []).append(one)
    found: dict[date, dict[str, str]] = {}
    for day, run in chosen.items():
        at = known_at(run)
        found[day] = {
            symbol: one.id
            for symbol in values[day].symbols
            for one in by_symbol.get(symbol, ())
            if one.first_seen <= at and (one.vanished_at is None or at < one.vanished_at)
        }
    return found


def _arrange(
    panel: Panel,
    first: date,
    values: Mapping[date, ScoreValues],
    listed: Mapping[date, Mapping[str, str]],
    ended: frozenset[str],
    horizon: int,
) -> LiveScores:
    """Returns the arrays of all scores; the rows of `panel` are the days from `first` on."""
    columns = {symbol_id: column for column, symbol_id in enumerate(panel.symbols)}
    shape = panel.close.shape
    universe = np.zeros(shape, np.bool_)
    scores: dict[ScoreKey, Floats] = {}
    for day in sorted(values):
        row, ids, one = (day - first).days, listed[day], values[day]
        universe[row, [columns[symbol_id] for symbol_id in ids.values()]] = True
        levels = itertools.chain(
            ((_level(name), name, found) for name, found in one.scores.items()),
            ((ScoreLevel.FACTOR, name, found) for name, found in one.factors.items()),
        )
        for level, name, found in levels:
            known = {columns[ids[symbol]]: z for symbol, z in found.items() if symbol in ids}
            if (level, name) not in scores:
                scores[level, name] = np.full(shape, np.nan)
            scores[level, name][row, [*known]] = [*known.values()]
    return LiveScores(scores, panel.open, panel.close, universe & _complete(panel, ended, horizon))


def _complete(panel: Panel, ended: frozenset[str], horizon: int) -> Bools:
    """Returns (T, N) days whose return is complete and in one price unit.

    Only a contract that has ended realises its last close; another one may lack its newest candle.
    """
    rows = np.arange(len(panel.close))[:, None]
    known = np.isfinite(panel.close)
    last = np.max(np.where(known, rows, -1), axis=0, initial=-1)
    is_ended = np.array([one in ended for one in panel.symbols], np.bool_)
    is_whole = is_ended | (rows + 1 + horizon <= last)
    return np.asarray(is_whole & (rows + 1 >= history_breaks(panel)), np.bool_)


def _level(name: str) -> ScoreLevel:
    return ScoreLevel.COMPOSITE if name == COMPOSITE else ScoreLevel.FAMILY


def _ms(at: datetime) -> int:
    return int(at.timestamp()) * 1000


def _candle_status(as_of: datetime | None, end: datetime) -> DataStatus:
    """Returns stale if the last complete day lacks candles; without a board none are in use."""
    return DataStatus.FRESH if as_of is None or as_of >= end else DataStatus.STALE


def _newest_close(series: Iterable[CandleSeries], until_ms: int) -> datetime | None:
    closed = [one.opened_ms[one.opened_ms < until_ms] for one in series]
    newest = max((int(one[-1]) for one in closed if len(one)), default=None)
    return None if newest is None else datetime.fromtimestamp(newest / 1000, UTC) + _DAY
