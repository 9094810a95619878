"""Evidence of the live scores: stored boards against the returns that followed them."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Final

import numpy as np
import structlog

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import ServiceError
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.market.domain.data_quality import worst
from app.market.domain.models import TRADING_ENDED, CandleSeries, Floats, Interval
from app.market.domain.panel import Bools, Panel
from app.market.domain.segments import history_breaks
from app.market.storage.candles import CandleRepository
from app.market.storage.symbols import SymbolRecord, SymbolRepository
from app.research.domain.factor_cards import create_card, create_evidence
from app.research.domain.validation import LEAST_LAG, ScoreEvidence, evaluate_scores
from app.research.services.evidence import HORIZON, MIN_PERIOD_ROWS
from app.scoring.domain.algorithm import CROSS_SECTIONAL
from app.scoring.domain.factor_evidence import (
    EvidenceLabel,
    EvidenceMeasurement,
    EvidenceSource,
    FactorEvidence,
    ScoreLevel,
    order_evidence,
)
from app.scoring.storage.factor_evidence import FactorEvidenceRepository
from app.scoring.storage.score_history import (
    COMPOSITE,
    ScoredRun,
    ScoreHistoryRepository,
    ScoreValues,
)

PERIODS: Final = 3  # equal periods that a label needs, as for the cards of a history
DAYS: Final = 365  # complete UTC days that a daily measurement looks back
DAILY: Final = (HORIZON, DAYS)
# A measurement without the candles of its last day is repeated once they may have arrived.
RETRY: Final = timedelta(hours=1)
_MAX_KEPT: Final = 32  # measurements in memory, each of some 30 lines
_DAY: Final = timedelta(days=1)
_log = structlog.get_logger("score_validation")


ScoreKey = tuple[ScoreLevel, str]


@dataclass(frozen=True, slots=True)
class LiveValidation:
    """Evidence of all live scores over the UTC days from `begin` up to `end`."""

    begin: datetime  # first day with a board
    end: datetime  # exclusive
    as_of: datetime | None  # close of the newest candle in use
    measured_at: datetime
    source: DataSource
    status: DataStatus  # never better than that of the market
    horizon: int  # days
    board_days: int
    days_needed: int  # with an IC, for the figures
    days_for_label: int  # with boards, for a label
    algorithm_versions: tuple[int, ...]
    scores: tuple[FactorEvidence, ...]


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


@dataclass(frozen=True, slots=True, eq=False)
class JudgedScore:
    """Evidence of one live score with its label; `reason` says why figures or label are missing."""

    evidence: ScoreEvidence
    has_figures: bool
    label: EvidenceLabel | None
    reason: str | None


def validate_live(live: LiveScores, horizon: int) -> dict[ScoreKey, JudgedScore]:
    """Returns the evidence of each score from the functions of research."""
    rows = len(live.opened)
    edges = np.linspace(0, rows, PERIODS + 1).astype(np.int64).tolist()
    periods = [*itertools.starmap(slice, itertools.pairwise(edges))]
    return {
        key: _validate(key, values, live, horizon, periods) for key, values in live.scores.items()
    }


def _validate(
    key: ScoreKey, values: Floats, live: LiveScores, horizon: int, periods: Sequence[slice]
) -> JudgedScore:
    def evidence_of(rows: slice) -> ScoreEvidence:
        return evaluate_scores(
            values[rows], live.opened[rows], live.close[rows], horizon, live.universe[rows],
            decay=(),
        )  # fmt: skip

    whole, needed = evidence_of(slice(None)), days_needed(horizon)
    days = whole.ic.count
    if days < needed:
        reason = f"{days} days with complete returns of enough symbols, {needed} are needed"
        return JudgedScore(whole, has_figures=False, label=None, reason=reason)
    parts = [evidence_of(rows) for rows in periods]
    least = min(one.ic.count for one in parts)
    if least < needed:
        reason = (
            f"no label: the shortest of {PERIODS} periods has {least} days with complete returns,"
            f" {needed} are needed"
        )
        return JudgedScore(whole, has_figures=True, label=None, reason=reason)
    # No trial chose the live scores by these days.
    card = create_card(key[1], parts, trials=0)
    return JudgedScore(whole, has_figures=True, label=card.label, reason=None)


def hash_scores(live: LiveScores) -> str:
    """Returns the SHA-256 of everything that the evidence is made of."""
    digest = sha256()
    for values in (live.opened, live.close, live.universe):
        digest.update(np.ascontiguousarray(values).tobytes())
    for (level, name), values in sorted(live.scores.items()):
        digest.update(f"{level.value}:{name}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


@dataclass(slots=True)
class ScoreValidation:
    """Measures the stored live scores against later returns, once a day and window.

    Past days do not change, so a measurement is kept until the next UTC day. The daily one, of the
    default horizon and window, is stored as factor evidence and shared by all processes. Only one
    measurement runs at a time, in a thread.
    """

    database: Database
    clock: Clock
    source: DataSource
    market_status: Callable[[], DataStatus]
    _kept: dict[tuple[int, int], LiveValidation] = field(default_factory=dict, init=False)
    _measuring: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def validate(self, horizon: int = HORIZON, days: int = DAYS) -> LiveValidation:
        """Returns the evidence of boards of the last `days` complete UTC days.

        `horizon` is the number of days of a return. `measured_at` is the age of the evidence; its
        status is the one of now.
        """
        key = horizon, days
        found = self._find(key)
        if found is None:
            async with self._measuring:
                found = self._find(key) or await self._load(key)
                if found is None:
                    found = await self._measure(horizon, days)
                    await self._store(key, found)
                self._keep(key, found)
        status = worst((self.market_status(), _candle_status(found.as_of, found.end)))
        return replace(found, status=status)

    def _find(self, key: tuple[int, int]) -> LiveValidation | None:
        found = self._kept.get(key)
        return found if found is not None and self._is_current(found) else None

    def _is_current(self, found: LiveValidation) -> bool:
        """True if no later measurement could know more; without boards it is always worth one."""
        now = self.clock()
        if found.end != _midnight(now) or not found.scores:
            return False
        has_last_day = _candle_status(found.as_of, found.end) is DataStatus.FRESH
        return has_last_day or timedelta(0) <= now - found.measured_at < RETRY

    def _keep(self, key: tuple[int, int], found: LiveValidation) -> None:
        current = {other: one for other, one in self._kept.items() if self._is_current(one)}
        current.pop(key, None)
        while len(current) >= _MAX_KEPT:
            del current[next(iter(current))]
        self._kept = {**current, key: found}

    async def _load(self, key: tuple[int, int]) -> LiveValidation | None:
        """Returns the stored daily measurement of the last complete day; None without one."""
        if key != DAILY:
            return None
        end = _midnight(self.clock())
        async with self.database.read() as unit:
            scores = await unit.get(FactorEvidenceRepository).newest(
                EvidenceSource.LIVE, HORIZON, (end - _DAY).date()
            )
        if not scores or scores[0].measurement.data_source != self.source.value:
            return None
        first = scores[0].measurement
        found = LiveValidation(
            begin=datetime.combine(first.first_day, datetime.min.time(), UTC),
            end=end,
            as_of=first.as_of,
            measured_at=first.measured_at,
            source=self.source,
            status=self.market_status(),
            horizon=first.horizon,
            board_days=first.board_days,
            days_needed=days_needed(first.horizon),
            days_for_label=days_for_label(first.horizon),
            algorithm_versions=first.versions,
            scores=scores,
        )
        return found if self._is_current(found) else None

    async def _store(self, key: tuple[int, int], found: LiveValidation) -> None:
        """Stores the daily measurement; a database that refuses writes leaves it in memory."""
        if key != DAILY or not found.scores:
            return
        try:
            async with self.database.write() as unit:
                await unit.get(FactorEvidenceRepository).save(found.scores)
        except ServiceError as error:
            _log.warning("factor_evidence_not_stored", cause=str(error.code))

    async def _measure(self, horizon: int, days: int) -> LiveValidation:
        now = self.clock()
        end = _midnight(now)
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

        def work() -> tuple[dict[ScoreKey, JudgedScore], str]:
            panel = Panel.from_series(
                series, tuple(ids), Interval.DAY, _ms(end), (end - begin) // _DAY
            )
            live = _arrange(panel, begin.date(), values, listed, ended, horizon)
            return validate_live(live, horizon), hash_scores(live)

        judged, data_hash = await asyncio.to_thread(work)
        as_of = _newest_close(series.values(), _ms(end))
        versions = tuple(sorted({one.algorithm_version for one in chosen.values()}))
        scores: tuple[FactorEvidence, ...] = ()
        if chosen:
            measurement = EvidenceMeasurement(
                source=EvidenceSource.LIVE,
                algorithm=CROSS_SECTIONAL,
                algorithm_version=chosen[max(chosen)].algorithm_version,
                horizon=horizon,
                first_day=begin.date(),
                last_day=(end - _DAY).date(),
                measured_at=now,
                as_of=as_of,
                data_source=self.source.value,
                data_hash=data_hash,
                trials=0,
                board_days=len(chosen),
                versions=versions,
            )
            scores = order_evidence(
                create_evidence(
                    measurement, *key, one.evidence, one.label, one.reason,
                    has_figures=one.has_figures,
                )
                for key, one in judged.items()
            )  # fmt: skip
        return LiveValidation(
            begin=begin,
            end=end,
            as_of=as_of,
            measured_at=now,
            source=self.source,
            status=_candle_status(as_of, end),
            horizon=horizon,
            board_days=len(chosen),
            days_needed=days_needed(horizon),
            days_for_label=days_for_label(horizon),
            algorithm_versions=versions,
            scores=scores,
        )


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


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
