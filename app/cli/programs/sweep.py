"""Program of `my-symbols sweep`: runs the trials of a document on several processes."""

import multiprocessing
import os
import signal
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import Output, create_table, format_number, report_errors
from app.cli.programs.settings import read_settings
from app.cli.programs.trials import run_on_database
from app.configuration.domain.document import ConfigurationRefusedError, validate
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.container.runtime_values import code_digest, code_version, new_id, utc_now
from app.foundation.sql.database import Database
from app.market.domain.models import Floats
from app.market.services.symbol_registry import shipped_sectors
from app.research.domain.history import CandleHistory
from app.research.domain.sweep import SweepPlan, SweepTrial
from app.research.domain.trials import Trial
from app.research.services.backtest import BoardSeries
from app.research.services.history_files import read_history
from app.research.services.run_files import read_returns, require_parquet, write_run
from app.research.services.sweeps import (
    SweepOutcome,
    SweepSummary,
    SweepTask,
    logged_runs,
    plan_tasks,
    run_tasks,
    summarize,
)
from app.research.services.trials import select_rows
from app.research.storage.trials import TrialRepository
from app.settings import Settings


def run(options: Mapping[str, Any]) -> None:
    """Runs the missing trials of a sweep, logs each at once and prints all of them.

    `options` are those of the command by name.
    """
    with report_errors(options["as_json"]) as output:
        settings = read_settings()
        file: Path = options["file"]
        folder = options["output"] or file.with_suffix("")
        stored, before = run_on_database(settings, _read)
        try:
            require_parquet()
            tasks = _plan(file, stored)
            logged = logged_runs(before)
            missing = [one for one in tasks if one.run_hash not in logged]
            output.notes.print(
                f"{len(tasks)} trials, {len(tasks) - len(missing)} of them logged before",
                markup=False,
            )
            _run(missing, before, _Recorder(settings, folder, output, len(missing)), options)
            trials = run_on_database(settings, _read)[1] if missing else before
            returns = _returns(folder, tasks)
        except ValueError as error:
            raise _usage(f"{error}.") from None
        lacking = [one.run_hash for one in tasks if one.run_hash not in returns]
        if lacking:
            output.notes.print(
                f"{len(lacking)} logged runs have no file in {folder}: "
                "their deflated Sharpe is unknown",
                markup=False,
            )
        summary = summarize(tasks, trials, returns)
        if output.as_json:
            output.print_document({**asdict(summary), "ran": len(missing), "output": str(folder)})
            return
        _print(summary, output)


@dataclass(slots=True, eq=False)
class _Recorder:
    """Writes the days of a finished trial, logs it and says the time left."""

    settings: Settings
    folder: Path
    output: Output
    count: int
    done: int = field(default=0, init=False)
    began: float = field(default_factory=time.monotonic, init=False)

    def __call__(self, outcome: SweepOutcome) -> None:
        # The file comes first: a logged trial always has had its file.
        with _postponed_interrupt():
            write_run(self.folder, outcome.task.run_hash, outcome.steps)
            run_on_database(self.settings, lambda database: _log(database, outcome.trial))
        self.done += 1
        left = (time.monotonic() - self.began) / self.done * (self.count - self.done)
        sharpe = format_number(outcome.trial.result["sharpe"], 2)
        self.output.notes.print(
            f"{self.done} of {self.count}: {outcome.task.label}: Sharpe {sharpe}; "
            f"about {_duration(left)} left",
            markup=False,
        )


@contextmanager
def _postponed_interrupt() -> Iterator[None]:
    """Lets the record of a trial be completed; Ctrl-C counts afterwards."""
    received: list[int] = []
    former = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
    if received:
        raise KeyboardInterrupt


def _plan(file: Path, stored: Configuration) -> tuple[SweepTask, ...]:
    """Returns all tasks of a document. Raises ValueError for each wrong key or period."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is not a TOML document: {error}") from None
    plan = SweepPlan.of(document)
    path = file.parent / plan.history
    if not path.is_file():
        raise ValueError(f"history: there is no file {plan.history} beside {file.name}")
    history = read_history(path, plan.venue)

    def configured(trial: SweepTrial) -> Configuration:
        changes = trial.settings()
        try:
            return validate(changes, stored) if changes else stored
        except ConfigurationRefusedError as error:
            raise ValueError(f"grid: {error.detail.removesuffix('.')}") from None

    tasks = plan_tasks(plan, path, history, configured, f"{code_version()}+{code_digest()}")
    _check_period(plan, tasks[0], history, configured(plan.trials[0]))
    return tasks


def _check_period(
    plan: SweepPlan, task: SweepTask, history: CandleHistory, used: Configuration
) -> None:
    boards = BoardSeries.of(history, used, shipped_sectors(), task.request.costs)
    select_rows(boards, plan.first_day, plan.last_day, task.request.every, task.request.offset)


def _run(
    tasks: list[SweepTask],
    before: tuple[Trial, ...],
    finished: Callable[[SweepOutcome], None],
    options: Mapping[str, Any],
) -> None:
    """Runs tasks on processes. Ctrl-C ends the processes; logged trials stay."""
    if not tasks:
        return
    sharpes = [one.sharpe for one in before if one.sharpe is not None]
    workers = min(options["workers"] or os.cpu_count() or 1, len(tasks))
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts)
    try:
        run_tasks(executor, tasks, sharpes, new_id, utc_now, finished)
    except KeyboardInterrupt:
        _end(executor)
        raise CommandError(
            ExitCode.INTERRUPTED,
            "interrupted",
            "Stopped; the same command goes on with the trials that are missing.",
        ) from None
    except BrokenProcessPool:
        raise CommandError(
            ExitCode.INTERNAL,
            "worker_ended",
            "A worker process ended early; the same command goes on.",
        ) from None
    except BaseException:
        _end(executor)
        raise
    executor.shutdown()


def _end(executor: ProcessPoolExecutor) -> None:
    executor.shutdown(wait=False, cancel_futures=True)
    for child in multiprocessing.active_children():
        child.terminate()


def _ignore_interrupts() -> None:
    """Leaves Ctrl-C to the parent, which gets it as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _returns(folder: Path, tasks: tuple[SweepTask, ...]) -> dict[str, Floats]:
    found = {one.run_hash: read_returns(folder, one.run_hash) for one in tasks}
    return {name: values for name, values in found.items() if values is not None}


async def _read(database: Database) -> tuple[Configuration, tuple[Trial, ...]]:
    async with database.read() as unit:
        trials = await unit.get(TrialRepository).all()
        return await unit.get(ConfigurationRepository).current(), trials


async def _log(database: Database, trial: Trial) -> None:
    async with database.write() as unit:
        await unit.get(TrialRepository).add(trial)


def _print(summary: SweepSummary, output: Output) -> None:
    rows = [
        (
            one.trial_id,
            one.label,
            format_number(one.sharpe, 2),
            format_number(one.deflated_sharpe, 2),
            one.judgement,
        )
        for one in summary.rows
    ]
    columns = ("trial", "values", "Sharpe>", "deflated>", "judgement")
    title = f"by falling Sharpe ratio; deflated by {summary.trials} trials so far"
    output.console.print(create_table(title, columns, rows))
    chance = summary.overfitting
    text = "unknown: too few days or runs" if chance is None else f"{chance:.2f}"
    output.console.print(
        f"Probability of backtest overfitting over {summary.compared} runs: {text}.", markup=False
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100.0 else f"{seconds / 60.0:.0f} min"


def _usage(detail: str) -> CommandError:
    return CommandError(ExitCode.USAGE, "invalid_argument", detail)
