"""Program of `my-symbols demo`: local exchange and service, up to a portfolio of ten."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress, TaskID

from app.cli.client import Client
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import Output, report_errors
from app.cli.programs.demo_report import DemoResult, print_result
from app.cli.programs.local_exchange import ExchangeOptions, run_exchange
from app.cli.programs.sandbox import parse_day, require_file
from app.cli.programs.service import Server, listening, run
from app.cli.programs.settings import read_settings
from app.foundation.data_status import DataSource
from app.foundation.sql.file_lock import DatabaseInUseError, DatabasePlaceError, FileLock
from app.foundation.sql.job_store import jobs_file
from app.settings import Settings

# KuCoin allows 2000 per 30 s and address. At that pace the first fill (daily and hourly candles of
# about 500 contracts) takes minutes, so the demo's own exchange allows more.
DEMO_QUOTA: Final = 100_000
HOST: Final = "127.0.0.1"
_POLL_INTERVAL_S: Final = 0.2
_FILL_TIMEOUT_S: Final = 600.0
_MAX_SCORINGS: Final = 20  # until a board is complete
_SCORING_PAUSE_S: Final = 3.0
_COMPLETE: Final = "complete"


def run_demo(
    *,
    seed: int,
    port: int,
    replay: Path | None,
    replay_from: str | None,
    contracts: int | None,
    database: Path,
    once: bool,
    as_json: bool,
) -> None:
    """Starts exchange and service, forms a portfolio, prints it, and serves until Ctrl-C."""
    with report_errors(as_json) as output:
        started = time.monotonic()
        day = parse_day(replay_from)
        exchange = ExchangeOptions(seed, DEMO_QUOTA, require_file(replay), day, contracts)
        with listening(HOST, port) as listener, run_exchange(exchange) as base_url:
            settings = _create_settings(base_url, database, port)
            # After port and exchange are ready: a demo that cannot start keeps the last one's data.
            delete_database(database)

            async def form_and_print(server: Server) -> None:
                result = await _form_portfolio(Client(server.url), server, output, started)
                print_result(result, output, time.monotonic() - started)
                if not once:
                    output.notes.print(
                        f"serving {server.url} (docs at {server.url}/docs); Ctrl-C ends the demo"
                    )
                    await server.ending.wait()

            run(settings, listener, form_and_print)


def _create_settings(base_url: str, database: Path, port: int) -> Settings:
    log_level = None if "MYSYMBOLS_LOG__LEVEL" in os.environ else "error"
    return read_settings(
        {
            "kucoin": {
                "base_url": base_url,
                "source": DataSource.SANDBOX,
                "quota_per_window": DEMO_QUOTA,
            },
            # On a busy machine a change may wait for the candles of the whole market.
            "database": {"url": f"sqlite+aiosqlite:///{database}", "pool_wait_s": 60.0},
            "http": {"host": HOST, "port": port},
            "log": {"level": log_level, "form": "console"},
        }
    )


def delete_database(database: Path) -> None:
    """Deletes the database of an earlier demo: data of two markets must not mix.

    Raises CommandError and deletes nothing while another process has the file, or if no file can
    be created there.
    """
    try:
        lock = FileLock.taken(str(database))
    except DatabaseInUseError as error:
        raise CommandError(
            ExitCode.CONFIGURATION,
            "database_in_use",
            f"{error.detail}, by `--database`. It was left unchanged.",
        ) from None
    except DatabasePlaceError as error:
        raise CommandError(exit_code_of_error(error), error.code, error.detail) from None
    # The service takes the lock again. Another demo that takes it in between may also delete the
    # file, but never while it is open: the later process is refused.
    try:
        for name in (database.name, jobs_file(database).name):
            for suffix in ("", "-wal", "-shm"):
                database.with_name(name + suffix).unlink(missing_ok=True)
    finally:
        lock.release()


async def _form_portfolio(
    client: Client, server: Server, output: Output, started: float
) -> DemoResult:
    with output.create_progress() as progress:
        await _wait_for_fill(client, server, progress)
        progress.add_task("scoring", total=None)
        run_id, usable_s = await _score_until_complete(client, started)
    portfolio = await client.get("/portfolio")
    choice: Any = None
    if not portfolio.document["members"]:
        choice = (await client.post("/portfolio/initialize")).document
        portfolio = await client.get("/portfolio")
    return DemoResult(
        url=server.url,
        portfolio=portfolio.document,
        choice=choice,
        rankings=(await client.get("/scoring/rankings", limit=1000)).document,
        run=(await client.get(f"/scoring/runs/{run_id}")).document,
        funnel=(await client.get("/universe/funnel")).document,
        usable_s=usable_s,
    )


async def _score_until_complete(client: Client, started: float) -> tuple[str, float | None]:
    """Returns the newest run, and the seconds from `started` to the first complete board.

    Simultaneous calls share one run: the first call may join a run that began before the last
    candle arrived, the second cannot.
    """
    usable_s: float | None = None
    for attempt in range(_MAX_SCORINGS):
        board = (await client.post("/scoring/calculate")).document
        if not board["is_provisional"] and usable_s is None:
            usable_s = time.monotonic() - started
        if attempt and usable_s is not None:
            break
        if board["is_provisional"]:
            await asyncio.sleep(_SCORING_PAUSE_S)
    return board["run_id"], usable_s


async def _wait_for_fill(client: Client, server: Server, progress: Progress) -> None:
    """Follows the first fill, stage by stage. Raises CommandError on time-out or shutdown."""
    tasks: dict[str, TaskID] = {}
    try:
        async with asyncio.timeout(_FILL_TIMEOUT_S):
            while not server.should_exit:
                feed = (await client.get("/status")).document["feed"]
                stage, done, total = feed["stage"], feed["done"], feed["total"]
                for earlier, task in tasks.items():
                    if earlier != stage:
                        progress.update(task, completed=progress.tasks[task].total)
                if stage == _COMPLETE:
                    return
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage.replace("_", " "), total=None)
                progress.update(tasks[stage], completed=done, total=total or None)
                await asyncio.sleep(_POLL_INTERVAL_S)
    except TimeoutError:
        raise CommandError(
            ExitCode.UNAVAILABLE,
            "fill_too_slow",
            f"The first fill took over {_FILL_TIMEOUT_S:.0f} s.",
        ) from None
    raise CommandError(ExitCode.INTERRUPTED, "interrupted", "Stopped before the first board.")
