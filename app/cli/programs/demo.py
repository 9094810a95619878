"""`my-symbols demo`: local exchange and service together, from nothing to a portfolio of ten."""

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress, TaskID

from app.cli.client import Client
from app.cli.exit_codes import CommandError, ExitCode, exit_of
from app.cli.output import AsJson, Output, reporting
from app.cli.programs.demo_report import DemoResult, print_findings
from app.cli.programs.local_exchange import ExchangeChoice, exchange_beside
from app.cli.programs.sandbox import (
    DEFAULTS,
    Contracts,
    Replay,
    ReplayFrom,
    Seed,
    iso_day,
    readable,
)
from app.cli.programs.service import Server, listening, run
from app.cli.programs.settings import read_settings
from app.foundation.data_status import DataSource
from app.foundation.sql.file_lock import DatabaseInUseError, DatabasePlaceError, FileLock
from app.foundation.sql.job_store import jobs_file
from app.settings import Settings

# KuCoin allows 2000 per 30 s and address. The first fill of everything (daily and hourly candles
# of some 500 contracts) would take minutes at that pace, so the demo's own exchange allows more.
DEMO_QUOTA: Final = 100_000
DATABASE: Final = Path("var/demo.sqlite3")
HOST: Final = "127.0.0.1"
_LOOK_S: Final = 0.2
_FILL_S: Final = 600.0
_SCORINGS: Final = 20  # at most, until a board is not provisional
_PAUSE_S: Final = 3.0
_COMPLETE: Final = "complete"


def demo(
    seed: Seed = DEFAULTS.seed,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the service.")] = 8000,
    replay: Replay = None,
    replay_from: ReplayFrom = None,
    contracts: Contracts = None,
    database: Annotated[
        Path, typer.Option(help="SQLite file of the demo; made anew each time.")
    ] = DATABASE,
    once: Annotated[bool, typer.Option("--once", help="Leave after the report.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a local exchange and the service, form a portfolio, print it, and keep serving."""
    with reporting(as_json) as output:
        started = time.monotonic()
        day = iso_day(replay_from)
        choice = ExchangeChoice(seed, DEMO_QUOTA, readable(replay), day, contracts)
        with listening(HOST, port) as listener, exchange_beside(choice) as base_url:
            settings = _settings(base_url, database, port)
            # Not before the port is ours and the exchange is up: a demo that cannot start
            # leaves the last one's data alone.
            forget(database)

            async def beside(server: Server) -> None:
                findings = await _first_portfolio(Client(server.url), server, output, started)
                print_findings(findings, output, time.monotonic() - started)
                if not once:
                    output.notes.print(
                        f"serving {server.url} (docs at {server.url}/docs); Ctrl-C ends the demo"
                    )
                    await server.ending.wait()

            run(settings, listener, beside)


def _settings(base_url: str, database: Path, port: int) -> Settings:
    quiet = None if "MYSYMBOLS_LOG__LEVEL" in os.environ else "error"
    return read_settings(
        {
            "kucoin": {
                "base_url": base_url,
                "source": DataSource.SANDBOX,
                "quota_per_window": DEMO_QUOTA,
            },
            # On a busy machine a change may stand behind the candles of the whole market.
            "database": {"url": f"sqlite+aiosqlite:///{database}", "pool_wait_s": 60.0},
            "http": {"host": HOST, "port": port},
            "log": {"level": quiet, "form": "console"},
        }
    )


def forget(database: Path) -> None:
    """Deletes what an earlier demo left: another market's data must not mix with this one's.

    Raises CommandError and deletes nothing while another process has the file, and where no file
    can be.
    """
    try:
        lock = FileLock.taken(str(database))
    except DatabaseInUseError as error:
        raise CommandError(
            ExitCode.CONFIGURATION,
            "database_in_use",
            f"{error.detail}, by `--database`. Nothing of it was touched.",
        ) from None
    except DatabasePlaceError as error:
        raise CommandError(exit_of(error), error.code, error.detail) from None
    # The service takes the lock again by itself. Who takes it in between may delete the file as
    # well, but never while it is open: the later one is refused.
    try:
        for name in (database.name, jobs_file(database).name):
            for suffix in ("", "-wal", "-shm"):
                database.with_name(name + suffix).unlink(missing_ok=True)
    finally:
        lock.release()


async def _first_portfolio(
    client: Client, server: Server, output: Output, started: float
) -> DemoResult:
    with output.progress() as progress:
        await _filled(client, server, progress)
        progress.add_task("scoring", total=None)
        run_id, usable_s = await _scored(client, started)
    portfolio = await client.get("/portfolio")
    chosen: Any = None
    if not portfolio.document["members"]:
        chosen = (await client.post("/portfolio/initialize")).document
        portfolio = await client.get("/portfolio")
    return DemoResult(
        url=server.url,
        portfolio=portfolio.document,
        choice=chosen,
        rankings=(await client.get("/scoring/rankings", limit=1000)).document,
        run=(await client.get(f"/scoring/runs/{run_id}")).document,
        funnel=(await client.get("/universe/funnel")).document,
        usable_s=usable_s,
    )


async def _scored(client: Client, started: float) -> tuple[str, float | None]:
    """The newest run, and the seconds from `started` to the first board that is not provisional.

    Simultaneous calls share one run: the first may join one that began before the last candle was
    there, the second cannot.
    """
    usable_s: float | None = None
    for attempt in range(_SCORINGS):
        board = (await client.post("/scoring/calculate")).document
        if not board["is_provisional"] and usable_s is None:
            usable_s = time.monotonic() - started
        if attempt and usable_s is not None:
            break
        if board["is_provisional"]:
            await asyncio.sleep(_PAUSE_S)
    return board["run_id"], usable_s


async def _filled(client: Client, server: Server, progress: Progress) -> None:
    """Follows the first fill, stage by stage. Raises CommandError when it cannot end."""
    tasks: dict[str, TaskID] = {}
    try:
        async with asyncio.timeout(_FILL_S):
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
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise CommandError(
            ExitCode.UNAVAILABLE, "fill_too_slow", f"The first fill took over {_FILL_S:.0f} s."
        ) from None
    raise CommandError(ExitCode.INTERRUPTED, "interrupted", "Stopped before the first board.")
