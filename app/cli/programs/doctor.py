"""`my-symbols doctor`: configuration, database, schema, exchange, clock, and what to do."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from secrets import SystemRandom
from typing import Final
from urllib.parse import urlsplit

import typer

from app.adapters.kucoin.exchange import open_exchange
from app.adapters.kucoin.limits import KucoinLimits
from app.cli.exit_codes import CommandError, ExitCode, exit_of
from app.cli.output import HERE, AsJson, Output, Url, reporting, table
from app.cli.programs.doctor_checks import Check, Verdict
from app.cli.programs.doctor_service import checked
from app.cli.programs.settings import read_settings
from app.container import utc_now
from app.foundation.data_status import DataSource
from app.foundation.errors import ServiceError
from app.foundation.sql import migrations
from app.market.domain.models import ExchangeStatus
from app.settings import Settings

# KuCoin refuses signed requests that are more than five seconds off.
CLOCK_WARN: Final = timedelta(seconds=1)
CLOCK_FAIL: Final = timedelta(seconds=5)
_LIMITS: Final = KucoinLimits(
    connect_timeout_s=3.0, read_timeout_s=5.0, total_timeout_s=6.0, patience_s=8.0, tries=1
)


def doctor(as_json: AsJson = False, url: Url = HERE) -> None:
    """Check configuration, database, schema, exchange, clock and the service that runs."""
    with reporting(as_json) as output:
        checks = [*asyncio.run(_all()), *asyncio.run(checked(url))]
        _show(checks, output)
    failed = [check.exit_code for check in checks if check.verdict is Verdict.FAILED]
    raise typer.Exit(int(max(failed, default=ExitCode.OK)))


async def _all() -> list[Check]:
    try:
        settings = read_settings()
    except CommandError as error:
        wrong = Check(
            "configuration",
            Verdict.FAILED,
            error.detail,
            "correct or unset these variables; the README lists all of them",
            ExitCode.CONFIGURATION,
        )
        later = ("database", "schema", "exchange", "clock")
        return [wrong, *(Check(name, Verdict.SKIPPED, "needs a configuration") for name in later)]
    source = settings.kucoin.data_source
    fine = Check("configuration", Verdict.OK, f"{settings.kucoin.base_url} as {source}")
    return [
        fine,
        *[check async for check in _database(settings)],
        *[check async for check in _exchange(settings)],
    ]


async def _database(settings: Settings) -> AsyncIterator[Check]:
    url = settings.database.url
    place = _without_secrets(url)
    try:
        _writable(url)
        present, needed = await migrations.current(url), migrations.head()
    except ValueError as error:
        advice = "set MYSYMBOLS_DATABASE__URL to an sqlite or postgresql address"
        yield Check("database", Verdict.FAILED, str(error), advice, ExitCode.CONFIGURATION)
        yield Check("schema", Verdict.SKIPPED, "needs a database")
        return
    except (ServiceError, OSError) as error:
        advice = "start it, or correct MYSYMBOLS_DATABASE__URL and the rights on its place"
        means = exit_of(error) if isinstance(error, ServiceError) else ExitCode.CONFIGURATION
        yield Check("database", Verdict.FAILED, f"{place}: {error}", advice, means)
        yield Check("schema", Verdict.SKIPPED, "needs a database")
        return
    yield Check("database", Verdict.OK, place)
    if present == needed:
        yield Check("schema", Verdict.OK, f"revision {needed}")
    elif present is None:
        advice = "nothing to do: `my-symbols serve` makes it"
        yield Check("schema", Verdict.WARNING, f"none yet, {needed} is needed", advice)
    elif migrations.knows(present):
        advice = "nothing to do: `my-symbols serve` brings it up to date"
        yield Check("schema", Verdict.WARNING, f"revision {present}, {needed} is needed", advice)
    else:
        yield Check(
            "schema",
            Verdict.FAILED,
            f"revision {present} is unknown to this version, which needs {needed}",
            "run the version that made it, or choose another database",
            ExitCode.CONFIGURATION,
        )


async def _exchange(settings: Settings) -> AsyncIterator[Check]:
    kucoin = settings.kucoin
    try:
        async with open_exchange(
            base_url=kucoin.base_url,
            source=kucoin.data_source,
            now=utc_now,
            monotonic=time.monotonic,
            sleep=asyncio.sleep,
            dice=SystemRandom(),
            limits=_LIMITS,
        ) as exchange:
            status = await exchange.status()
            asked = time.monotonic()
            stamp_ms = await exchange.server_time_ms()
            took = time.monotonic() - asked
    except ServiceError as error:
        advice = (
            "check the network and MYSYMBOLS_KUCOIN__BASE_URL; the service stays up meanwhile, "
            "shows no score and goes on trying"
        )
        detail = f"{kucoin.base_url}: {error.code}: {error.detail}"
        yield Check("exchange", Verdict.FAILED, detail, advice, ExitCode.UNAVAILABLE)
        yield Check("clock", Verdict.SKIPPED, "needs the exchange's time")
        return
    open_now = status is ExchangeStatus.OPEN
    yield Check(
        "exchange",
        Verdict.OK if open_now else Verdict.WARNING,
        f"{status}, answered in {took * 1000:.0f} ms",
        "" if open_now else "wait until its maintenance is over: no new decisions until then",
    )
    ahead = timedelta(milliseconds=stamp_ms) - _since_epoch() + timedelta(seconds=took / 2)
    yield _clock(ahead, kucoin.data_source)


def _since_epoch() -> timedelta:
    return timedelta(seconds=utc_now().timestamp())


def _clock(ahead: timedelta, source: DataSource) -> Check:
    seconds = ahead.total_seconds()
    detail = f"the exchange is {abs(seconds):.3f} s {'ahead' if seconds > 0 else 'behind'}"
    if source is DataSource.SANDBOX:
        return Check("clock", Verdict.OK, f"{detail}; a local exchange may keep its own time")
    if abs(ahead) <= CLOCK_WARN:
        return Check("clock", Verdict.OK, detail)
    advice = "synchronise this machine's clock (NTP)"
    if abs(ahead) <= CLOCK_FAIL:
        return Check("clock", Verdict.WARNING, detail, advice)
    return Check("clock", Verdict.FAILED, detail, advice, ExitCode.CONFIGURATION)


def _show(checks: list[Check], output: Output) -> None:
    if output.as_json:
        healthy = all(check.verdict is not Verdict.FAILED for check in checks)
        rows = [{**asdict(check), "exit_code": int(check.exit_code)} for check in checks]
        output.machine({"healthy": healthy, "checks": rows})
        return
    rows_shown = [(one.name, one.verdict.value, one.detail, one.advice) for one in checks]
    output.people.print(table("doctor", ("check", "verdict", "", "what to do"), rows_shown))


def _writable(url: str) -> None:
    """Whether an SQLite file that is not there yet could be made. Raises OSError."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("sqlite"):
        return
    path = Path(parts.path.removeprefix("/"))
    nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
    if nearest != path and not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is not a directory")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"{nearest} may not be written")


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
