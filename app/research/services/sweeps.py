"""Runs the trials of a sweep on an executor; a history travels as its path and hash."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.configuration.domain.document import as_document, validate
from app.configuration.domain.model import Configuration
from app.market.domain.models import Floats
from app.market.services.symbol_registry import shipped_sectors
from app.research.domain.history import CandleHistory
from app.research.domain.luck import ReturnMoments, deflated_sharpe, overfitting_probability
from app.research.domain.sweep import SweepPlan, SweepTrial, run_hash
from app.research.domain.trials import Trial
from app.research.services.backtest import BacktestStep, BoardSeries
from app.research.services.historical_market import TradingCosts
from app.research.services.history_files import read_history
from app.research.services.trials import TrialRequest, run_trial

RUN_HASH: Final = "run_hash"  # parameter of a logged trial that a sweep has run


@dataclass(frozen=True, slots=True)
class SweepTask:
    """One trial as it travels to a worker; everything in it can be pickled."""

    run_hash: str
    label: str
    path: str
    venue: str | None
    data_hash: str
    configuration: str  # JSON document of all settings
    request: TrialRequest
    code_version: str


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """Result of a task: the record for the log and the days of the run."""

    task: SweepTask
    trial: Trial
    steps: tuple[BacktestStep, ...]


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One line of the summary; None is unknown, as the returns of a run without its file."""

    run_hash: str
    label: str
    trial_id: str
    sharpe: float | None  # of a year
    deflated_sharpe: float | None
    judgement: str


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """Rows by falling Sharpe ratio, unknown last, ties by hash; `trials` counts the whole log."""

    rows: tuple[SweepRow, ...]
    trials: int
    overfitting: float | None  # probability by CSCV; None with too few days or trials
    compared: int  # runs with known returns


def plan_tasks(
    plan: SweepPlan,
    path: Path,
    history: CandleHistory,
    configured: Callable[[SweepTrial], Configuration],
    code_version: str,
) -> tuple[SweepTask, ...]:
    """Returns one task a trial, in the order of the plan, each with its hash."""
    costs = TradingCosts(plan.fee_bp, plan.half_spread_bp)
    tasks, documents = [], dict[tuple[tuple[str, str], ...], dict[str, Any]]()
    for one in plan.trials:
        key = tuple((name, json.dumps(value, default=str)) for name, value in one.changes)
        if key not in documents:
            documents[key] = as_document(configured(one))
        request = TrialRequest(
            first_day=plan.first_day,
            last_day=plan.last_day,
            every=one.every,
            offset=one.offset,
            draws=plan.draws,
            seed=one.seed,
            costs=costs,
        )
        parameters = {
            "first_day": str(plan.first_day),
            "last_day": str(plan.last_day),
            **request.parameters(),
            "configuration": documents[key],
        }
        tasks.append(
            SweepTask(
                run_hash(parameters, history.data_hash, code_version),
                one.label,
                str(path),
                plan.venue,
                history.data_hash,
                json.dumps(documents[key], sort_keys=True),
                request,
                code_version,
            )
        )
    return tuple(tasks)


def logged_runs(trials: Sequence[Trial]) -> Mapping[str, Trial]:
    """Returns the trials of sweeps by the hash of their run; the first one counts."""
    found: dict[str, Trial] = {}
    for one in trials:
        if RUN_HASH in one.parameters:
            found.setdefault(one.parameters[RUN_HASH], one)
    return found


def run_tasks(
    executor: Executor,
    tasks: Sequence[SweepTask],
    trial_sharpes: Sequence[float],
    new_id: Callable[[], str],
    clock: Callable[[], datetime],
    finished: Callable[[SweepOutcome], None],
) -> None:
    """Runs tasks on any executor and hands over each outcome as soon as it is there.

    `trial_sharpes` are those before the sweep, so that a record depends on no other task.
    `clock` travels to the workers. The first error is raised; the owner of the executor
    ends it with the tasks that wait.
    """
    sharpes = tuple(trial_sharpes)
    waiting = [executor.submit(run_task, one, sharpes, new_id(), clock) for one in tasks]
    for one in as_completed(waiting):
        finished(one.result())


def run_task(
    task: SweepTask, trial_sharpes: Sequence[float], trial_id: str, clock: Callable[[], datetime]
) -> SweepOutcome:
    """Runs one task in a worker. Raises ValueError if the file has another data hash."""
    settings = validate(json.loads(task.configuration), Configuration())
    boards = _boards(task.path, task.venue, task.data_hash, task.configuration, task.request.costs)
    found = run_trial(
        boards, settings, task.request, trial_id, clock, task.code_version, trial_sharpes
    )
    parameters = {**found.trial.parameters, RUN_HASH: task.run_hash}
    return SweepOutcome(task, replace(found.trial, parameters=parameters), found.evidence.run.steps)


@lru_cache(maxsize=1)
def _history(path: str, venue: str | None, data_hash: str) -> CandleHistory:
    history = read_history(Path(path), venue)
    if history.data_hash != data_hash:
        raise ValueError(
            f"{history.name} has the data hash {history.data_hash[:12]}, "
            f"but the sweep was planned for {data_hash[:12]}"
        )
    return history


@lru_cache(maxsize=2)
def _boards(
    path: str, venue: str | None, data_hash: str, configuration: str, costs: TradingCosts
) -> BoardSeries:
    settings = validate(json.loads(configuration), Configuration())
    return BoardSeries.of(_history(path, venue, data_hash), settings, shipped_sectors(), costs)


def summarize(
    tasks: Sequence[SweepTask],
    trials: Sequence[Trial],
    returns: Mapping[str, Floats],
) -> SweepSummary:
    """Summarizes the logged trials of a sweep.

    `trials` is the whole log, `returns` has (T - 1,) daily returns by hash of the run. Only runs
    of equal length count in the probability of overfitting, else it is None.
    """
    logged = logged_runs(trials)
    sharpes = [one.sharpe for one in trials if one.sharpe is not None]
    rows = []
    for task in tasks:
        trial = logged.get(task.run_hash)
        if trial is None:
            continue
        known = returns.get(task.run_hash)
        moments = None if known is None else ReturnMoments.of(known)
        rows.append(
            SweepRow(
                task.run_hash,
                task.label,
                trial.id,
                trial.result["sharpe"],
                None if moments is None else deflated_sharpe(moments, sharpes),
                trial.result["judgement"],
            )
        )
    rows.sort(key=lambda one: (one.sharpe is None, -(one.sharpe or 0.0), one.run_hash))
    columns = [returns[one.run_hash] for one in rows if one.run_hash in returns]
    is_comparable = len({len(one) for one in columns}) == 1
    return SweepSummary(
        tuple(rows),
        len(trials),
        overfitting_probability(np.column_stack(columns)) if is_comparable else None,
        len(columns),
    )
