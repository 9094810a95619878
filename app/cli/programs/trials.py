"""Programs of `my-symbols trials`, and the database that logs a trial."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import create_table, report_errors
from app.cli.programs.settings import read_settings
from app.foundation.errors import NotFoundError, ServiceError
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.operations.domain.event_codec import encode_event
from app.research.domain.trials import Trial
from app.research.storage.trials import TrialRepository
from app.settings import Settings

T = TypeVar("T")


def list_trials(as_json: bool) -> None:
    """Prints all trials, the newest first."""
    with report_errors(as_json) as output:
        found = run_on_database(read_settings(), _all)[::-1]
        if as_json:
            output.print_document({"items": [trial_document(one) for one in found]})
            return
        columns = ("id", "ran at", "history", "days", "Sharpe>", "IC>", "t>", "judgement")
        output.console.print(create_table("trials", columns, [_row(one) for one in found]))


def show_trials(trials: list[str], as_json: bool) -> None:
    """Prints parameters and results of trials side by side."""
    with report_errors(as_json) as output:

        async def read(database: Database) -> list[Trial]:
            async with database.read() as unit:
                return [await unit.get(TrialRepository).get(one) for one in trials]

        found = run_on_database(read_settings(), read)
        if as_json:
            output.print_document({"items": [trial_document(one) for one in found]})
            return
        names = ("", *(one.id[:8] for one in found))
        facts = [_facts(one) for one in found]
        rows = [
            (name, *(each.get(name) for each in facts))
            for name in dict.fromkeys(name for each in facts for name in each)
        ]
        output.console.print(create_table("trials", names, rows))


async def _all(database: Database) -> tuple[Trial, ...]:
    async with database.read() as unit:
        return await unit.get(TrialRepository).all()


def run_on_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Result of `work` on the migrated database of the settings. Raises CommandError."""

    async def run() -> T:
        async with _opened(settings) as database:
            return await work(database)

    try:
        return asyncio.run(run())
    except NotFoundError as error:
        raise CommandError(ExitCode.REFUSED, error.code, error.detail) from None
    except ServiceError as error:
        raise CommandError(exit_code_of_error(error), error.code, error.detail) from None


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    await migrations.upgrade(settings.database.url)
    database = Database(
        settings.database.options, time.monotonic, secrets.SystemRandom().random, encode_event
    )
    await database.open(is_exclusive=False)
    try:
        yield database
    finally:
        await database.close()


def trial_document(trial: Trial) -> dict[str, Any]:
    """JSON form of a trial."""
    return {
        "id": trial.id,
        "ran_at": trial.ran_at.isoformat().replace("+00:00", "Z"),
        "kind": trial.kind,
        "history": trial.history,
        "data_hash": trial.data_hash,
        "code_version": trial.code_version,
        "parameters": dict(trial.parameters),
        "sharpe": trial.sharpe,
        "result": dict(trial.result),
    }


def _row(trial: Trial) -> tuple[object, ...]:
    result, evidence = trial.result, trial.result["composite"]
    return (
        trial.id[:8],
        f"{trial.ran_at:%Y-%m-%d %H:%M}",
        trial.history,
        f"{result['first_day']} to {result['last_day']}",
        _short(result["sharpe"]),
        _short(evidence["ic"]),
        _short(evidence["ic_t"]),
        result["judgement"],
    )


def _facts(trial: Trial) -> dict[str, object]:
    """Plain values of parameters and result by name."""
    flat: dict[str, object] = {"history": trial.history, "data": trial.data_hash[:12]}
    for name, value in {**trial.parameters, **trial.result}.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": one for inner, one in value.items() if not _nested(one)}
        elif not _nested(value):
            flat[name] = value
    return flat


def _nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
