"""Backtests over the stored daily candles, as durable jobs that log one trial each."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import numpy as np

from app.configuration.domain.document import as_document, validate
from app.configuration.storage.configuration import ConfigurationRepository, load_configuration
from app.foundation.errors import Code, NotFoundError, RefusedError
from app.foundation.job_service import JobService
from app.foundation.jobs import Document, Job, JobKind
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.market.domain.models import CandleSeries, ContractKind, Funding, Interval
from app.market.domain.sectors import SectorTable
from app.market.storage.candles import CandleRepository
from app.market.storage.market_data import MarketRepository
from app.market.storage.symbols import SymbolRecord, SymbolRepository
from app.research.domain.history import CandleHistory, history_from_rows
from app.research.domain.trials import Trial
from app.research.services.backtest_process import TrialInputs, run_in_process
from app.research.services.historical_market import TradingCosts
from app.research.services.trials import TrialRequest
from app.research.storage.trials import TrialRepository

HISTORY: Final = "stored candles"
_PREFIX: Final = f"{JobKind.BACKTEST.value}:"
_FIELDS: Final = ("open", "high", "low", "close", "volume", "turnover")


@dataclass(frozen=True, slots=True)
class BacktestJob:
    """A backtest as it stands; `trial` is None before its end."""

    job: Job
    trial: Trial | None


@dataclass(frozen=True, slots=True)
class Backtests:
    """Starts, runs and reads backtests; the id of a trial is the end of the id of its job."""

    database: Database
    jobs: JobService
    sectors: Callable[[], SectorTable]
    clock: Clock
    code_version: str

    async def start(
        self, request: TrialRequest, settings: Mapping[str, object], request_key: str | None
    ) -> Job:
        """Starts a job; the same request gets the running job, the same key the same job.

        `settings` change those in force. Raises ConfigurationRefusedError, RefusedError for days
        without stored candles, UnavailableError.
        """
        async with self.database.read() as unit:
            present = await unit.get(ConfigurationRepository).current()
            span = await unit.get(CandleRepository).span(Interval.DAY)
        if settings:
            validate(settings, present)
        _require_days(request, span)
        payload: dict[str, object] = {
            "first_day": None if request.first_day is None else str(request.first_day),
            "last_day": None if request.last_day is None else str(request.last_day),
            "every": request.every,
            "offset": request.offset,
            "all_offsets": request.all_offsets,
            "draws": request.draws,
            "seed": request.seed,
            "fee_bp": request.costs.fee_bp,
            "half_spread_bp": request.costs.half_spread_bp,
            "configuration_version": present.version,
            "settings": json.dumps(settings, default=str, sort_keys=True),
        }
        digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
        return await self.jobs.begin(JobKind.BACKTEST, payload, request_key, digest)

    async def get(self, job_id: str) -> BacktestJob:
        """Returns one backtest. Raises NotFoundError, also for a job of another kind."""
        if not job_id.startswith(_PREFIX):
            raise NotFoundError(Code.NOT_FOUND, "No backtest has this id.")
        job = await self.jobs.job(job_id)
        return BacktestJob(job, await self._logged(_trial_id(job_id)))

    async def run(
        self, job_id: str, payload: Document, progress: Callable[[int, int], None]
    ) -> Document:
        """Runs the backtest of a job and logs its trial; a trial that is logged is not run again.

        `progress` receives finished and all stages. Raises RefusedError for a history or settings
        that give no trial.
        """
        trial_id = _trial_id(job_id)
        trial = await self._logged(trial_id)
        if trial is None:
            trial = await self._compute(trial_id, payload, progress)
            async with self.database.write() as unit:
                await unit.get(TrialRepository).add_once(trial)
        return {"trial_id": trial_id}

    async def _compute(
        self, trial_id: str, payload: Document, progress: Callable[[int, int], None]
    ) -> Trial:
        request = _request(payload)
        changes: dict[str, object] = json.loads(str(payload["settings"]))
        async with self.database.read() as unit:
            used = await load_configuration(unit, int(str(payload["configuration_version"])))
            former = await unit.get(TrialRepository).all()
        if changes:
            used = validate(changes, used)
        stages = 3 + (request.every if request.all_offsets else 1)
        finished = 0

        def begin_stage(_: str) -> None:
            nonlocal finished
            progress(finished, stages)
            finished += 1

        inputs = TrialInputs(
            await self.history(),
            as_document(used),
            used.version,
            dict(self.sectors().rows),
            request,
            trial_id,
            self.clock(),
            self.code_version,
            tuple(one.sharpe for one in former if one.sharpe is not None),
        )
        return await run_in_process(inputs, begin_stage)

    async def history(self) -> CandleHistory:
        """Returns all stored daily candles of linear perpetuals with the stored funding.

        Raises RefusedError without any.
        """
        async with self.database.read() as unit:
            records = [
                one
                for one in await unit.get(SymbolRepository).all()
                if one.contract.kind is ContractKind.PERPETUAL and not one.contract.is_inverse
            ]
            ids = [one.id for one in records]
            series = await unit.get(CandleRepository).load(ids, Interval.DAY)
            funding = await unit.get(MarketRepository).funding(ids)
        if not series:
            raise RefusedError(Code.VALIDATION_FAILED, "The service has no daily candles yet.")
        return await asyncio.to_thread(_history, records, series, funding)

    async def _logged(self, trial_id: str) -> Trial | None:
        async with self.database.read() as unit:
            return await unit.get(TrialRepository).find(trial_id)


def _trial_id(job_id: str) -> str:
    return job_id.removeprefix(_PREFIX)


def _require_days(request: TrialRequest, span: tuple[int, int] | None) -> None:
    """Raises RefusedError for a period without stored candles."""
    if span is None:
        raise RefusedError(Code.VALIDATION_FAILED, "The service has no daily candles yet.")
    oldest, newest = (datetime.fromtimestamp(one / 1000, UTC).date() for one in span)
    stored = f"the stored days are {oldest} to {newest}"
    first, last = request.first_day, request.last_day
    if first is not None and first > newest:
        raise RefusedError(
            Code.VALIDATION_FAILED, f"The period is empty: {stored}.", field="first_day"
        )
    if last is not None and last < (oldest if first is None else max(first, oldest)):
        raise RefusedError(
            Code.VALIDATION_FAILED, f"The period is empty: {stored}.", field="last_day"
        )


def _request(payload: Document) -> TrialRequest:
    found: dict[str, Any] = dict(payload)
    first, last = found["first_day"], found["last_day"]
    return TrialRequest(
        first_day=None if first is None else date.fromisoformat(first),
        last_day=None if last is None else date.fromisoformat(last),
        every=found["every"],
        offset=found["offset"],
        all_offsets=found["all_offsets"],
        draws=found["draws"],
        seed=found["seed"],
        costs=TradingCosts(found["fee_bp"], found["half_spread_bp"]),
    )


def _history(
    records: list[SymbolRecord],
    series: Mapping[str, CandleSeries],
    funding: Mapping[str, tuple[Funding, ...]],
) -> CandleHistory:
    """Contracts that share a symbol are listings of their own, numbered by first sight."""
    listings: list[np.ndarray] = []
    rates: list[np.ndarray] = []
    parts: list[CandleSeries] = []
    counts: dict[str, int] = {}
    for record in sorted(records, key=lambda one: (one.symbol, one.first_seen, one.id)):
        if record.id not in series:
            continue
        one = series[record.id]
        number = counts.get(record.symbol, 0)
        counts[record.symbol] = number + 1
        name = f"{record.symbol}#{number}" if number else record.symbol
        parts.append(one)
        listings.append(np.full(len(one), name))
        rates.append(_daily_funding(one, funding.get(record.id, ())))
    return history_from_rows(
        HISTORY,
        np.concatenate(listings),
        np.concatenate([one.opened_ms for one in parts]),
        {name: np.concatenate([getattr(one, name) for one in parts]) for name in _FIELDS},
        np.concatenate(rates),
    )


def _daily_funding(series: CandleSeries, funding: tuple[Funding, ...]) -> np.ndarray:
    """Returns the sum of the rates settled within each day; NaN without a settlement."""
    sums = np.full(len(series), np.nan)
    row_by_day = {
        opened // Interval.DAY.ms: row for row, opened in enumerate(series.opened_ms.tolist())
    }
    for one in funding:
        row = row_by_day.get(one.settled_ms // Interval.DAY.ms)
        if row is not None:
            sums[row] = (0.0 if np.isnan(sums[row]) else sums[row]) + float(one.rate)
    return sums
